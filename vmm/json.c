/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/json.h"

#include <inttypes.h>
#include <string.h>

unsigned utf8_length(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return 1;
    unsigned len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (unsigned i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool wrong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
                 (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f);
    return wrong ? 0 : len;
}

static void write_string(FILE *out, const char *text)
{
    fputc('"', out);
    while (*text) {
        unsigned len = utf8_length(text);
        unsigned char c = (unsigned char)*text;
        if (len == 0)
            fputs("\\ufffd", out);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fwrite(text, 1, len, out);
        text += len ? len : 1;
    }
    fputc('"', out);
}

/* The comma, the line and the key in front of a value. */
static void begin(struct json *json, const char *key)
{
    if (json->filled[json->depth])
        fputc(',', json->out);
    if (json->depth)
        fprintf(json->out, "\n%*s", (int)json->depth * 2, "");
    json->filled[json->depth] = true;
    if (key) {
        write_string(json->out, key);
        fputs(": ", json->out);
    }
}

void json_open(struct json *json, const char *key, char bracket)
{
    begin(json, key);
    fputc(bracket, json->out);
    if (json->depth < JSON_DEPTH_MAX)
        json->depth++;
    json->filled[json->depth] = false;
}

void json_close(struct json *json, char bracket)
{
    bool filled = json->filled[json->depth];
    json->depth--;
    if (filled)
        fprintf(json->out, "\n%*s", (int)json->depth * 2, "");
    fputc(bracket, json->out);
    if (json->depth == 0)
        fputc('\n', json->out);
}

void json_string(struct json *json, const char *key, const char *text)
{
    begin(json, key);
    if (text)
        write_string(json->out, text);
    else
        fputs("null", json->out);
}

void json_integer(struct json *json, const char *key, int64_t value)
{
    begin(json, key);
    fprintf(json->out, "%" PRId64, value);
}

void json_raw(struct json *json, const char *key, const char *text)
{
    begin(json, key);
    fputs(text, json->out);
}

bool json_is_number(const char *text)
{
    static const char digits[] = "0123456789";
    text += *text == '-';
    size_t whole = strspn(text, digits);
    if (whole == 0 || (whole > 1 && *text == '0'))
        return false;
    text += whole;
    if (*text != '.')
        return *text == '\0';
    size_t part = strspn(text + 1, digits);
    return part > 0 && text[1 + part] == '\0';
}
