# SPDX-License-Identifier: Apache-2.0
# What is built and run besides the monitor: the bare-metal test guest, and the demonstration boot.

GUEST_CFLAGS := -std=gnu17 $(WARN) -O2 -g -ffreestanding -mgeneral-regs-only -mno-red-zone -fno-stack-protector \
                -fcf-protection=none -fno-pie -fno-builtin -fno-asynchronous-unwind-tables -mcmodel=small \
                -Wno-missing-prototypes -Iinclude
GUEST_SRC := $(sort $(wildcard tests/guest/*.c))
GUEST_OBJ := build/guest/start.o $(GUEST_SRC:tests/guest/%.c=build/guest/%.o)

.PHONY: guest boot ice-check
## make guest               the bare-metal test guest: build/guest/guest.elf, and guest-pvh.elf with a PVH note
guest: build/guest/guest.elf build/guest/guest-pvh.elf

build/guest/%.o: tests/guest/%.c $(wildcard tests/guest/*.h)
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -c -o $@ $<

build/guest/%.o: tests/guest/%.S
	@mkdir -p $(@D)
	$(CC) -c -o $@ $<

GUEST_LINK = $(CC) -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-T,tests/guest/guest.ld

build/guest/guest.elf: $(GUEST_OBJ) tests/guest/guest.ld
	$(GUEST_LINK) -o $@ $(GUEST_OBJ)

build/guest/guest-pvh.elf: $(GUEST_OBJ) build/guest/pvh.o tests/guest/guest.ld
	$(GUEST_LINK) -o $@ $(GUEST_OBJ) build/guest/pvh.o

## make ice-check           looks into encrypted images with nettle: build/interop/ice_check
ice-check: build/interop/ice_check
build/interop/%: tests/interop/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 $(WARN) $(DEFS) -O2 -o $@ $< -lnettle

## make boot                a stock Debian kernel boots under minivmm from an encrypted disk (installs what it needs)
boot:
	@sh tools/setup.sh boot
	@$(MAKE) --no-print-directory minivmm ice-check
	@$(ALONE) tools/boot.sh
