/* SPDX-License-Identifier: Apache-2.0 */
/* A fleet's configuration as a whole: loading, problems, release. */
#include "vmm/fleet_config.h"

#include <errno.h>
#include <search.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/fleet_config_internal.h"

#define PROBLEMS_SHOWN 200u

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct known *)a)->key, ((const struct known *)b)->key);
}

static void free_entry(void *node)
{
    struct known *entry = node;
    free(entry->key);
    free(entry->text);
    free(entry->file_key);
    free(entry);
}

struct known *fleet_entry(struct loader *l, void **tree, const char *key, bool *is_new)
{
    struct known wanted = {.key = strdup(key)};
    struct known **found = wanted.key ? tsearch(&wanted, tree, compare_entries) : NULL;
    if (is_new)
        *is_new = found && *found == &wanted;
    if (found && *found == &wanted) {
        struct known *made = malloc(sizeof(*made));
        if (made) {
            *made = wanted;
            *found = made;
            return made;
        }
        tdelete(&wanted, tree, compare_entries);
        found = NULL;
    }
    free(wanted.key);
    l->no_memory |= !found;
    return found ? *found : NULL;
}

/* Whether the same was said of the same line before. */
static bool is_told(struct loader *l, unsigned source, unsigned line, const char *text)
{
    char *key = NULL;
    bool is_new = true;
    if (asprintf(&key, "%u:%u:%s", source, line, text) < 0) {
        l->no_memory = true;
        return false;
    }
    (void)fleet_entry(l, &l->told, key, &is_new);
    free(key);
    return !is_new;
}

static void store_problem(struct loader *l, unsigned source, const struct fleet_problem *problem)
{
    struct fleet_problems *all = l->problems;
    if (!problem->warning)
        all->errors++;
    if (all->count == PROBLEMS_SHOWN)
        return;
    if (!all->list)
        all->list = calloc(PROBLEMS_SHOWN, sizeof(*all->list));
    if (!l->order)
        l->order = calloc(PROBLEMS_SHOWN, sizeof(*l->order));
    struct fleet_problem own = *problem;
    own.file = strdup(problem->file);
    own.text = strdup(problem->text);
    if (!all->list || !l->order || !own.file || !own.text) {
        free(own.file);
        free(own.text);
        l->no_memory = true;
        return;
    }
    /* In its place: they come nearly in order. */
    unsigned at = all->count++;
    for (; at &&
           (l->order[at - 1] > source || (l->order[at - 1] == source && all->list[at - 1].line > own.line));
         at--) {
        all->list[at] = all->list[at - 1];
        l->order[at] = l->order[at - 1];
    }
    all->list[at] = own;
    l->order[at] = source;
}

void fleet_problem(struct loader *l, unsigned source, unsigned line, bool warning, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) {
        text = NULL;
        l->no_memory = true;
    }
    va_end(ap);
    if (text && !is_told(l, source, line, text)) {
        const struct fleet_problem problem = {
            .file = l->fleet->files[source], .line = line, .text = text, .warning = warning};
        store_problem(l, source, &problem);
    }
    free(text);
}

static void free_loader(struct loader *l)
{
    for (unsigned i = 0; i < l->sections; i++) {
        for (unsigned j = 0; j < l->section[i].settings; j++)
            free(l->section[i].setting[j].value);
        free(l->section[i].setting);
        free(l->section[i].name);
    }
    for (unsigned i = 0; l->folder && i < l->fleet->file_count; i++)
        free(l->folder[i]);
    free(l->section);
    free(l->folder);
    free(l->order);
    free(l->window);
    tdestroy(l->names, free_entry);
    tdestroy(l->templates, free_entry);
    tdestroy(l->files, free_entry);
    tdestroy(l->paths, free_entry);
    tdestroy(l->images, free_entry);
    tdestroy(l->logs, free_entry);
    tdestroy(l->told, free_entry);
}

int fleet_load(const char *path, struct fleet *fleet, struct fleet_problems *problems)
{
    struct loader l = {.fleet = fleet, .problems = problems};
    *fleet = (struct fleet){.total = SLOTMAP_TOTAL_DEFAULT};
    *problems = (struct fleet_problems){0};
    fleet_read(&l, path);
    if (!l.no_memory)
        fleet_build(&l);
    free_loader(&l);
    if (l.no_memory)
        return -ENOMEM;
    return problems->errors ? -EINVAL : 0;
}

void fleet_free(struct fleet *fleet)
{
    for (unsigned i = 0; i < fleet->vms; i++) {
        config_free(&fleet->vm[i].config);
        free(fleet->vm[i].log);
    }
    for (unsigned i = 0; i < fleet->file_count; i++)
        free(fleet->files[i]);
    free(fleet->vm);
    free(fleet->files);
    free(fleet->name);
    free(fleet->path);
    free(fleet->map);
    free(fleet->kek);
    *fleet = (struct fleet){0};
}

void fleet_problems_free(struct fleet_problems *problems)
{
    for (unsigned i = 0; i < problems->count; i++) {
        free(problems->list[i].file);
        free(problems->list[i].text);
    }
    free(problems->list);
    *problems = (struct fleet_problems){0};
}

void fleet_problems_print(const struct fleet_problems *problems, FILE *out)
{
    unsigned more = problems->errors;
    for (unsigned i = 0; i < problems->count; i++) {
        const struct fleet_problem *p = &problems->list[i];
        more -= !p->warning;
        fputs(p->file, out);
        if (p->line)
            fprintf(out, ":%u", p->line);
        fprintf(out, ": %s: %s\n", p->warning ? "warning" : "error", p->text);
    }
    if (more)
        fprintf(out, "and %u more error%s\n", more, more == 1 ? "" : "s");
}

struct fleet_vm *fleet_find(const struct fleet *fleet, const char *name)
{
    for (unsigned i = 0; i < fleet->vms; i++)
        if (strcmp(fleet->vm[i].config.name, name) == 0)
            return &fleet->vm[i];
    return NULL;
}
