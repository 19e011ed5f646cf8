/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ICE key service's interface to guests (docs/ice-spec.md, section 7): one 4 KiB window of 32-bit
 * registers and a command block in guest memory. Guest code includes this header too, so it uses nothing but
 * fixed-size types. All fields are little-endian. The device is announced by ACPI (HID ICE_KEYS_ACPI_HID:
 * memory window, interrupt) and, for kernels without ACPI, by the command line word ICE_KEYS_CMDLINE
 * "=0x1000@BASE:GSI".
 *
 * A call: fill a struct ice_command, write its guest physical address to BLOCK_LOW and BLOCK_HIGH, write any
 * value to DOORBELL. STATUS goes to BUSY at once and to DONE when the command's result and out fields are
 * written, with an edge on the interrupt line and bit 0 of INTERRUPT_STATUS set. A doorbell while BUSY is
 * ignored. The device reads the block once and wipes its in bytes before it does anything else.
 */
#ifndef MINIVMM_ICE_ABI_H
#define MINIVMM_ICE_ABI_H

#include <stdint.h>

#define ICE_KEYS_ACPI_HID "MVMM0001"
#define ICE_KEYS_CMDLINE  "minivmm_ice.device"

/* Registers. 32-bit aligned accesses only; others read as zero and write nothing. */
#define ICE_KEYS_MAGIC   0x00 /* R: ICE_KEYS_MAGIC_VALUE */
#define ICE_KEYS_VERSION 0x04 /* R: ICE_KEYS_VERSION_VALUE */
#define ICE_KEYS_WINDOW                                                                                      \
    0x08 /* R: the VM's window: bits 23:8 number of slots, bits 7:0 first physical slot                      \
          */
#define ICE_KEYS_STATUS           0x0c /* R: ICE_KEYS_STATUS_* */
#define ICE_KEYS_BLOCK_LOW        0x10 /* RW: command block address, low half */
#define ICE_KEYS_BLOCK_HIGH       0x14 /* RW: high half */
#define ICE_KEYS_DOORBELL         0x18 /* W: start */
#define ICE_KEYS_INTERRUPT_STATUS 0x1c /* R: bit 0: a call has ended */
#define ICE_KEYS_INTERRUPT_ACK    0x20 /* W: bits to clear */
#define ICE_KEYS_RESULT           0x24 /* R: result of the last call, also where the block could not be written */

#define ICE_KEYS_MAGIC_VALUE   0x4b454349u /* "ICEK" */
#define ICE_KEYS_VERSION_VALUE 1u
#define ICE_KEYS_WINDOW_SIZE   0x1000u

#define ICE_KEYS_STATUS_IDLE 0u
#define ICE_KEYS_STATUS_BUSY 1u
#define ICE_KEYS_STATUS_DONE 2u

/* Calls. */
#define ICE_CALL_SET_KEY          1u /* slot, alg, unit_exp, key_size, key_kind, in = key */
#define ICE_CALL_INVALIDATE_KEY   2u /* slot */
#define ICE_CALL_DERIVE_SW_SECRET 3u /* in = ephemerally wrapped key; out = 32 bytes */
#define ICE_CALL_GENERATE_KEY     4u /* out = long-term wrapped key */
#define ICE_CALL_IMPORT_KEY       5u /* in = raw key, 16 to 64 bytes; out = long-term wrapped key */
#define ICE_CALL_PREPARE_KEY      6u /* in = long-term wrapped key; out = ephemerally wrapped key */

#define ICE_KEY_KIND_RAW     0u
#define ICE_KEY_KIND_WRAPPED 1u /* ephemerally */

/* Results. */
#define ICE_RESULT_OK       0u
#define ICE_RESULT_INVALID  1u /* a field or length is not as the call demands */
#define ICE_RESULT_DENIED   2u /* the slot is outside the VM's window */
#define ICE_RESULT_BUSY     3u /* requests in flight did not end in time; nothing has changed */
#define ICE_RESULT_BAD_BLOB 4u /* not a key wrapped for this VM, this boot and this use */
#define ICE_RESULT_FAILED   5u /* the engine could not do it */
#define ICE_RESULT_BAD_BLOCK                                                                                 \
    6u /* the command block does not lie in guest memory; only in ICE_KEYS_RESULT                            \
        */

#define ICE_COMMAND_BYTES  320u
#define ICE_COMMAND_DATA   128u
#define ICE_BLOB_OVERHEAD  32u /* header 4, nonce 12, tag 16 */
#define ICE_SW_SECRET_SIZE 32u

struct ice_command {
    uint32_t call;
    uint32_t slot; /* PHYSICAL */
    uint8_t alg, unit_exp, key_size, key_kind;
    uint32_t in_len;  /* bytes of in */
    uint32_t result;  /* written by the device */
    uint32_t out_len; /* written by the device: bytes of out */
    uint8_t reserved[40];
    uint8_t in[ICE_COMMAND_DATA];
    uint8_t out[ICE_COMMAND_DATA];
};

#endif
