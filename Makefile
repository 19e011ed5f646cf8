# SPDX-License-Identifier: Apache-2.0
# minivmm. `make help` lists what can be made. Every variant (compiler, sanitizer, debug) builds in a folder of its
# own under build/, so that `make check` can use several side by side.

VERSION := 0.1.0
# All cores, unless the caller says otherwise.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
# For scripts that call make themselves: they are no part of this make's jobs.
ALONE := unset MAKEFLAGS MFLAGS MAKELEVEL;
SHELL   := /bin/bash

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
SAN     ?=
# make V=1 shows whole commands
Q       := $(if $(V),,@)
PREFIX  ?= /usr/local
DESTDIR ?=
comma   := ,
VARIANT := $(notdir $(CC))$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(V_SUFFIX),-$(V_SUFFIX))
B       := build/$(VARIANT)

WARN := -Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes \
        -Wold-style-definition -Wundef -Wvla -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough \
        -Wnull-dereference -Wcast-qual
DEFS := -D_GNU_SOURCE -DMINIVMM_VERSION='"$(VERSION)"'
ifeq ($(SAN),)
HARDEN_C  := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE \
             -fno-asynchronous-unwind-tables -fno-unwind-tables
HARDEN_LD := -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code -Wl,--as-needed -Wl,--gc-sections
else
HARDEN_C  := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all -DMINIVMM_SANITIZED=1 -fPIE
HARDEN_LD := -pie -fsanitize=$(SAN)
endif
CFLAGS   ?= -g
ALL_CFLAGS  := -std=gnu17 $(WARN) $(DEFS) $(HARDEN_C) -ffunction-sections -fdata-sections -Iinclude -I. -I$(B)/gen $(CFLAGS)
ALL_LDFLAGS := $(HARDEN_LD) $(LDFLAGS)
# Linked statically: a shared object costs every VM process start-up time and memory that the budget does not have.
LIBS := -l:liburing.a -l:libinih.a -lpthread

LIB_SRC := $(sort $(wildcard arch/x86_64/*.c devices/*.c devices/virtio/*.c devices/disk/*.c devices/ice/*.c) \
                  $(filter-out vmm/main.c vmm/main_fleet.c,$(wildcard vmm/*.c)))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
MAIN_OBJ := $(B)/vmm/main.o $(B)/vmm/main_fleet.o

.PHONY: all help check boot bench tidy format install clean distclean
all: minivmm

help:
	@sed -n 's/^## //p' $(filter %Makefile %.mk,$(MAKEFILE_LIST))

## make                     the release build: ./minivmm
minivmm: $(B)/minivmm $(B)/minivmm-fleet
	@strip -o minivmm-fleet $(B)/minivmm-fleet
	@strip -o $@ $<

# Two programs, so that a VM's process carries nothing of fleets; they find each other in one folder.
$(B)/minivmm: $(B)/vmm/main.o $(B)/libminivmm.a
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(B)/minivmm-fleet: $(B)/vmm/main_fleet.o $(B)/libminivmm.a
	@echo "  LINK  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(B)/libminivmm.a: $(LIB_OBJ)
	@echo "  AR    $@"
	@rm -f $@
	$(Q)ar rcsD $@ $^

# What runs once a start or once a command is built small; only the devices and the vCPU's loop are worth -O2.
ifeq ($(SAN),)
$(filter-out $(B)/vmm/vcpu_run.o $(B)/vmm/bus.o,$(filter $(B)/vmm/%.o $(B)/arch/%.o,$(LIB_OBJ) $(MAIN_OBJ))): OPT := -Os
endif

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(OPT) -MMD -MP -c -o $@ $<

# The system-call filters: libseccomp is in the tool that makes them, not in minivmm.
$(B)/gen/seccomp_gen: tools/seccomp_gen.c vmm/seccomp_policy.h vmm/seccomp.h
	@mkdir -p $(@D)
	@echo "  HOST  $@"
	$(Q)$(CC) -std=gnu17 $(WARN) $(DEFS) -O1 -Iinclude -I. -o $@ $< -lseccomp

SECCOMP_FILTERS := $(B)/gen/seccomp_filters.h
$(SECCOMP_FILTERS): $(B)/gen/seccomp_gen
	@echo "  GEN   $@"
	$(Q)$< >$@.new && mv $@.new $@

$(B)/vmm/seccomp.o: $(SECCOMP_FILTERS)

## make filters-doc         the tables of docs/security.md, as vmm/seccomp_policy.h has them
.PHONY: filters-doc
filters-doc: $(B)/gen/seccomp_gen
	@$< --doc

-include $(shell find $(B) -name '*.d' 2>/dev/null)

include tests/tests.mk
include tools/tools.mk
-include tools/bench.mk

clean:
	rm -rf build minivmm minivmm-fleet compile_commands.json

## make distclean           clean, and the cache of downloaded packages
distclean: clean
	rm -rf .cache

DOC := $(PREFIX)/share/doc/minivmm
UNITS := $(PREFIX)/lib/systemd/system

## make install             DESTDIR= PREFIX=/usr/local: binary, man page, documentation, systemd units
install: minivmm
	install -D -m 755 minivmm $(DESTDIR)$(PREFIX)/bin/minivmm
	install -D -m 755 minivmm-fleet $(DESTDIR)$(PREFIX)/bin/minivmm-fleet
	install -D -m 644 docs/minivmm.1 $(DESTDIR)$(PREFIX)/share/man/man1/minivmm.1
	install -D -m 644 -t $(DESTDIR)$(DOC) README.md docs/fleet.md docs/security.md
	install -D -m 644 -t $(DESTDIR)$(DOC)/examples docs/examples/fleet.conf
	install -d $(DESTDIR)$(UNITS)
	@for unit in minivmm.service minivmm-fleet@.service; do \
	    sed 's,@BINDIR@,$(PREFIX)/bin,; s,@DOCDIR@,$(DOC),' "tools/systemd/$$unit" > "$(DESTDIR)$(UNITS)/$$unit" && \
	    chmod 644 "$(DESTDIR)$(UNITS)/$$unit" || exit; done

## make compile_commands.json   for clangd and clang-tidy by hand
compile_commands.json: Makefile
	@{ sep='['; for f in $(LIB_SRC) vmm/main.c; do \
	    printf '%s\n{"directory":"%s","file":"%s","command":"%s"}' "$$sep" "$(CURDIR)" "$$f" \
	        "$(subst ",\\\",$(CC) $(ALL_CFLAGS) -c) $$f"; sep=','; done; printf '\n]\n'; } > $@
