# SPDX-License-Identifier: Apache-2.0
# The table of `make bench` out of its raw figures (lines FIGURE SIDE PAIR VALUE, or FIGURE SIDE - REASON):
# medians of each side, and the median of the pairs' ratios. Status 1: a budget is missed.
#
# usage: awk -f tools/bench/report.awk -v results=FILE RAW

function figure(key, label, unit, divisor, most, most_ratio) {
    keys[++figures] = key
    labels[key] = label
    units[key] = unit
    divisors[key] = divisor
    most_of[key] = most
    ratio_of[key] = most_ratio
}

BEGIN {
    FS = "\t"
    figure("start_cpu", "CPU time, exec to first KVM_RUN", "ms", 1000, 10, 0.25)
    figure("bare_cpu", "CPU time, --no-sandbox", "ms", 1000, 3, 0.125)
    figure("start_wall", "wall time of the same", "ms", 1000, "", "")
    figure("start_pss", "memory beyond guest RAM then", "MiB", 1024, 2, "")
    figure("io_pss", "memory beyond guest RAM, disk I/O", "MiB", 1024, 3, "")
    figure("exits_1", "exits a request, depth 1", "", 1, 2, "")
    figure("exits_32", "exits a request, depth 32", "", 1, 0.2, "")
    figure("size_gcc", "binary, stripped, gcc", "KiB", 1024, 300, "")
    figure("size_clang", "binary, stripped, clang", "KiB", 1024, 300, "")
    figure("boot_first", "testbed: exec to first console byte", "s", 1000000, "", 0.8)
    figure("boot_off", "testbed: exec to power-off", "s", 1000000, "", 1)
}

{ measured[$1] = 1 }
$3 == "-" { reason[$1, $2] = $4; next }
{
    value[$1, $2, $3] = $4 / divisors[$1]
    if ($3 > pairs[$1])
        pairs[$1] = $3
}

# The median of list[1 .. n].
function median(list, n,    i, j, x) {
    for (i = 2; i <= n; i++) {
        x = list[i]
        for (j = i - 1; j >= 1 && list[j] > x; j--)
            list[j + 1] = list[j]
        list[j + 1] = x
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

function median_of(key, side,    n, i, list) {
    for (i = 1; i <= pairs[key]; i++)
        if ((key, side, i) in value)
            list[++n] = value[key, side, i]
    return n ? median(list, n) : "n/a"
}

function median_ratio(key,    n, i, list) {
    for (i = 1; i <= pairs[key]; i++)
        if ((key, "minivmm", i) in value && value[key, "qemu", i] > 0)
            list[++n] = value[key, "minivmm", i] / value[key, "qemu", i]
    return n ? median(list, n) : "n/a"
}

function text(x, unit) {
    if (x == "n/a" || x == "")
        return x == "" ? "-" : x
    return sprintf("%.2f", x) (unit ? " " unit : "")
}

# Rounded as it is shown: a budget is met when the table says so.
function over(x, most, digits) {
    return most != "" && (x == "n/a" || sprintf("%." digits "f", x) + 0 > most + 0)
}

END {
    line = "%-37s %12s %12s %7s  %-20s %s\n"
    printf line, "figure (medians)", "minivmm", "QEMU microvm", "ratio", "budget", "verdict"
    print "figure\tunit\tminivmm\tqemu\tratio\tmost\tmost_ratio\tverdict" > results
    for (f = 1; f <= figures; f++) {
        key = keys[f]
        if (!(key in measured)) # a part that was not asked for
            continue
        a = median_of(key, "minivmm")
        b = substr(key, 1, 4) == "size" ? "" : median_of(key, "qemu")
        r = b == "" ? "" : median_ratio(key)
        budget = most_of[key] == "" ? "" : "<= " most_of[key] (units[key] ? " " units[key] : "")
        if (ratio_of[key] != "")
            budget = budget (budget ? ", " : "") "<= " ratio_of[key] "x"
        verdict = budget == "" ? "" : over(a, most_of[key], 2) || over(r, ratio_of[key], 3) ? "MISS" : "ok"
        # What could not be measured is not met, but the peer's absence is the machine's matter.
        if (verdict == "MISS" && a != "n/a" && !over(a, most_of[key], 2) && r == "n/a")
            verdict = "n/a"
        printf line, labels[key], text(a, units[key]), text(b, units[key]),
            r == "" || r == "n/a" ? text(r) : sprintf("%.3f", r), budget == "" ? "-" : budget, verdict
        printf "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key, units[key], a, b, r, most_of[key], ratio_of[key], verdict > results
        if (verdict == "MISS")
            missed = missed (missed ? "; " : "") labels[key]
        for (s = 1; s <= 2; s++) {
            side = s == 1 ? "minivmm" : "qemu"
            if ((s == 1 ? a : b) == "n/a" && ((key, side) in reason))
                notes = notes sprintf("  n/a: %s, %s: %s\n", labels[key], side, reason[key, side])
        }
    }
    printf "%s", notes
    if (missed) {
        print "budgets missed: " missed
        exit 1
    }
    print "all budgets that could be measured are met"
}
