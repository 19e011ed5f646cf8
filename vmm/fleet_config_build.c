/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a fleet's VMs out of the sections of its files: defaults, template, the VM's own settings, copies. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"
#include "vmm/fleet_config_internal.h"
#include "vmm/keyfile.h"
#include "vmm/suggest.h"

#define FILLED_MAX   (64U << 20) /* bytes of all VMs' values together */
#define ERRORS_MAX   1000u       /* after so many, more VMs would tell nothing new */
#define SECONDS_MAX  3600u
#define ORDER_MAX    1000u
#define RESTART_MS   1000u
#define STOP_SECONDS 30u

static int set_restart(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    (void)base;
    static const char *const names[] = {"never", "on-failure", "always", NULL};
    unsigned which = 0;
    int code = config_value_choice(value, names, &which, err);
    vm->restart = (enum fleet_restart)which;
    return code;
}

/* Seconds with up to three decimals, as milliseconds. */
static int value_seconds(const char *value, unsigned least, unsigned *ms, struct err *err)
{
    char whole[16] = "", part[4] = "000";
    const char *dot = strchr(value, '.');
    size_t len = dot ? (size_t)(dot - value) : strlen(value), digits = dot ? strlen(dot + 1) : 0;
    uint64_t seconds = 0, fraction = 0;
    bool good = len < sizeof(whole) && digits <= 3 && (!dot || digits);
    if (good) {
        memcpy(whole, value, len);
        memcpy(part, dot ? dot + 1 : part, digits);
        good = config_value_number(whole, 0, SECONDS_MAX, &seconds, NULL) == 0 &&
               config_value_number(part, 0, 999, &fraction, NULL) == 0;
    }
    uint64_t sum = seconds * 1000 + fraction;
    if (!good || sum < least || sum > SECONDS_MAX * 1000ULL)
        return err_set(err, -EINVAL, "'%s' is not a number of seconds from %s to %u, such as 2 or 0.5", value,
                       least ? "0.01" : "0", SECONDS_MAX);
    *ms = (unsigned)sum;
    return 0;
}

static int set_restart_delay(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    (void)base;
    return value_seconds(value, 10, &vm->restart_delay_ms, err);
}

static int set_delay(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    (void)base;
    return value_seconds(value, 0, &vm->delay_ms, err);
}

static int set_order(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    (void)base;
    bool minus = *value == '-';
    uint64_t n = 0;
    if (config_value_number(value + minus, 0, ORDER_MAX, &n, NULL) < 0)
        return err_set(err, -EINVAL, "'%s' is not a whole number from -%u to %u", value, ORDER_MAX,
                       ORDER_MAX);
    vm->order = minus ? -(int)n : (int)n;
    return 0;
}

static int set_stop_timeout(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    (void)base;
    uint64_t n = 0;
    int code = config_value_number(value, 0, SECONDS_MAX, &n, err);
    vm->stop_timeout_s = (unsigned)n;
    return code;
}

static int set_autostart(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    (void)base;
    return config_value_bool(value, &vm->autostart, err);
}

static int set_log(struct fleet_vm *vm, const char *value, const char *base, struct err *err)
{
    return config_value_path(value, base, &vm->log, err);
}

#define SECTION_ANY_VM ((unsigned)SECTION_DEFAULTS | SECTION_TEMPLATE | SECTION_VM)

const struct fleet_key fleet_keys[] = {
    {"name", SECTION_FLEET, false, NULL},
    {"ice-total", SECTION_FLEET, false, NULL},
    {"ice-map", SECTION_FLEET, false, NULL},
    {"ice-kek", SECTION_FLEET, false, NULL},
    {"include", SECTION_FLEET, true, NULL},
    {"template", SECTION_VM, false, NULL},
    {"count", SECTION_TEMPLATE | SECTION_VM, false, NULL},
    {"restart", SECTION_ANY_VM, false, set_restart},
    {"restart-delay", SECTION_ANY_VM, false, set_restart_delay},
    {"order", SECTION_ANY_VM, false, set_order},
    {"delay", SECTION_ANY_VM, false, set_delay},
    {"stop-timeout", SECTION_ANY_VM, false, set_stop_timeout},
    {"autostart", SECTION_ANY_VM, false, set_autostart},
    {"log", SECTION_ANY_VM, false, set_log},
};
const unsigned fleet_keys_count = ARRAY_SIZE(fleet_keys);

/* One VM that is to be: a copy of its section. copy -1: there is no count. */
struct making {
    struct fleet_vm *vm;
    const struct section *section;
    int copy;
    bool broken; /* a setting was refused, so that what goes with it can't be judged */
    struct origin origin;
    struct setting *window;
};

