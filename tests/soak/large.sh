#!/usr/bin/env bash
# Imports and trains a large set, and compares the peak of resident memory with that of a set a tenth as large. The rows of its
# STAR file repeat the same 1,000 small images, so that only the particle file is large. Prints a section of Markdown.
#
#   tests/soak/large.sh
#
# SOAK_PARTICLES=N    particles of the larger set (default: 2000000, which take 1.5 GB of disk in target/soak)
# CRYOSPLAT=PROGRAM   the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-target/release/cryosplat-mpi}
large=${SOAK_PARTICLES:-2000000}
box=16
images=1000
[ -x "$program" ] || stop "$program is not there: make build"
mkdir -p target/soak
work=$(mktemp --directory "$PWD/target/soak/large.XXXXXX")
trap 'rm -rf "$work"' EXIT

# measure COMMAND...: runs it; its seconds, and the peak of its memory in MiB.
measure() {
    local start pid peak=0 now
    start=$(date +%s.%N)
    "$@" >"$work/log" 2>&1 </dev/null &
    pid=$!
    # The kernel keeps the peak, so that only what comes in the last moment can be missed.
    while now=$(awk '/^VmHWM:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        peak=$now
        sleep 0.02
    done
    if ! wait "$pid"; then
        tail -n 20 "$work/log" >&2
        stop "this failed: $*"
    fi
    awk -v from="$start" -v to="$(date +%s.%N)" -v peak="$peak" 'BEGIN { printf "%.1f %.1f\n", to - from, peak / 1024 }'
}

"$program" --log-level warn simulate --phantom --box "$box" --pixel-size 12 --particles "$images" --snr 1 --seed 1 \
    --star "$work/set" -o "$work/images.h5"

# star N: a STAR file of N particles.
star() {
    local rows=$work/rows
    grep '@' "$work/set/particles.star" >"$rows"
    grep -v '@' "$work/set/particles.star" >"$work/set/$1.star"
    awk -v n="$1" '{ row[NR] = $0 } END { for (i = 0; i < n; i++) print row[i % NR + 1] }' "$rows" >>"$work/set/$1.star"
}

# table N: two lines of the table.
table() {
    local file=$work/$1.h5 seconds peak
    star "$1"
    read -r seconds peak < <(measure "$program" import "$work/set/$1.star" -o "$file" --dtype f16)
    echo "| import | $1 | $seconds s | $peak MiB | $(($(stat -c %s "$file") / 1000000)) MB |"
    rm -f "$work/set/$1.star"
    read -r seconds peak < <(measure "$program" train "$file" -o "$work/run" --device cpu --cache none --epochs 1 \
        --batch 256 --gaussians 64 --overwrite)
    echo "| train, one epoch | $1 | $seconds s | $peak MiB | |"
    rm -f "$file"
}

echo "## A large set"
echo
echo "\`import --dtype f16\` of particles of $box px, and \`train --cache none --epochs 1 --batch 256 --gaussians 64\`" \
    "on one rank; peak of resident memory."
echo
echo "| | Particles | Time | Peak | File |"
echo "|---|--:|--:|--:|--:|"
table $((large / 10))
table "$large"
