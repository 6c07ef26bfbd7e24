#!/usr/bin/env bash
# Compares `train` with and without --densify on sets with a known truth, at the same number of Gaussians at the end and of images
# seen. Writes benches/results/densify.md. Two idle cores need about ten minutes.
#
#   benches/densify.sh [ROW...]     all, or some of the names below; other rows of the table are kept
#
# CRYOSPLAT=PROGRAM         the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name: the set, "+", and the epochs of --densify or "none"; model, box, pixel size in A, particles, signal-to-noise ratio; further
# options of train.
rows="
ribosome64-1000+none 4v5d.cif 64 6 1000 0.1
ribosome64-1000+3 4v5d.cif 64 6 1000 0.1
ribosome64-1000+3,6 4v5d.cif 64 6 1000 0.1
ribosome64-1000+12 4v5d.cif 64 6 1000 0.1
apoferritin64-3000+none 6z6u.pdb 64 3 3000 0.05 --epochs 32
apoferritin64-3000+1 6z6u.pdb 64 3 3000 0.05 --epochs 32
apoferritin64-3000+1,2 6z6u.pdb 64 3 3000 0.05 --epochs 32
apoferritin64-3000+4 6z6u.pdb 64 3 3000 0.05 --epochs 32
ribosome128-1000+none 4v5d.cif 128 3 1000 0.1 --epochs 20
ribosome128-1000+2 4v5d.cif 128 3 1000 0.1 --epochs 20
ribosome128-1000+2,4 4v5d.cif 128 3 1000 0.1 --epochs 20
ribosome128-1000+5 4v5d.cif 128 3 1000 0.1 --epochs 20
"
work=target/densify
results=benches/results/densify.md
prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
mkdir -p "$work"

# run_row NAME MODEL BOX PIXEL-SIZE PARTICLES SNR [OPTION...]: trains half 1 on one thread, and writes its row to $work/NAME.row.
run_row() {
    local name=$1 options=("${@:7}")
    local epochs=${name#*+} run=$work/$name
    say "== $name"
    make_set "${name%+*}" "$2" "$3" "$4" "$5" "$6"
    [ "$epochs" = none ] || options+=(--densify "$epochs")
    # Seconds of a core: the wall time depends on what else runs.
    TIMEFORMAT=%U
    { time "$program" --log-level error train "$set/particles.h5" -o "$run" --overwrite --half 1 --threads 1 \
        --voxel-particles 0 "${options[@]}" 2>"$work/log"; } 2>"$run.seconds"
    rm -rf "$run/checkpoints"
    "$program" --log-level error fsc "$run/half1.mrc" "$set/truth.mrc" --reference --mask "$set/mask.mrc" --json >"$run/truth.json"
    "$python" - "$name" "$run" "$(cat "$run.seconds")" >"$work/$name.row" <<'END'
import json
import sys

name, folder, seconds = sys.argv[1:]
with open(f"{folder}/run.json") as file:
    run = json.load(file)
with open(f"{folder}/truth.json") as file:
    curves = {curve["label"]: curve["mean"] for curve in json.load(file)["curves"]}
settings, (set_name, epochs) = run["settings"], name.split("+")
mixtures, last = settings["mixtures"], settings["gaussians"]
first = last >> len(settings.get("densify", []))
gaussians = f"{last:,}" if first == last else f"{first:,} to {last:,}"
whole, masked = list(curves.values())[:2]
cells = [name, set_name, epochs, f"{mixtures} of {settings['epochs'] // mixtures}", gaussians,
         f"{run['particles']['models'][0]['particles'] * settings['epochs']:,}", f"{float(seconds):.0f}",
         f"{whole:.4f}", f"{masked:.4f}"]
print("| " + " | ".join(cells) + " |")
END
    cat "$work/$name.row"
}

each_row "$rows" run_row "$@"

mkdir -p "$(dirname "$results")"
{
    echo "# Densification"
    echo
    echo "Written by \`make densify-table\` on $(machine), \`cryosplat-mpi train SET --half 1 --threads 1 --densify EPOCHS\`: the default" \
        "recipe, with Gaussians that double after these epochs of each mixture (\"none\": without). The number of Gaussians at the" \
        "end and of images seen is the same. Rows that were not run on that date are from earlier runs."
    echo
    echo "Truth: mean FSC of half map 1 against the truth over the shells below Nyquist, without a mask and in the automatic mask of" \
        "the truth. Seconds: of a core, with the pilot reconstruction."
    echo
    echo "| Row | Set | Doubled after epochs | Mixtures and their epochs | Gaussians | Images seen | Seconds | Truth | in the mask |"
    echo "|---|---|---|---|--:|--:|--:|--:|--:|"
    written_rows "$rows" "$work" "$results"
} >"$work/all.md"
mv "$work/all.md" "$results"
say "wrote $results"
