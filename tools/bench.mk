# SPDX-License-Identifier: Apache-2.0
# The benchmark against the budgets of docs/bench.md. Not part of make check: what it measures depends on the
# machine and its load.

build/bench/%: tools/bench/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)gcc -std=gnu17 $(WARN) $(DEFS) -O2 -o $@ $<

build/bench/icebench: tools/bench/icebench.c tools/bench/vhostuser.c tools/bench/vhostuser.h build/gcc/libminivmm.a $(TEST_LIB_OBJ)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)gcc -std=gnu17 $(WARN) $(DEFS) -O2 -Iinclude -I. -Itests/lib -Itools/bench -o $@ $(filter %.c,$^) \
	    build/gcc/tests/lib/ringdrv.o build/gcc/tests/lib/mmiodrv.o build/gcc/libminivmm.a $(LIBS)

.PHONY: bench bench-ice bench-fleet
## make bench-ice           the crypto engine's part of it: against qemu-storage-daemon over LUKS, and openssl speed
bench-ice:
	@sh tools/setup.sh bench
	@$(MAKE) --no-print-directory CC=gcc SAN= minivmm build/bench/icebench build/bench/startprobe build/bench/mkbzimage
	@$(ALONE) tools/bench/ice.sh
## make bench-fleet         64 VMs at once, 64 processes of QEMU's microvm beside them, and a check of 1,000 definitions
bench-fleet:
	@sh tools/setup.sh bench
	@$(MAKE) --no-print-directory CC=gcc SAN= minivmm guest build/bench/mkbzimage
	@$(ALONE) tools/bench/fleet.py
## make bench               speed and size against QEMU's microvm: a table, and build/bench/results.tsv; fails on a missed budget
bench:
	@sh tools/setup.sh bench
	@$(MAKE) --no-print-directory CC=gcc SAN= minivmm build/gcc/minivmm guest build/bench/startprobe build/bench/mkbzimage build/bench/firstbyte
	@$(MAKE) --no-print-directory CC=clang SAN= build/clang/minivmm
	@$(MAKE) --no-print-directory CC=gcc SAN= build/bench/icebench
	@$(ALONE) status=0; tools/bench/run.sh || status=1; tools/bench/ice.sh || status=1; tools/bench/fleet.py || status=1; exit $$status