/* Fills in %i, %n and %%. name NULL: %n has no meaning yet. */
static int fill(const char *from, char *to, const char *name, int copy, struct err *err)
{
    size_t at = 0;
    for (; *from; from++) {
        char number[16];
        const char *part = number;
        if (*from != '%')
            snprintf(number, sizeof(number), "%c", *from);
        else if (*++from == '%')
            part = "%";
        else if (*from == 'n' && name)
            part = name;
        else if (*from == 'i' && copy >= 0)
            snprintf(number, sizeof(number), "%d", copy);
        else if (*from == 'i')
            return err_set(err, -EINVAL, "%%i counts copies, but count = N is not given");
        else
            return err_set(err, -EINVAL,
                           "'%%%.1s' means nothing: %%i is the copy's number,%s %%%% a percent sign", from,
                           name ? " %n the VM's name," : "");
        size_t len = strlen(part);
        if (at + len >= FLEET_VALUE_MAX)
            return err_set(err, -EINVAL, "the value is longer than %u bytes", FLEET_VALUE_MAX - 1);
        memcpy(to + at, part, len + 1);
        at += len;
    }
    to[at] = '\0';
    return 0;
}

/* Where a setting stands, for sentences about what it names. */
static void note_origin(struct making *m, struct setting *s, unsigned disks, unsigned keys)
{
    const struct config *config = &m->vm->config;
    if (s->option)
        m->origin.last[s->option - config_options] = s;
    else
        m->origin.log = s->key->set == set_log ? s : m->origin.log;
    if (config->disks > disks)
        m->origin.disk[disks] = s;
    if (config->ice.keys > keys)
        m->origin.key[keys] = s;
    if (s->option && s->option->set == config_set_ice_slots)
        m->window = s;
}

static void apply_setting(struct loader *l, struct making *m, struct setting *s)
{
    char buf[FLEET_VALUE_MAX];
    struct err err = {{0}};
    const char *value = s->value, *base = l->folder[s->source];
    unsigned disks = m->vm->config.disks, keys = m->vm->config.ice.keys;
    int code = 0;
    if (strchr(value, '%')) {
        code = fill(value, buf, m->vm->config.name, m->copy, &err);
        value = buf;
    }
    if (code == 0 && s->option)
        code = s->option->set(&m->vm->config, value, base, &err);
    else if (code == 0)
        code = s->key->set(m->vm, value, base, &err);
    note_origin(m, s, disks, keys);
    l->no_memory |= code == -ENOMEM;
    l->bytes += code == 0 ? strlen(value) : 0;
    if (code < 0) {
        m->broken = true;
        fleet_problem(l, s->source, s->line, false, "%s: %s", s->option ? s->option->name : s->key->name,
                      err.text);
    }
}

static void apply_section(struct loader *l, struct making *m, const struct section *section)
{
    for (unsigned i = 0; section && i < section->settings; i++)
        if (section->setting[i].option || section->setting[i].key->set)
            apply_setting(l, m, &section->setting[i]);
}

/* The section's key of this name, or NULL. */
static const struct setting *find_setting(const struct section *section, const char *name)
{
    for (unsigned i = 0; section && i < section->settings; i++)
        if (!section->setting[i].option && strcmp(section->setting[i].key->name, name) == 0)
            return &section->setting[i];
    return NULL;
}

static struct section *find_defaults(struct loader *l)
{
    for (unsigned i = 0; i < l->sections; i++)
        if (l->section[i].kind == SECTION_DEFAULTS)
            return &l->section[i];
    return NULL;
}

static void unknown_template(struct loader *l, const struct setting *s)
{
    struct suggestion near = {.typed = s->value};
    for (unsigned i = 0; i < l->sections; i++)
        if (l->section[i].kind == SECTION_TEMPLATE)
            suggest_offer(&near, l->section[i].name);
    fleet_problem(l, s->source, s->line, false, "template: there is no [template %s]%s%s%s", s->value,
                  near.best ? "; did you mean '" : "", near.best ? near.best : "", near.best ? "'?" : "");
}

/* The VM's template, or NULL for none; unknown ones are told. */
static struct section *template_of(struct loader *l, const struct section *section)
{
    const struct setting *s = find_setting(section, "template");
    if (!s)
        return NULL;
    const struct known *known = *s->value == '[' ? NULL : fleet_entry(l, &l->templates, s->value, NULL);
    if (known && known->owner)
        return &l->section[known->owner - 1];
    unknown_template(l, s);
    return NULL;
}

