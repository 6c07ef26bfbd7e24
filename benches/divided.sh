#!/usr/bin/env bash
# What a second thread and a second rank make of a step whose images they divide, by `bench`, on processors. Writes
# benches/results/divided.md. Two idle cores need about nine minutes.
#
#   benches/divided.sh
#
# CRYOSPLAT=PROGRAM       the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-target/release/cryosplat-mpi}
seconds=4
batch=64
rounds=5
# Box and Gaussians.
cases=("64 2048" "64 16384" "128 5120" "256 30000")
results=benches/results/divided.md

[ -x "$program" ] || stop "$program is not there: make build"
[ "$(cores)" -ge 2 ] || stop "two cores are needed: here is one"
load=$(load)
make_work "${TMPDIR:-/tmp}/cryosplat-divided.XXXXXX"

# rate RANKS THREADS BOX GAUSSIANS: images a second.
rate() {
    bound_ranks "$1" "$2" "$program" --log-level error bench --device cpu --threads "$2" --box "$3" --gaussians "$4" \
        --batch "$batch" --seconds "$seconds" --json "$work/bench.json" >/dev/null
    sed -n 's/^  "images_per_second": \([0-9.]*\),$/\1/p' "$work/bench.json"
}

median() { tr ' ' '\n' <<<"$*" | sort -g | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

{
    echo "# A step's images, divided"
    echo
    echo "Written by \`make scaling\` on $(machine), $(cores) cores."
    echo
    echo "Images a second of \`cryosplat-mpi bench --box D --gaussians N --batch $batch\` with one thread on one core, two threads, and two" \
        "ranks of one thread, each bound to a core; medians of $rounds rounds in which the three take turns. Speed-ups are medians" \
        "of those of the rounds."
    remark_load "$load"
    echo
    echo "| Batch $batch | One thread, images/s | Two threads | Speed-up | Two ranks | Speed-up |"
    echo "|---|--:|--:|--:|--:|--:|"
} >"$work/divided.md"
for case in "${cases[@]}"; do
    read -r box gaussians <<<"$case"
    one=() threads=() ranks=() by_threads=() by_ranks=()
    for ((round = 0; round < rounds; round++)); do
        one+=("$(rate 1 1 "$box" "$gaussians")")
        threads+=("$(rate 1 2 "$box" "$gaussians")")
        ranks+=("$(rate 2 1 "$box" "$gaussians")")
        by_threads+=("$(awk -v a="${threads[-1]}" -v b="${one[-1]}" 'BEGIN { print a / b }')")
        by_ranks+=("$(awk -v a="${ranks[-1]}" -v b="${one[-1]}" 'BEGIN { print a / b }')")
    done
    LC_ALL=C printf '| %s px, %s Gaussians | %.0f | %.0f | %.2f | %.0f | %.2f |\n' "$box" "$gaussians" "$(median "${one[@]}")" \
        "$(median "${threads[@]}")" "$(median "${by_threads[@]}")" "$(median "${ranks[@]}")" "$(median "${by_ranks[@]}")" |
        tee -a "$work/divided.md"
done
mkdir -p "$(dirname "$results")"
mv "$work/divided.md" "$results"
say "wrote $results"
