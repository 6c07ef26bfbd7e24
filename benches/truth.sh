#!/usr/bin/env bash
# Compares maps of the default recipe and voxel maps of the same simulated particles with the truth, in every shell. Writes
# benches/results/truth.md.
#
#   benches/truth.sh [SET...]    all, or some of the names below; other rows of the table are kept
#
# TRAIN="--start density"      options of train for a trial: the table then goes to target/truth-trial/
# CRYOSPLAT=PROGRAM            the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name, model, box, pixel size in A, particles, signal-to-noise ratio; --preference of simulate.
known="
ribosome64 4v5d.cif 64 6 10000 0.1
ribosome64-1000 4v5d.cif 64 6 1000 0.1
ribosome64-1000-snr0.03 4v5d.cif 64 6 1000 0.03
ribosome64-1000-snr0.01 4v5d.cif 64 6 1000 0.01
ribosome64-snr0.03 4v5d.cif 64 6 10000 0.03
ribosome64-snr0.01 4v5d.cif 64 6 10000 0.01
ribosome64-snr1 4v5d.cif 64 6 10000 1
ribosome64-50000 4v5d.cif 64 6 50000 0.1
ribosome64-preferred 4v5d.cif 64 6 10000 0.1 3
apoferritin64 6z6u.pdb 64 3 6000 0.05
6qt9-64 6qt9.cif 64 7 6000 0.05
spliceosome72 3jb9.cif 72 5 6000 0.05
6qt9-96 6qt9.cif 96 4.5 2000 0.03
apoferritin128 6z6u.pdb 128 1.5 2000 0.05
ribosome128 4v5d.cif 128 3 10000 0.1
ribosome128-1000 4v5d.cif 128 3 1000 0.1
ribosome128-1000-snr0.01 4v5d.cif 128 3 1000 0.01
ribosome128-snr0.01 4v5d.cif 128 3 10000 0.01
ribosome256 4v5d.cif 256 1.5 6000 0.1
ribosome48 4v5d.cif 48 8 500 0.1
subunit64 6z6u-A.pdb 64 1.5 5000 0.03
rna72 4v5d-A.cif 72 5 4000 0.1
ribosome128-small 4v5d.cif 128 6 4000 0.05
"
# Sets that were not used to choose any rule of the recipe. The last three were added after all rules were fixed.
unseen="
ferritin80 4v1w.cif 80 2.6 4000 0.03
ribosome96 4v5d.cif 96 4.2 30000 1
spliceosome100 3jb9.cif 100 4 5000 0.02
6qt9-128 6qt9.cif 128 3.5 8000 0.3
spliceosome160 3jb9.cif 160 2.5 3000 0.05
apoferritin200 6z6u.pdb 200 1.1 5000 0.2
ferritin64 4v1w.cif 64 4 1200 0.1
protein72 6qt9-A.cif 72 1.8 4000 0.05
spliceosome128-small 3jb9.cif 128 5.5 3000 0.03
"
all=$known$unseen
prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
work=$sets
results=benches/results/truth.md
train=()
if [ -n "${TRAIN:-}" ]; then
    read -ra train <<<"$TRAIN"
    work=target/truth-trial
    results=$work/truth.md
fi
mkdir -p "$work"

# sizes RUN.JSON: the cells for Gaussians and passes per half.
sizes() {
    "$python" - "$1" <<'END'
import json
import sys

with open(sys.argv[1]) as file:
    run = json.load(file)
mixtures, gaussians, epochs = (run["settings"][name] for name in ("mixtures", "gaussians", "epochs"))
mixtures = f"{mixtures} x " if mixtures > 1 else ""
print(f"{mixtures}{gaussians:,} | {run['particles']['models'][0]['particles'] * epochs:,}")
END
}

# run_set NAME MODEL BOX PIXEL-SIZE PARTICLES SNR: its row, in $work/NAME.row.
run_set() {
    local name=$1 model=$2 box=$3 size=$4 count=$5 snr=$6 spread=${7:+, preference $7}
    local map start seconds
    say "== $name"
    make_set "$@"
    start=$(date +%s.%N)
    run_ranks 2 "$program" --log-level warn train "$set/particles.h5" -o "$work/run-$name" --overwrite "${train[@]}"
    seconds=$(seconds_since "$start")
    for map in half1 map; do
        echo "| $name | $model, $box px of $size A, $count at SNR $snr$spread | $map |" \
            "$(against_truth "$set/voxels/$map.mrc" "$work/run-$name/$map.mrc")" \
            "| $(sizes "$work/run-$name/run.json") | $seconds |"
    done >"$work/$name.row"
    cat "$work/$name.row"
    rm -rf "$work/run-$name/checkpoints"
}

each_row "$all" run_set "$@"

mkdir -p "$(dirname "$results")"
{
    echo "# Default recipe and voxels against the truth"
    echo
    echo "Written by \`make truth\` on $(machine)," \
        "\`mpirun -n 2 cryosplat-mpi train SET${TRAIN:+ $TRAIN}\`. Rows of sets that were not run on that date are from earlier runs."
    echo
    echo "FSC against the truth: means over the shells below Nyquist, without a mask and in the automatic mask of the truth." \
        "Voxels: \`backproject --no-wiener\`, whose FSC equals that of relion_reconstruct; without a mask, each shell takes the" \
        "better of the voxel map and of its part inside the sphere inscribed in the box. \"Worst\" is the largest loss of the" \
        "Gaussians against voxels in any shell below 0.9 Nyquist (the shell in brackets); above 0 they are better in all. \"4 x\":" \
        "Gaussians in each of four mixtures, whose mean is the map of the half."
    echo
    echo "| Set | Particles | Map | Voxels | Gaussians | Voxels, mask | Gaussians, mask | Worst | Worst, mask | Gaussians per half | Passes per half | Seconds |"
    echo "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    written_rows "$all" "$work" "$results"
} >"$work/table.md"
mv "$work/table.md" "$results"
say "wrote $results"