/* How many VMs the section makes; -1: one, which is no copy. */
static int copies_of(struct loader *l, const struct section *section, const struct section *template)
{
    const struct setting *s = find_setting(section, "count");
    struct err err = {{0}};
    uint64_t n = 0;
    if (!s)
        s = find_setting(template, "count");
    if (!s)
        return -1;
    if (config_value_number(s->value, 1, FLEET_VMS_MAX, &n, &err) == 0)
        return (int)n;
    fleet_problem(l, s->source, s->line, false, "count: %s", err.text);
    return 0;
}

static void init_vm(struct fleet_vm *vm, const struct loader *l, const struct section *section)
{
    *vm = (struct fleet_vm){
        .restart = FLEET_RESTART_ON_FAILURE,
        .restart_delay_ms = RESTART_MS,
        .stop_timeout_s = STOP_SECONDS,
        .autostart = true,
        .file = l->fleet->files[section->source],
        .line = section->line,
    };
    config_init(&vm->config);
    vm->config.ice.total = l->fleet->total;
}

/* Names the VM; false, and the reason told, when it can't be. */
static bool name_vm(struct loader *l, struct making *m)
{
    char name[FLEET_VALUE_MAX];
    struct err err = {{0}};
    const struct section *section = m->section;
    bool is_new = false;
    int code = fill(section->name, name, NULL, m->copy, &err);
    size_t len = code == 0 ? strlen(name) : 0;
    if (code == 0 && m->copy >= 0 && !strstr(section->name, "%i"))
        snprintf(name + len, sizeof(name) - len, "-%d", m->copy);
    if (code == 0)
        code = config_value_name(name, &m->vm->config.name, &err);
    if (code < 0) {
        fleet_problem(l, section->source, section->line, false, "[vm %s]: %s", section->name, err.text);
        return false;
    }
    struct known *known = fleet_entry(l, &l->names, name, &is_new);
    if (known && is_new) {
        known->source = section->source;
        known->line = section->line;
        return true;
    }
    if (known)
        fleet_problem(l, section->source, section->line, false,
                      "there is a VM '%s' already, at %s:%u: name one of them otherwise", name,
                      l->fleet->files[known->source], known->line);
    return false;
}

static void warn(struct loader *l, const struct making *m, const char *option, const char *text)
{
    const struct option_def *def = config_option_find(option, strlen(option));
    const struct setting *s = m->origin.last[def - config_options];
    if (s)
        fleet_problem(l, s->source, s->line, true, "%s: %s", option, text);
}

/* What must hold between a VM's settings. */
static void judge(struct loader *l, struct making *m, struct section *section)
{
    struct config probe = m->vm->config;
    struct err err = {{0}};
    static char given[] = "/";
    if (!probe.kernel)
        fleet_problem(l, section->source, section->line, false,
                      "VM '%s' has no kernel: give kernel = FILE here, in its template or in [defaults]",
                      probe.name);
    probe.kernel = given;
    if (!m->broken && !section->judged && config_check(&probe, &err) < 0) {
        fleet_problem(l, section->source, section->line, false, "VM '%s': %s", probe.name, err.text);
        section->judged = true;
    }
    if (!probe.sandbox)
        warn(l, m, "no-sandbox", "the VM runs outside the cell: for debugging alone");
    if (probe.console != CONSOLE_STDIO && m->vm->log)
        warn(l, m, "console", "the console does not come to the supervisor, so that log= stays empty");
}

/* Judges the values of a section of which no VM is made. */
static void try_section(struct loader *l, const struct section *section)
{
    struct fleet_vm vm;
    struct making m = {.vm = &vm, .section = section, .copy = 0};
    init_vm(&vm, l, section);
    apply_section(l, &m, section);
    config_free(&vm.config);
    free(vm.log);
}

/* Makes the next VM of the fleet; false when its name is no good. */
static bool make_vm(struct loader *l, struct section *section, const struct section *defaults,
                    const struct section *template, int copy)
{
    struct fleet *fleet = l->fleet;
    struct making m = {.vm = &fleet->vm[fleet->vms], .section = section, .copy = copy};
    init_vm(m.vm, l, section);
    m.origin.section = section;
    if (!name_vm(l, &m)) {
        config_free(&m.vm->config);
        try_section(l, section);
        return false;
    }
    if (fleet->map && config_value_string(fleet->map, &m.vm->config.ice.map, NULL) < 0)
        l->no_memory = true;
    apply_section(l, &m, defaults);
    apply_section(l, &m, template);
    apply_section(l, &m, section);
    struct config_engine *ice = &m.vm->config.ice;
    m.vm->slots_fixed = ice->slots && ice->offset >= 0;
    if (m.vm->slots_fixed && copy > 0)
        ice->offset += copy * (int)ice->slots;
    l->window[fleet->vms] = m.window;
    judge(l, &m, section);
    fleet_check_files(l, fleet->vms++, &m.origin);
    return true;
}

