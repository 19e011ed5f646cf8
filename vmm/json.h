/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON (RFC 8259): commas and quotes, so that the writers of reports think of neither. */
#ifndef MINIVMM_VMM_JSON_H
#define MINIVMM_VMM_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 8u

/* Zero-initialise, with out. Values in an object have a key; in an array and at the top, key is NULL. */
struct json {
    FILE *out;
    unsigned depth;
    bool filled[JSON_DEPTH_MAX + 1]; /* the level has a value already */
};

/* bracket: '{' or '['; each is closed by json_close() with '}' or ']'. Nested at most JSON_DEPTH_MAX deep. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);

/* text NULL: null. Bytes that are no UTF-8 become U+FFFD. */
void json_string(struct json *json, const char *key, const char *text);
void json_integer(struct json *json, const char *key, int64_t value);
/* text: already in JSON's syntax, such as a decimal fraction or true. */
void json_raw(struct json *json, const char *key, const char *text);

/* Bytes of the UTF-8 sequence at text (RFC 3629: shortest form, no surrogates, up to U+10FFFF); 0: none. */
unsigned utf8_length(const char *text);

/* True when text is a number in JSON's syntax without an exponent. */
bool json_is_number(const char *text);

#endif
