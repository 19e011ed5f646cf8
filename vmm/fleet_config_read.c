/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a fleet's files into sections. What is wrong with a line is noted, and the reading goes on. */
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/config_lines.h"
#include "vmm/fleet_config_internal.h"
#include "vmm/suggest.h"

#define FILES_MAX 4096u
#define BYTES_MAX (16U << 20)
#define DEPTH_MAX 8u

struct reader {
    struct loader *l;
    struct lines lines;
    unsigned source;
    bool in_section, passing; /* passing: the section is unknown */
    struct setting *setting;  /* the last one, to be continued; NULL: it was refused */
};

static void complain(struct reader *r, const char *text)
{
    fleet_problem(r->l, r->source, r->lines.line, false, "%s", text);
}

/* Room for one more of an array that doubles, at each power of two. */
static void *grow(struct loader *l, void *array, unsigned count, size_t size)
{
    if (count & (count - 1))
        return array;
    void *more = realloc(array, (count ? count * 2 : 1) * size);
    if (!more)
        l->no_memory = true;
    return more;
}

static void unknown_section(struct reader *r, const char *title)
{
    static const char *const words[] = {"fleet", "defaults", "template", "vm"};
    char word[64];
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(title, " \t"), title);
    struct suggestion near = {.typed = word};
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        suggest_offer(&near, words[i]);
    r->passing = true;
    if (strcmp(word, "disk") == 0)
        complain(r, "a fleet has no [disk] sections: write disk = PATH,KEY=VALUE... in the VM's");
    else
        fleet_problem(
            r->l, r->source, r->lines.line, false,
            "unknown section [%s]: expected [fleet], [defaults], [template NAME] or [vm NAME]%s%s%s", title,
            near.best ? "; did you mean '" : "", near.best ? near.best : "", near.best ? "'?" : "");
}

/* A second section of a kind or name of which there is one; tree entries tell where the first stands. */
static void check_double(struct reader *r, const struct section *section)
{
    char title[80];
    bool is_new = false;
    if (section->kind == SECTION_VM)
        return; /* names are known once %i is filled in */
    if (section->kind == SECTION_FLEET)
        snprintf(title, sizeof(title), "[fleet] %u", r->source);
    else if (section->kind == SECTION_DEFAULTS)
        snprintf(title, sizeof(title), "[defaults]");
    else
        snprintf(title, sizeof(title), "%s", section->name);
    struct known *entry = fleet_entry(r->l, &r->l->templates, title, &is_new);
    if (!entry)
        return;
    if (!is_new) {
        fleet_problem(r->l, r->source, section->line, false,
                      "there is a [%s%s] already, at %s:%u: put both into one, or name one otherwise",
                      section->kind == SECTION_TEMPLATE   ? "template "
                      : section->kind == SECTION_DEFAULTS ? "defaults"
                                                          : "fleet",
                      section->kind == SECTION_TEMPLATE ? section->name : "",
                      r->l->fleet->files[entry->source], entry->line);
        return;
    }
    entry->source = r->source;
    entry->line = section->line;
    entry->owner = r->l->sections; /* its number from 1 */
}

static enum section_kind title_kind(const char *title, const char **name)
{
    *name = title + strcspn(title, " \t");
    size_t len = (size_t)(*name - title);
    *name += strspn(*name, " \t");
    if (len == 2 && strncmp(title, "vm", len) == 0)
        return SECTION_VM;
    if (len == 8 && strncmp(title, "template", len) == 0)
        return SECTION_TEMPLATE;
    if (len == 8 && strncmp(title, "defaults", len) == 0 && !**name)
        return SECTION_DEFAULTS;
    return len == 5 && strncmp(title, "fleet", len) == 0 && !**name ? SECTION_FLEET : SECTION_NONE;
}

/* title: what stands between the brackets. */
static void begin_section(struct reader *r, const char *title)
{
    const char *name;
    enum section_kind kind = title_kind(title, &name);
    r->in_section = true;
    r->passing = false;
    r->setting = NULL;
    if (kind == SECTION_NONE) {
        unknown_section(r, title);
        return;
    }
    struct err err = {{0}};
    char *checked = NULL;
    if (kind >= SECTION_TEMPLATE && !*name)
        fleet_problem(r->l, r->source, r->lines.line, false, "a name is missing: [%s NAME]", title);
    else if (kind == SECTION_TEMPLATE && config_value_name(name, &checked, &err) < 0)
        complain(r, err.text);
    free(checked);
    struct section *more = grow(r->l, r->l->section, r->l->sections, sizeof(*more));
    char *copy = strdup(name);
    if (!more || !copy) {
        if (more)
            r->l->section = more;
        free(copy);
        r->l->no_memory = true;
        r->passing = true;
        return;
    }
    r->l->section = more;
    struct section *section = &more[r->l->sections++];
    *section = (struct section){.kind = kind, .name = copy, .source = r->source, .line = r->lines.line};
    check_double(r, section);
    r->passing = kind >= SECTION_TEMPLATE && !*name;
}