/* The values of [fleet], which stands in the first file. */
static void set_fleet(struct loader *l)
{
    struct fleet *fleet = l->fleet;
    for (unsigned i = 0; i < l->sections; i++) {
        const struct section *section = &l->section[i];
        for (unsigned j = 0; section->kind == SECTION_FLEET && j < section->settings; j++) {
            const struct setting *s = &section->setting[j];
            const char *base = l->folder[s->source];
            struct err err = {{0}};
            uint64_t total = fleet->total;
            int code = 0;
            if (strcmp(s->key->name, "name") == 0)
                code = config_value_name(s->value, &fleet->name, &err);
            else if (strcmp(s->key->name, "ice-total") == 0)
                code = config_value_number(s->value, 1, SLOTMAP_SLOTS_MAX, &total, &err);
            else if (strcmp(s->key->name, "ice-map") == 0)
                code = config_value_path(s->value, base, &fleet->map, &err);
            else if (strcmp(s->key->name, "ice-kek") == 0)
                code = config_value_path(s->value, base, &fleet->kek, &err);
            fleet->total = (unsigned)total;
            if (code < 0)
                fleet_problem(l, s->source, s->line, false, "%s: %s", s->key->name, err.text);
            else if (strcmp(s->key->name, "ice-kek") == 0)
                fleet_check_secret(l, s, fleet->kek);
        }
    }
}

static void name_fleet(struct loader *l)
{
    static const char suffix[] = ".conf";
    char file[CONFIG_NAME_MAX + sizeof(suffix)];
    const char *path = l->fleet->path, *slash = strrchr(path, '/');
    struct err err = {{0}};
    snprintf(file, sizeof(file), "%s", slash ? slash + 1 : path);
    size_t len = strlen(file);
    if (len >= sizeof(suffix) && strcmp(file + len - sizeof(suffix) + 1, suffix) == 0)
        file[len - sizeof(suffix) + 1] = '\0';
    if (!l->fleet->name && config_value_name(file, &l->fleet->name, &err) < 0)
        fleet_problem(l, 0, 0, false, "the fleet is named after its file, but %s; or give name = in [fleet]",
                      err.text);
}

/* How many VMs there will be, each section's number in copies; 0 when they are too many. */
static unsigned count_vms(struct loader *l, int *copies, struct section **template)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < l->sections; i++) {
        struct section *section = &l->section[i];
        if (section->kind != SECTION_VM)
            continue;
        template[i] = template_of(l, section);
        copies[i] = copies_of(l, section, template[i]);
        sum += copies[i] < 0 ? 1 : (unsigned)copies[i];
        if (sum > FLEET_VMS_MAX) {
            fleet_problem(l, section->source, section->line, false,
                          "with this one, the fleet has more than %u VMs: make it two fleets", FLEET_VMS_MAX);
            return 0;
        }
    }
    if (sum == 0 && !l->problems->errors)
        fleet_problem(l, 0, 0, false, "the fleet has no VM: add a section [vm NAME]");
    return (unsigned)sum;
}

static void make_vms(struct loader *l, const int *copies, struct section *const *template)
{
    const struct section *defaults = find_defaults(l);
    for (unsigned i = 0; i < l->sections; i++)
        if (l->section[i].kind == SECTION_DEFAULTS || l->section[i].kind == SECTION_TEMPLATE)
            try_section(l, &l->section[i]);
    for (unsigned i = 0; i < l->sections; i++) {
        struct section *section = &l->section[i];
        bool good = section->kind == SECTION_VM && *section->name;
        for (int copy = copies[i] < 0 ? -1 : 0; good && copy < copies[i] + (copies[i] < 0); copy++) {
            if (l->no_memory || l->problems->errors > ERRORS_MAX)
                return;
            if (l->bytes > FILLED_MAX) {
                fleet_problem(l, section->source, section->line, false,
                              "the settings of the VMs up to here are more than %u MiB together",
                              FILLED_MAX >> 20);
                return;
            }
            good = make_vm(l, section, defaults, template[i], copy);
        }
    }
}

void fleet_build(struct loader *l)
{
    int *copies = calloc(l->sections + 1, sizeof(*copies));
    struct section **template = calloc(l->sections + 1, sizeof(struct section *));
    set_fleet(l);
    name_fleet(l);
    unsigned count = copies && template ? count_vms(l, copies, template) : 0;
    l->fleet->vm = calloc(count + 1, sizeof(*l->fleet->vm));
    l->window = calloc(count + 1, sizeof(struct setting *));
    l->no_memory |= !copies || !template || !l->fleet->vm || !l->window;
    if (!l->no_memory && count) {
        make_vms(l, copies, template);
        fleet_plan_slots(l);
    }
    free(copies);
    free(template);
}
