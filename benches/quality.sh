#!/usr/bin/env bash
# Compares the recipes and relion_reconstruct with the true map, on 10,000 images of the 70S ribosome (64 px of 6 A, SNR 0.1).
# Writes benches/results/quality.md. Two idle cores need about ten minutes.
#
#   benches/quality.sh [ROW...]      all, or some of: default batch128 paper thousand relion
#
# RIBOSOME64=DIR      takes the set from DIR (particles.star with its stack, truth.mrc) instead of simulating it
# QUALITY_EPOCHS=E    epochs of every run, for a trial of the script: the table then goes to target/quality-trial/
# CRYOSPLAT=PROGRAM   the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

gaussians=5120
ranks=2
work=target/quality
rows=("$@")
[ "$#" -gt 0 ] || rows=(default batch128 paper thousand relion)
trial=()
results=benches/results/quality.md
if [ -n "${QUALITY_EPOCHS:-}" ]; then
    trial=(--epochs "$QUALITY_EPOCHS")
    # Keeps rows of a trial apart from those of a whole run.
    work=target/quality-trial
    results=$work/quality.md
fi

prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
mkdir -p "$work"

# --- the set

ribosome_set 64 ""
truth=$set_folder/truth.mrc
"$program" --log-level warn import "$set_folder/particles.star" -o "$work/particles.h5"
"$program" --log-level warn import "$set_folder/particles.star" -o "$work/first1000.h5" --first 1000

# --- the rows

# mean_fsc MAP...: over shells 1 to 31 and 1 to 32, against the truth, the mean over the maps, as table cells.
mean_fsc() { "$python" tests/judges/maps.py mean "$truth" "$@"; }

# of_run FOLDER: from its run.json: the image passes of a model, images/s of all.
of_run() {
    "$python" - "$1/run.json" <<'END'
import json, sys

run = json.load(open(sys.argv[1]))
model = run["particles"]["models"][0]
print(f"{model['particles'] * run['settings']['epochs']:,}", f"{run['images_per_second']:.0f}")
END
}

# train_row NAME RANKS ARGUMENTS OF TRAIN...: trains, and writes the table's line to $work/NAME.row.
train_row() {
    local name=$1 count=$2
    shift 2
    local folder=$work/$name start wall facts passes rate shown half_fsc map_fsc
    say "== $name: train $*"
    rm -rf "$folder"
    start=$(date +%s.%N)
    if ! run_ranks "$count" "$program" train "$@" -o "$folder" --gaussians "$gaussians" "${trial[@]}" 2>"$work/$name.log"; then
        tail -n 20 "$work/$name.log" >&2
        stop "$name failed; its log is $work/$name.log"
    fi
    wall=$(seconds_since "$start")
    facts=$(of_run "$folder")
    read -r passes rate <<<"$facts"
    half_fsc=" | "
    if [ -f "$folder/half1.mrc" ]; then
        half_fsc=$(mean_fsc "$folder"/half[12].mrc)
    fi
    map_fsc=$(mean_fsc "$folder/map.mrc")
    shown="mpirun -n $count cryosplat-mpi train $* --gaussians $gaussians${trial[*]:+ ${trial[*]}}"
    shown=${shown//"$work/"/}
    echo "| $name | \`$shown\` | $passes | $wall s | $rate | $half_fsc | $map_fsc |" >"$work/$name.row"
    cat "$work/$name.row"
}

# relion FOLDER STAR OUT OPTIONS...: RELION finds images from the folder it runs in. Prints the seconds.
relion() {
    local folder=$1 star=$2 out=$3 start
    shift 3
    start=$(date +%s.%N)
    (cd "$folder" && relion_reconstruct --i "$star" --o "$out" --ctf "$@" >"$out.log" 2>&1 </dev/null) ||
        stop "relion_reconstruct failed; its log is $out.log"
    seconds_since "$start"
}

relion_rows() {
    local here wall1 wall2 wall wall1000 half_fsc map_fsc first_fsc
    if ! command -v relion_reconstruct >/dev/null; then
        say "skipped: RELION is missing"
        return
    fi
    say "== relion_reconstruct"
    here=$(realpath "$work")
    wall1=$(relion "$set_folder" particles.star "$here/relion_half1.mrc" --subset 1)
    wall2=$(relion "$set_folder" particles.star "$here/relion_half2.mrc" --subset 2)
    wall=$(relion "$set_folder" particles.star "$here/relion_map.mrc")
    # Particle rows name an image of a stack; everything else of the STAR file is kept.
    awk '!/@/ || ++n <= 1000' "$set_folder/particles.star" >"$work/first1000.star"
    wall1000=$(relion "$set_folder" "$here/first1000.star" "$here/relion_first1000.mrc")
    half_fsc=$(mean_fsc "$work"/relion_half[12].mrc)
    map_fsc=$(mean_fsc "$work/relion_map.mrc")
    first_fsc=$(mean_fsc "$work/relion_first1000.mrc")
    {
        echo "| relion | \`relion_reconstruct --ctf\`, each half, then all | | $((wall1 + wall2 + wall)) s | | $half_fsc | $map_fsc |"
        echo "| relion | \`relion_reconstruct --ctf\`, the first 1,000 | | $wall1000 s | |  |  | $first_fsc |"
    } >"$work/relion.row"
    cat "$work/relion.row"
}

for name in "${rows[@]}"; do
    case "$name" in
        default) train_row default "$ranks" "$work/particles.h5" ;;
        batch128) train_row batch128 "$ranks" "$work/particles.h5" --batch 128 ;;
        paper) train_row paper "$ranks" "$work/particles.h5" --recipe paper ;;
        thousand) train_row thousand 1 "$work/first1000.h5" --half all ;;
        relion) relion_rows ;;
        *) stop "no row is named $name (default, batch128, paper, thousand, relion)" ;;
    esac
done

# --- the table, with the rows of earlier runs

mkdir -p "$(dirname "$results")"
{
    echo "# Recipes and RELION against the truth"
    echo
    echo "Written by \`make quality\` on $(machine)."
    echo
    echo "The particles: $origin."
    echo
    echo "FSC: mean Fourier shell correlation with the true map over the named shells, without a mask; for half maps, the mean of" \
        "both. Nyquist is shell 32; \`cryosplat-mpi fsc\` and report.html give the mean over shells 1 to 31. Passes are images seen" \
        "by one model; images/s count both models."
    echo
    echo "| Row | Command | Passes | Wall time | Images/s | Half map, 1-31 | 1-32 | Map, 1-31 | 1-32 |"
    echo "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for name in default batch128 paper thousand relion; do
        rows_of "$name" "$work" "$results"
    done
} >"$work/table.md"
mv "$work/table.md" "$results"
say "wrote $results"
