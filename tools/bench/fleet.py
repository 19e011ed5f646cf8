#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A fleet of 64 VMs against its budgets (docs/bench.md says what each figure is), 64 processes of QEMU's microvm
beside it, and `fleet check` of 1,000 definitions. Prints a table and leaves build/bench/fleet.tsv. Status 1: a budget
is missed.

usage: tools/bench/fleet.py     (with all built; root, for the memory figures)
"""
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

VMS = int(os.environ.get("VMS", "64"))
RAM = 64 << 20
PATIENCE = 120
HUGE = 2 << 20
MINIVMM = os.path.abspath(os.environ.get("MINIVMM", "minivmm"))
GUEST = os.path.abspath("build/guest/guest.elf")
GUEST_PVH = os.path.abspath("build/guest/guest-pvh.elf")
HALTS = os.path.abspath("build/bench/kernel.bzimage")
RESULTS = "build/bench/fleet.tsv"
rows, notes = [], []


def row(figure, ours, other=None, unit="", most=None):
    """One line of the table. ours or other: a number, or None where it could not be taken."""
    missed = most is not None and (ours is None or round(ours, 2) > most)
    rows.append((figure, ours, other, unit, most, "-" if most is None else "MISS" if missed else "ok"))


class Group:
    """CPU time of a command and all that it starts, also of what has ended: by a control group of its own."""

    PLACES = (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"), ("/sys/fs/cgroup", "cpu.stat"))
    made = 0

    def __init__(self):
        Group.made += 1
        for place, file in self.PLACES:
            path = f"{place}/minivmm-bench-{os.getpid()}-{Group.made}"
            try:
                os.mkdir(path)
                if os.path.exists(f"{path}/{file}"):
                    self.path, self.file = path, file
                    return
                os.rmdir(path)
            except OSError:
                continue
        raise RuntimeError("no control group can be made: needs root, and cgroup v1's cpuacct or v2")

    def enter(self):
        with open(f"{self.path}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write("0")

    def cpu_ms(self):
        with open(f"{self.path}/{self.file}", encoding="ascii") as usage:
            text = usage.read()
        if self.file == "cpu.stat":
            return int(re.search(r"usage_usec (\d+)", text)[1]) / 1e3
        return int(text) / 1e6

    def pids(self):
        with open(f"{self.path}/cgroup.procs", encoding="ascii") as procs:
            return [int(pid) for pid in procs.read().split()]

    def close(self):
        """Whatever is left in it ends."""
        for _ in range(200):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                for pid in self.pids():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                time.sleep(0.02)


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not in {PATIENCE} s")
        time.sleep(0.005)


def said(paths, text):
    """Whether all the files have the text."""

    def one(path):
        try:
            with open(path, "rb") as file:
                return text in file.read()
        except FileNotFoundError:
            return False

    return all(one(path) for path in paths)


def mappings(pid):
    """Start, end, path and PSS in KiB of each mapping."""
    found = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            words = line.split()
            if re.match(r"[0-9a-f]+-[0-9a-f]+$", words[0]):
                start, end = (int(x, 16) for x in words[0].split("-"))
                found.append([start, end, words[5] if len(words) > 5 else "", 0])
            elif words[0] == "Pss:":
                found[-1][3] = int(words[1])
    return found


def guest_ram(maps, kernel):
    """The range of guest RAM. Ours: aligned to 2 MiB, with the kernel's file mapped into it; QEMU's: one mapping."""
    bounds = {m[0] for m in maps} | {m[1] for m in maps}
    for start, end, path, _ in maps:
        if path == kernel:
            at = start & -HUGE
            while at > start - RAM:
                if at in bounds and at + RAM in bounds:
                    return at, at + RAM
                at -= HUGE
            return None
        if end - start == RAM and not path:
            return start, end
    return None


def pss_kib(pids, kernel, wanted):
    """PSS of all processes without guest RAM, which must be found wanted times."""
    total = guests = 0
    for pid in pids:
        maps = mappings(pid)
        ram = guest_ram(maps, kernel)
        guests += ram is not None
        total += sum(m[3] for m in maps if not ram or not ram[0] <= m[0] < ram[1])
    if guests != wanted:
        raise RuntimeError(f"guest RAM was found in {guests} processes, not in {wanted}")
    return total


class Fleet:
    """VMs of ours, by one file."""

    def __init__(self, work, kernel, cmdline):
        self.work, self.group = work, Group()
        self.logs = [f"{work}/vm{n}.log" for n in range(VMS)]
        self.env = dict(os.environ, MINIVMM_RUN_DIR=f"{work}/run")
        for n in range(VMS):
            with open(f"{work}/vm{n}.img", "wb") as image:
                image.truncate(HUGE)
        for log in self.logs:
            if os.path.exists(log):
                os.unlink(log)
        with open(f"{work}/bench.conf", "w", encoding="utf-8") as conf:
            conf.write(
                f"[fleet]\nname = bench\nice-total = 256\nice-map = {work}/ice.slots\n\n[vm g%i]\ncount = {VMS}\n"
                f"kernel = {kernel}\nmemory = {RAM >> 20}M\ncmdline = {cmdline}\nice-slots = 4\nrestart = never\n"
                f"disk = {work}/vm%i.img\nlog = {work}/vm%i.log\nstop-timeout = 1\n"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.group.close()

    def up(self):
        """Seconds until all run."""
        began = time.monotonic()
        self.call("up", "bench.conf", "--detach", first=self.group.enter)
        return time.monotonic() - began

    def call(self, *words, first=None):
        # Into a file: the supervisor keeps what it inherits.
        with open(f"{self.work}/said", "w+", encoding="utf-8", errors="replace") as out:
            done = subprocess.run(
                [MINIVMM, "fleet", *words], cwd=self.work, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=first, timeout=PATIENCE, check=False,
            )
            out.seek(0)
            if done.returncode:
                raise RuntimeError(f"fleet {words[0]} ended with {done.returncode}: {out.read()[-300:]}")

    def supervisor(self):
        """The process whose parent is none of the others."""
        pids = self.group.pids()
        for pid in pids:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                if int(stat.read().rsplit(")", 1)[1].split()[1]) not in pids:
                    return pid
        raise RuntimeError("no supervisor among the fleet's processes")

    def down(self):
        began = time.monotonic()
        self.call("down")
        wait_until(lambda: not self.group.pids(), "the end of the fleet")
        return time.monotonic() - began


def measure_start(work):
    """A guest that halts at once: all CPU time is the monitor's."""
    with Fleet(work, HALTS, "none") as fleet:
        seconds = fleet.up()
        cpu = fleet.group.cpu_ms() / VMS
        fleet.down()
    return seconds, cpu


