# SPDX-License-Identifier: Apache-2.0
# The benchmark against the budgets of docs/bench.md. Not part of make check: what it measures depends on the
# machine and its load.

build/bench/%: tools/bench/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)gcc -std=gnu17 $(WARN) $(DEFS) -O2 -o $@ $<

.PHONY: bench
## make bench               speed and size against QEMU's microvm: a table, and build/bench/results.tsv; fails on a missed budget
bench:
	@sh tools/setup.sh bench
	@$(MAKE) --no-print-directory CC=gcc SAN= minivmm build/gcc/minivmm guest build/bench/startprobe build/bench/mkbzimage build/bench/firstbyte
	@$(MAKE) --no-print-directory CC=clang SAN= build/clang/minivmm
	@tools/bench/run.sh
