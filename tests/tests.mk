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
TEST_LIBS := -l:libcheck_pic.a -lsubunit -lrt -lm

$(B)/tests/%: tests/%.c $(TEST_LIB_OBJ) $(B)/libminivmm.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(TEST_CFLAGS) -MMD -MP $(ALL_LDFLAGS) -o $@ $< $(TEST_LIB_OBJ) $(B)/libminivmm.a $(TEST_LIBS) $(LIBS)

.PHONY: unit ring unit-binaries
unit-binaries: $(UNIT_BIN) $(RING_BIN)
## make unit | ring         build and run the libcheck programs of one layer (SAN=... works here too)
unit: $(UNIT_BIN)
	@set -e; for t in $^; do $$t; done
ring: $(RING_BIN)
	@set -e; for t in $^; do $$t; done
