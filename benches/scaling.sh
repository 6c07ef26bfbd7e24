#!/usr/bin/env bash
# Measures strong and weak scaling of `train` over the ranks of this machine on the CPU device, and quality over the batch, on
# 10,000 simulated images of the phantom (64 px of 6 A, SNR 0.1). Writes benches/results/scaling.{md,csv,svg}. Two idle cores
# need about five minutes.
#
#   benches/scaling.sh
#
# SCALING_RANKS="1 2 4"   numbers of ranks
# SCALING_EPOCHS=E        epochs of every run, for a trial of the script: the results then go to target/scaling-trial/
# CRYOSPLAT=PROGRAM       the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-target/release/cryosplat-mpi}
read -ra ranks <<<"${SCALING_RANKS:-1 2 4}"
strong=64    # images per step
weak=16      # images of a step per rank
quality=(8 32 128)
epochs=${SCALING_EPOCHS:-5}
work=target/scaling
results=benches/results
if [ -n "${SCALING_EPOCHS:-}" ]; then
    # Keeps rows of a trial apart from those of a whole run.
    work=target/scaling-trial
    results=$work/results
fi

[ -x "$program" ] || stop "$program is not there: make build"
mkdir -p "$work" "$results"
load=$(load)

set=$work/particles.h5
truth=$work/particles_truth.mrc
simulate=(simulate --phantom -o "$set" --truth "$truth" --box 64 --pixel-size 6 --particles 10000 --snr 0.1 --seed 1)
if [ ! -f "$truth" ] || [ "$(cat "$work/simulated.txt" 2>/dev/null)" != "${simulate[*]}" ]; then
    rm -f "$work/simulated.txt"
    "$program" "${simulate[@]}"
    echo "${simulate[*]}" >"$work/simulated.txt"
fi

# Binds each rank to its own core, if there are enough.
bound() {
    local count=$1
    shift
    if [ "$count" -gt "$(cores)" ]; then
        run_ranks "$count" "$@"
    else
        bound_ranks "$count" 1 "$@"
    fi
}

train=(train "$set" --half all --gaussians 5120 --epochs "$epochs" --threads 1 --device cpu --truth "$truth")
runs=()
# run RANKS BATCH: once for each pair.
run() {
    local folder=$work/ranks$1_batch$2
    [[ " ${runs[*]} " == *" $folder "* ]] && return
    say "== $1 ranks, batch $2"
    rm -rf "$folder"
    if ! bound "$1" "$program" "${train[@]}" --batch "$2" -o "$folder" 2>"$folder.log"; then
        tail -n 20 "$folder.log" >&2
        stop "a run failed; its log is $folder.log"
    fi
    runs+=("$folder")
}

for count in "${ranks[@]}"; do
    run "$count" "$strong"
    run "$count" $((weak * count))
done
for batch in "${quality[@]}"; do
    # Two ranks, or one on a single core.
    run $(("$(cores)" > 1 ? 2 : 1)) "$batch"
done

study=$work/study
rm -rf "$study"
"$program" scaling "${runs[@]}" -o "$study"

{
    echo "# Scaling over ranks"
    echo
    echo "Written by \`make scaling\` on $(machine), $(cores) cores."
    echo
    echo "The particles: \`cryosplat-mpi ${simulate[*]}\`. Each run: \`mpirun -n RANKS cryosplat-mpi ${train[*]} --batch BATCH\`," \
        "each rank bound to a core of its own where there are enough (\`--bind-to core\`)."
    echo
    echo "This study shows the cost of each part of a step on $(cores) cores of one machine. It shows nothing about networks, several" \
        "nodes, or more ranks than cores, which share the cores."
    remark_load "$load"
    echo
    echo "![Images per second and efficiency over ranks, and quality over the batch](scaling.svg)"
    echo
    cat "$study/scaling.md"
} >"$work/scaling.md"
mv "$work/scaling.md" "$results/scaling.md"
cp "$study/scaling.csv" "$study/scaling.svg" "$results/"
say "wrote $results/scaling.md, scaling.csv and scaling.svg"
