#!/usr/bin/env bash
# Runs the default recipe with batches from 1 to 512 at equal passes over the data, and compares with the truth. Writes
# benches/results/batch.md. Two idle cores need about twenty minutes.
#
#   benches/batch.sh
#
# BATCH_PARTICLES=N     particles per set, for a trial of the script: the table then goes to target/batch-trial/
# CRYOSPLAT=PROGRAM     the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

batches=(1 8 32 128 512)
gaussians=5120
counts=(10000 51200)
results=benches/results/batch.md
work=target/batch
if [ -n "${BATCH_PARTICLES:-}" ]; then
    counts=("$BATCH_PARTICLES")
    work=target/batch-trial
    results=$work/batch.md
fi
prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
rm -rf "$work"
mkdir -p "$work"

for count in "${counts[@]}"; do
    name=ribosome64
    [ "$count" -eq 10000 ] || name=ribosome64-$count
    make_set "$name" 4v5d.cif 64 6 "$count" 0.1
    for batch in "${batches[@]}"; do
        say "== $count particles, batch $batch"
        run=$work/$count-$batch
        run_ranks 2 "$program" --log-level warn train "$set/particles.h5" -o "$run" --gaussians "$gaussians" --batch "$batch"
        for map in half1 map; do
            against_truth "$set/voxels/$map.mrc" "$run/$map.mrc" >"$run/$map.cells"
        done
        rm -rf "$run/checkpoints"
    done
done

mkdir -p "$(dirname "$results")"
{
    echo "# Batch size at equal passes"
    echo
    echo "Written by \`make batch\` on $(machine), \`mpirun -n 2 cryosplat-mpi train SET --gaussians $gaussians --batch B\`;" \
        "70S ribosome, 64 px of 6 A, SNR 0.1. Mean FSC against the truth over the shells below Nyquist, of half map 1 and of the" \
        "map, without a mask; in the automatic mask of the truth; and the loss of the map, without a mask, against the best batch of the set."
    echo
    "$python" - "$work" "${counts[*]}" "${batches[*]}" <<'END'
import json
import sys

work, counts, batches = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
print("| Particles per half | Batch per half | Steps per epoch | Epochs | Passes | Half map | Map | Map, mask | Loss against the best |")
print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
for count in counts:
    rows = []
    for batch in batches:
        folder = f"{work}/{count}-{batch}"
        run = json.load(open(f"{folder}/run.json"))
        half, whole = (open(f"{folder}/{name}.cells").read().split("|") for name in ("half1", "map"))
        particles, epochs = run["particles"]["models"][0]["particles"], run["settings"]["epochs"]
        rows.append((int(batch), particles, epochs, float(half[1]), float(whole[1]), float(whole[3])))
    best = max(row[4] for row in rows)
    for batch, particles, epochs, half, whole, masked in rows:
        print(f"| {particles:,} | {batch} | {-(-particles // batch):,} | {epochs} | {particles * epochs:,} "
              f"| {half:.4f} | {whole:.4f} | {masked:.4f} | {best - whole:.4f} |")
END
} >"$work/table.md"
mv "$work/table.md" "$results"
say "wrote $results"
