# SPDX-License-Identifier: Apache-2.0
# Tests. Each tests/unit/test_*.c is one libcheck program (its own main, prints one line a test at the end);
# each tests/ring/test_*.c likewise drives a real device through rings in memory.

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
RING_SRC := $(sort $(wildcard tests/ring/test_*.c))
UNIT_BIN := $(UNIT_SRC:%.c=$(B)/%)
RING_BIN := $(RING_SRC:%.c=$(B)/%)
TEST_LIB_SRC := $(sort $(wildcard tests/lib/*.c))
TEST_LIB_OBJ := $(TEST_LIB_SRC:%.c=$(B)/%.o)
TEST_CFLAGS := -Itests/lib
TEST_LIBS := -l:libcheck_pic.a -lsubunit -lnettle -lrt -lm

$(B)/tests/%: tests/%.c $(TEST_LIB_OBJ) $(B)/libminivmm.a
	@mkdir -p $(@D)
	@echo "  TEST  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(TEST_CFLAGS) -MMD -MP $(ALL_LDFLAGS) -o $@ $< $(TEST_LIB_OBJ) $(B)/libminivmm.a $(TEST_LIBS) $(LIBS)

.PHONY: unit ring unit-binaries
unit-binaries: $(UNIT_BIN) $(RING_BIN)
## make unit | ring         build and run the libcheck programs of one layer (SAN=... works here too)
unit: $(UNIT_BIN)
	@set -e; for t in $^; do $$t; done
ring: $(RING_BIN)
	@set -e; for t in $^; do $$t; done

.PHONY: print-test-binaries
print-test-binaries:
	@printf '%s\n' $(UNIT_BIN) $(RING_BIN)

# minivmm with hooks for the hostile test: tests/hostile/hooks.c says where.
HOSTILE_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/hostile/*.c)))
HOSTILE_WRAP := seccomp_enter vm_load pthread_cond_wait io_uring_enable_rings ioctl
$(B)/hostile: $(HOSTILE_OBJ) $(B)/libminivmm.a
	@echo "  TEST  $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(HOSTILE_WRAP:%=-Wl,--wrap=%) -o $@ $^ $(LIBS)

C_FILES = $(shell git ls-files '*.c' '*.h')
TIDY_SRC = $(filter arch/%.c devices/%.c vmm/%.c,$(C_FILES))

.PHONY: format format-check tidy check
## make format              rewrite all C files by .clang-format
format:
	clang-format -i $(C_FILES)
format-check:
	clang-format --dry-run -Werror $(C_FILES)

## make tidy                clang-tidy over the sources that ship
# A process a file: clang-tidy 14 carries state from one file into the next and then sees va_lists uninitialized.
tidy: $(SECCOMP_FILTERS)
	@printf '%s\n' $(TIDY_SRC) | xargs -P $$(nproc) -I FILE sh -c 'said=$$(clang-tidy --quiet FILE -- "$$@" 2>/dev/null) || \
	    { printf "%s\n" "$$said"; exit 1; }' tidy $(filter-out -Werror -fstack-clash-protection,$(ALL_CFLAGS))

## make check               all tests; ends with "N passed, N failed, N skipped"
check:
	@sh tools/setup.sh check
	@$(ALONE) tools/check.sh

## make fresh               on a minimal Debian made for it, the README's first command (root, debootstrap)
.PHONY: fresh
fresh:
	@$(ALONE) tests/e2e/fresh.sh