def measure_work(work):
    """Every guest's 1 MiB, and the memory of all behind it."""
    with Fleet(work, GUEST, "ice=fleet vm=%i then=button") as fleet:
        return watch_work(work, fleet)


def watch_work(work, fleet):
    began = time.monotonic()
    fleet.up()
    wait_until(lambda: said(fleet.logs, b"waits for the power button"), "the guests' work")
    worked = time.monotonic() - began
    if not said(fleet.logs, b"ok 1 - guest: fleet\n") or not said(fleet.logs, b"bytes=1048576"):
        raise RuntimeError("a guest found something wrong")
    used = subprocess.run([MINIVMM, "slots", "--json", "--ice-map", f"{work}/ice.slots", "--ice-total", "256"],
                          capture_output=True, text=True, check=True).stdout
    slots = [s for s in re.findall(r'"first": (\d+),\s*"count": (\d+),\s*"free": false', used)]
    supervisor = fleet.supervisor()
    pids = [pid for pid in fleet.group.pids() if pid != supervisor]
    pss = pss_kib(pids, GUEST, VMS) / VMS / 1024
    own = pss_kib([supervisor], GUEST, 0) / 1024
    return worked, fleet.down(), pss, own, sum(int(count) for _, count in slots)


def vcpu_ms(pid):
    """CPU time of the threads that run guest code, by their names."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="ascii", errors="replace") as comm:
            if "/KVM" not in comm.read():
                continue
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as stat:
            total += int(stat.read().split()[0]) / 1e6
    return total


def measure_qemu(work):
    """The same guest without work, which prints one line and halts: seconds until all have, CPU, memory."""
    group, logs = Group(), [f"{work}/qemu{n}.log" for n in range(VMS)]
    began, processes = time.monotonic(), []
    try:
        for n, log in enumerate(logs):
            processes.append(subprocess.Popen(
                ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-name", f"g{n},debug-threads=on", "-M",
                 "microvm,accel=kvm,acpi=off,ioapic2=off", "-m", str(RAM >> 20), "-kernel", GUEST_PVH, "-append",
                 "ice=idle then=ignore", "-drive", f"id=d,file={work}/vm{n}.img,format=raw,if=none", "-device",
                 "virtio-blk-device,drive=d", "-display", "none", "-serial", f"file:{log}", "-no-reboot"],
                preexec_fn=group.enter, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        wait_until(lambda: said(logs, b"ignores the power button") or any(p.poll() is not None for p in processes),
                   "QEMU's guests")
        seconds = time.monotonic() - began
        for process in processes:
            if process.poll() is not None:
                raise RuntimeError(process.stderr.read().decode(errors="replace").strip()[-150:] or "QEMU ended")
        cpu = group.cpu_ms() - sum(vcpu_ms(pid) for pid in group.pids())
        return seconds, cpu / VMS, pss_kib(group.pids(), None, VMS) / VMS / 1024
    finally:
        group.close()
        for process in processes:
            process.wait()


def measure_check(work):
    """The median of five checks of 1,000 VMs with a section, an image and a log each, in ms."""
    lines = ["[fleet]\nice-total = 256\n\n[defaults]", f"kernel = {GUEST}\nmemory = 64M\ncpus = 2\nrestart = on-failure"]
    for n in range(1000):
        with open(f"{work}/c{n}.img", "wb") as image:
            image.truncate(HUGE)
        lines.append(f"[vm v{n}]\ncmdline = console=ttyS0 vm={n}\ndisk = c{n}.img,queues=2\nlog = c{n}.log\norder = {n % 10}")
    with open(f"{work}/check.conf", "w", encoding="utf-8") as conf:
        conf.write("\n".join(lines) + "\n")
    took = []
    for _ in range(6):
        began = time.monotonic()
        subprocess.run([MINIVMM, "fleet", "check", f"{work}/check.conf"], check=True, stdout=subprocess.DEVNULL)
        took.append((time.monotonic() - began) * 1000)
    return statistics.median(took[1:])


def attempt(what, measure, work, results):
    """What could not be measured is None, with a note."""
    try:
        return measure(work)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        notes.append(f"  n/a: {what}: {error}")
        return (None,) * results if results > 1 else None


def text(value, unit=""):
    return "-" if value is None else f"{value:.2f}{' ' + unit if unit else ''}"


def report():
    line = "{:<48} {:>12} {:>13}  {:<10} {}"
    print(line.format(f"figure ({VMS} VMs)", "minivmm", "QEMU microvm", "budget", "verdict"))
    with open(RESULTS, "w", encoding="utf-8") as out:
        print("figure\tunit\tminivmm\tqemu\tmost\tverdict", file=out)
        for figure, ours, other, unit, most, verdict in rows:
            shown = "n/a" if ours is None else text(ours, unit)
            print(line.format(figure, shown, text(other, unit), "-" if most is None else f"<= {most} {unit}", verdict))
            print(figure, unit, ours, other, most, verdict, sep="\t", file=out)
    for note in notes:
        print(note)
    missed = [r[0] for r in rows if r[5] == "MISS"]
    print("budgets missed: " + "; ".join(missed) if missed else "all budgets are met")
    return 1 if missed else 0


def main():
    work = tempfile.mkdtemp(prefix="minivmm-bench-")
    os.mkdir(f"{work}/run", 0o700)
    subprocess.run(["build/bench/mkbzimage", HALTS], check=True)
    try:
        start, cpu = attempt("starts", measure_start, work, 2)
        worked, ended, pss, own, slots = attempt("work", measure_work, work, 5)
        qemu_start, qemu_cpu, qemu_pss = attempt("QEMU", measure_qemu, work, 3)
        check = attempt("fleet check", measure_check, work, 1)
    finally:
        shutil.rmtree(work)
    row("VMs started per second", start and VMS / start, qemu_start and VMS / qemu_start)
    row("monitor's CPU a VM, until all run", cpu, qemu_cpu, "ms", 10)
    row("memory a VM beyond guest RAM, after its work", pss, qemu_pss, "MiB", 4)
    row("memory of the supervisor", own, None, "MiB")
    row("until all wrote, read and verified 1 MiB", worked, None, "s")
    row("until all are down again", ended, None, "s")
    row("fleet check of 1,000 definitions", check, None, "ms", 100)
    if slots is not None and slots != 4 * VMS:
        notes.append(f"  {slots} keyslots were in use, not {4 * VMS}")
    status = report()
    return status or (slots is not None and slots != 4 * VMS)


if __name__ == "__main__":
    sys.exit(main())