static const char *places(unsigned where)
{
    if (where == SECTION_FLEET)
        return "[fleet]";
    if (where == SECTION_VM)
        return "[vm NAME]";
    return where & SECTION_DEFAULTS ? "[defaults], [template NAME] or [vm NAME]"
                                    : "[template NAME] or [vm NAME]";
}

static void unknown_key(struct reader *r, unsigned kind, const char *name)
{
    struct suggestion near = {.typed = name};
    for (unsigned i = 0; i < fleet_keys_count; i++)
        if (fleet_keys[i].where & kind)
            suggest_offer(&near, fleet_keys[i].name);
    for (unsigned i = 0; kind != SECTION_FLEET && i < config_options_count; i++)
        if (!(config_options[i].flags & OPTION_CLI))
            suggest_offer(&near, config_options[i].name);
    fleet_problem(r->l, r->source, r->lines.line, false, "unknown key '%s'%s%s%s", name,
                  near.best ? "; did you mean '"
                            : ": expected a setting of the fleet, or a flag of minivmm --help",
                  near.best ? near.best : "", near.best ? "'?" : "");
}

/* Which key it is: fills the setting; false, and the reason told, when it has no place here. */
static bool find_key(struct reader *r, unsigned kind, const char *name, struct setting *s)
{
    for (unsigned i = 0; i < fleet_keys_count && !s->key; i++)
        if (strcmp(fleet_keys[i].name, name) == 0)
            s->key = &fleet_keys[i];
    s->option = config_option_find(name, strlen(name));
    if (s->key && (s->key->where & kind)) {
        s->option = NULL;
        if (kind != SECTION_FLEET || r->source == 0 || s->key->repeat)
            return true;
        fleet_problem(r->l, r->source, r->lines.line, false,
                      "%s belongs into the fleet's own file, %s: an included one has include alone", name,
                      r->l->fleet->files[0]);
    } else if (s->key) {
        fleet_problem(r->l, r->source, r->lines.line, false, "%s belongs into %s", name,
                      places(s->key->where));
    } else if (s->option && (s->option->flags & OPTION_CLI)) {
        fleet_problem(r->l, r->source, r->lines.line, false,
                      "%s is for the command line of a single VM: a fleet's file has no such setting", name);
    } else if (s->option && kind == SECTION_FLEET) {
        fleet_problem(r->l, r->source, r->lines.line, false,
                      "%s is a setting of VMs: it belongs into [defaults], [template NAME] or [vm NAME]",
                      name);
    } else if (s->option) {
        return true;
    } else {
        unknown_key(r, kind, name);
    }
    return false;
}

static bool is_double(struct reader *r, struct section *section, const struct setting *s)
{
    bool repeat = s->option ? s->option->flags & OPTION_REPEAT : s->key->repeat;
    uint64_t *seen = s->option ? &section->seen_options : &section->seen_keys;
    uint64_t bit = 1ULL << (s->option ? s->option - config_options : s->key - fleet_keys);
    bool twice = (*seen & bit) && !repeat;
    *seen |= bit;
    if (twice)
        fleet_problem(r->l, r->source, r->lines.line, false,
                      "%s is given twice in this section: give it once",
                      s->option ? s->option->name : s->key->name);
    return twice;
}

static void add_setting(struct reader *r, const char *name, const char *value)
{
    struct section *section = &r->l->section[r->l->sections - 1];
    struct setting s = {.line = r->lines.line, .source = r->source};
    r->setting = NULL;
    if (!find_key(r, section->kind, name, &s) || is_double(r, section, &s))
        return;
    struct setting *more = grow(r->l, section->setting, section->settings, sizeof(s));
    if (!more)
        return;
    section->setting = more;
    s.value = strdup(value);
    if (!s.value) {
        r->l->no_memory = true;
        return;
    }
    r->setting = &more[section->settings++];
    *r->setting = s;
}

