#!/usr/bin/env bash
# Measures the speed-up of a training step on the CPU device by a second thread and by a second rank, compared with two
# independent programs. Writes benches/results/divided.md. Two idle cores need about twelve minutes.
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

# One CPU of each of two cores.
read -ra apart_on <<<"$(lscpu --parse=CPU,CORE,SOCKET | awk -F , '!/^#/ && !seen[$2, $3]++ && ++n <= 2 { printf "%s ", $1 }')"
[ "${#apart_on[@]}" -eq 2 ] || stop "lscpu does not list two cores"

options=(--log-level error bench --device cpu --batch "$batch" --seconds "$seconds")

# rate_of FILE...: images per second, summed.
rate_of() { sed -n 's/^  "images_per_second": \([0-9.]*\),$/\1/p' "$@" | awk '{ sum += $1 } END { print sum }'; }

# rate RANKS THREADS BOX GAUSSIANS: images per second.
rate() {
    bound_ranks "$1" "$2" "$program" "${options[@]}" --threads "$2" --box "$3" --gaussians "$4" --json "$work/bench.json" >/dev/null
    rate_of "$work/bench.json"
}

# rate_apart BOX GAUSSIANS: images per second of two programs of one thread, each on a core, summed.
rate_apart() {
    local core pid pids=()
    for core in "${apart_on[@]}"; do
        taskset -c "$core" "$program" "${options[@]}" --threads 1 --box "$1" --gaussians "$2" --json "$work/apart$core.json" \
            >/dev/null </dev/null &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
    rate_of "$work"/apart*.json
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { print a / b }'; }

median() { tr ' ' '\n' <<<"$*" | sort -g | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

{
    echo "# Two threads and two ranks on one step"
    echo
    echo "Written by \`make scaling\` on $(machine), $(cores) cores."
    echo
    echo "Images per second of \`cryosplat-mpi bench --box D --gaussians N --batch $batch\` with one thread on one core, two threads, two" \
        "ranks of one thread, each bound to a core, and two independent programs of one thread, each on a core. Medians of $rounds" \
        "rounds that run the four alternately; speed-ups are medians over the rounds. Two independent programs show the limit of the" \
        "machine."
    remark_load "$load"
    echo
    echo "| Batch $batch | One thread, images/s | Two threads | Speed-up | Two ranks | Speed-up | Two programs | Speed-up |"
    echo "|---|--:|--:|--:|--:|--:|--:|--:|"
} >"$work/divided.md"
for case in "${cases[@]}"; do
    read -r box gaussians <<<"$case"
    one=() threads=() ranks=() apart=() by_threads=() by_ranks=() by_apart=()
    for ((round = 0; round < rounds; round++)); do
        one+=("$(rate 1 1 "$box" "$gaussians")")
        threads+=("$(rate 1 2 "$box" "$gaussians")")
        ranks+=("$(rate 2 1 "$box" "$gaussians")")
        apart+=("$(rate_apart "$box" "$gaussians")")
        by_threads+=("$(ratio "${threads[-1]}" "${one[-1]}")")
        by_ranks+=("$(ratio "${ranks[-1]}" "${one[-1]}")")
        by_apart+=("$(ratio "${apart[-1]}" "${one[-1]}")")
    done
    LC_ALL=C printf '| %s px, %s Gaussians | %.0f | %.0f | %.2f | %.0f | %.2f | %.0f | %.2f |\n' "$box" "$gaussians" \
        "$(median "${one[@]}")" "$(median "${threads[@]}")" "$(median "${by_threads[@]}")" "$(median "${ranks[@]}")" \
        "$(median "${by_ranks[@]}")" "$(median "${apart[@]}")" "$(median "${by_apart[@]}")" | tee -a "$work/divided.md"
done
mkdir -p "$(dirname "$results")"
mv "$work/divided.md" "$results"
say "wrote $results"