/* One more line of a value that began above. */
static void continue_setting(struct reader *r, const char *value)
{
    struct setting *s = r->setting;
    char *joined = NULL;
    if (!s)
        return;
    if (!s->option || !(s->option->flags & OPTION_JOINS))
        fleet_problem(r->l, r->source, r->lines.line, false,
                      "an indented line goes on with the value above, which only cmdline can: begin '%s' at "
                      "the margin",
                      value);
    else if (strlen(s->value) + strlen(value) + 2 > FLEET_VALUE_MAX)
        fleet_problem(r->l, r->source, r->lines.line, false, "the value is longer than %u bytes",
                      FLEET_VALUE_MAX - 1);
    else if (asprintf(&joined, "%s%s%s", s->value, *s->value ? " " : "", value) < 0)
        r->l->no_memory = true;
    else {
        free(s->value);
        s->value = joined;
    }
}

/* libinih calls it for each key; nonzero to go on. */
static int on_key(void *arg, const char *section, const char *name, const char *value)
{
    (void)section; /* begin_section() saw it, with its line, also where it is empty */
    struct reader *r = arg;
    if (r->lines.indented && r->lines.has_key)
        continue_setting(r, value);
    else if (!r->in_section)
        complain(r, "a setting before the first section: begin with [fleet], [defaults] or [vm NAME]");
    else if (!r->passing)
        add_setting(r, name, value);
    r->lines.has_key = true;
    return 1;
}

/* Whether libinih will take the line; sections begin here, since it is silent on those without keys. */
static bool take_line(struct reader *r, char *line)
{
    char *start = line + (r->lines.line == 1 && strncmp(line, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0);
    start += strspn(start, " \t\r\n");
    bool more = r->lines.indented && r->lines.has_key;
    if (!*start || strchr("#;", *start) || (more && *start))
        return true;
    if (*start != '[') {
        if (strpbrk(start, "=:") && !strchr("=:", *start))
            return true;
        complain(r, "expected key = value, [section] or a comment");
        return false;
    }
    char *end = strchr(start, ']');
    if (!end || end[1 + strspn(end + 1, " \t\r\n")]) {
        complain(r, end ? "expected nothing behind a section's ']'" : "the section's ']' is missing");
        r->passing = r->in_section = true;
        return false;
    }
    *end = '\0';
    begin_section(r, start + 1);
    *end = ']';
    return true;
}

/* libinih's fgets(): a line that it can't take is told and becomes an empty one. */
static char *read_line(char *to, int size, void *arg)
{
    struct reader *r = arg;
    struct err err = {{0}};
    int code = r->l->no_memory ? 0 : lines_next(&r->lines, to, (size_t)size, &err);
    if (code < 0)
        complain(r, err.text);
    if (code != 0 && (code < 0 || !take_line(r, to)))
        memcpy(to, "\n", 2);
    return code != 0 ? to : NULL;
}

/* The folder of a path that is shown, as it is shown; NULL: the current one. The caller's to free. */
static char *shown_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : NULL;
}

/* A new file of the fleet; its number, or -1 without memory. path is taken over. */
static int add_source(struct loader *l, char *path)
{
    struct fleet *fleet = l->fleet;
    unsigned n = fleet->file_count;
    char **files = path ? grow(l, fleet->files, n, sizeof(*files)) : NULL;
    if (files)
        fleet->files = files;
    char **folders = files ? grow(l, l->folder, n, sizeof(*folders)) : NULL;
    char *shown = path ? shown_folder(path) : NULL, *folder = NULL;
    if (folders) {
        l->folder = folders;
        char *before = n ? shown_folder(files[n - 1]) : NULL;
        /* Most files of a large fleet are neighbours, and finding out costs system calls. */
        folder = before && shown && strcmp(before, shown) == 0 ? strdup(folders[n - 1])
                                                               : realpath(shown ? shown : ".", NULL);
        if (!folder)
            folder = strdup(shown ? shown : ".");
        free(before);
    }
    free(shown);
    if (!folder) {
        free(path);
        l->no_memory = true;
        return -1;
    }
    l->folder[n] = folder;
    fleet->files[n] = path;
    fleet->file_count++;
    return (int)n;
}

/* Notes that a file or directory is read; false when it was before, which is told at source:line. */
static bool is_first(struct loader *l, const struct stat *st, const char *path, unsigned source,
                     unsigned line)
{
    char key[64];
    bool is_new = false;
    snprintf(key, sizeof(key), "%llu:%llu", (unsigned long long)st->st_dev, (unsigned long long)st->st_ino);
    struct known *entry = fleet_entry(l, &l->files, key, &is_new);
    if (!entry)
        return false;
    if (is_new) {
        entry->source = source;
        entry->line = line;
        return true;
    }
    if (!entry->line)
        fleet_problem(l, source, line, false, "%s was read already, with %s: includes must not go in circles",
                      path, l->fleet->files[entry->source]);
    else
        fleet_problem(l, source, line, false,
                      "%s was read already, for the include at %s:%u: includes must not go in circles", path,
                      l->fleet->files[entry->source], entry->line);
    return false;
}

static void include(struct loader *l, char *path, unsigned source, unsigned line, unsigned depth);

static void follow_includes(struct loader *l, unsigned source, unsigned depth, unsigned from)
{
    unsigned end = l->sections;
    char *base = shown_folder(l->fleet->files[source]);
    for (unsigned i = from; i < end; i++) {
        for (unsigned j = 0; l->section[i].kind == SECTION_FLEET && j < l->section[i].settings; j++) {
            const struct setting s = l->section[i].setting[j];
            struct err err = {{0}};
            char *path = NULL;
            if (!s.key->repeat)
                continue;
            if (config_value_path(s.value, base, &path, &err) < 0)
                fleet_problem(l, source, s.line, false, "include: %s", err.text);
            else
                include(l, path, source, s.line, depth + 1);
        }
    }
    free(base);
}

/* Reads one file and what it includes. path is taken over. by, line: what included it; line 0: nothing. */
static void read_file(struct loader *l, char *path, unsigned by, unsigned line, unsigned depth)
{
    struct err err = {{0}};
    struct stat st;
    int source = add_source(l, path);
    if (source < 0)
        return;
    struct reader r = {.l = l, .source = (unsigned)source};
    unsigned from = l->sections;
    if (lines_load(&r.lines, path, &st, &err) < 0) {
        fleet_problem(l, r.source, 0, false, "%s", err.text + strlen(path) + 1);
        return;
    }
    l->bytes += r.lines.len;
    if (is_first(l, &st, path, line ? by : r.source, line)) {
        if (ini_parse_stream(read_line, &r, on_key, &r) == -2)
            l->no_memory = true;
        follow_includes(l, r.source, depth, from);
    }
    free(r.lines.text);
}

static int is_conf(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

static void read_folder(struct loader *l, const char *path, unsigned source, unsigned line, unsigned depth)
{
    struct dirent **list = NULL;
    int n = scandir(path, &list, is_conf, alphasort);
    if (n < 0)
        fleet_problem(l, source, line, false, "include: %s cannot be read: %s", path, strerror(errno));
    else if (n == 0)
        fleet_problem(l, source, line, true, "include: %s holds no *.conf file", path);
    for (int i = 0; i < n; i++) {
        char *file = NULL;
        if (l->full || l->no_memory) {
            free(list[i]);
            continue;
        }
        if (asprintf(&file, "%s/%s", path, list[i]->d_name) < 0)
            l->no_memory = true;
        else
            include(l, file, source, line, depth);
        free(list[i]);
    }
    free(list);
}

/* path is taken over. */
static void include(struct loader *l, char *path, unsigned source, unsigned line, unsigned depth)
{
    struct stat st;
    bool folder = false;
    if (l->full || l->no_memory) {
        free(path);
        return;
    }
    if (stat(path, &st) < 0)
        fleet_problem(l, source, line, false, "include: %s: %s", path, strerror(errno));
    else if (depth > DEPTH_MAX)
        fleet_problem(l, source, line, false, "include: %s: files include one another %u levels deep at most",
                      path, DEPTH_MAX);
    else if (l->fleet->file_count == FILES_MAX || l->bytes > BYTES_MAX) {
        fleet_problem(l, source, line, false, "include: a fleet has at most %u files, %u MiB together",
                      FILES_MAX, BYTES_MAX >> 20);
        l->full = true;
    } else if (!S_ISDIR(st.st_mode)) {
        read_file(l, path, source, line, depth);
        return;
    } else {
        folder = is_first(l, &st, path, source, line);
    }
    if (folder)
        read_folder(l, path, source, line, depth);
    free(path);
}

void fleet_read(struct loader *l, const char *path)
{
    char *beside = NULL;
    struct stat st;
    lines_set_up_libinih();
    l->fleet->path = realpath(path, NULL);
    if (!l->fleet->path)
        l->fleet->path = strdup(path);
    read_file(l, strdup(path), 0, 0, 0);
    if (!l->fleet->path || asprintf(&beside, "%s.d", path) < 0) {
        l->no_memory = true;
        return;
    }
    if (!l->no_memory && stat(beside, &st) == 0 && S_ISDIR(st.st_mode) && is_first(l, &st, beside, 0, 0))
        read_folder(l, beside, 0, 0, 1);
    free(beside);
}
