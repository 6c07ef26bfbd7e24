#!/usr/bin/env bash
# Compares `train --refine all` with `train`, with relion_refine's local refinement and with right poses, on particles whose written
# poses, shifts and defoci are wrong. Writes benches/results/refine.md.
#
#   benches/refine.sh [ROW...]      all, or some of the names below; other rows of the table are kept
#
# COLUMNS="none refined relion right"   the columns to run (default: all); results that exist in target/truth/refine are kept
# CRYOSPLAT=PROGRAM                     the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name, model, group, box, pixel size in A, particles, SNR, order of RELION's first sampling (3: 7.5 degrees, 4: 3.75 degrees);
# errors of the written poses (degrees about each axis), shifts (pixels along each axis) and defoci (A): standard deviations.
all="
ribosome64-1deg 4v5d.cif C1 64 6 1000 0.05 4 1 0.5 0
ribosome64-3deg 4v5d.cif C1 64 6 3000 0.05 4 3 1 0
ribosome64-6deg 4v5d.cif C1 64 6 3000 0.05 4 6 2 0
ribosome64-12deg 4v5d.cif C1 64 6 3000 0.05 3 12 2 0
ribosome64-3deg-snr0.1 4v5d.cif C1 64 6 1000 0.1 4 3 1 0
ribosome64-3deg-snr0.02 4v5d.cif C1 64 6 1000 0.02 4 3 1 0
ribosome64-defocus300 4v5d.cif C1 64 6 1000 0.05 4 1 0.5 300
ribosome128-3deg 4v5d.cif C1 128 3 1000 0.05 4 3 1 0
ferritin64-3deg 4v1w.cif O 64 3 600 0.05 4 3 1 0
ferritin64-defocus300 4v1w.cif O 64 3 600 0.05 4 1 0.5 300
6qt9-64-3deg 6qt9.cif C1 64 7 1000 0.05 4 3 1 0
ribosome64-right 4v5d.cif C1 64 6 3000 0.05 4 0 0 0
"
columns=${COLUMNS-none refined relion right}
prepare_sets "$(realpath "${CRYOSPLAT:-target/release/cryosplat-mpi}")"
python=$(realpath "$python" --no-symlinks)
results=benches/results/refine.md
work=$sets/refine
mkdir -p "$work"

# simulated FOLDER MODEL BOX PIXEL-SIZE PARTICLES SNR OPTION...: particles.h5, truth.mrc and mask.mrc. Made once for each list.
simulated() {
    local folder=$1
    tests/demo/model.sh "$2"
    if [ "$(cat "$folder/made.txt" 2>/dev/null)" = "${*:2}" ]; then
        return
    fi
    rm -rf "$folder"
    mkdir -p "$folder"
    "$program" --log-level warn simulate --model "target/demo/$2" -o "$folder/particles.h5" --truth "$folder/truth.mrc" \
        --box "$3" --pixel-size "$4" --particles "$5" --snr "$6" --seed 3 "${@:7}"
    "$program" --log-level error fsc "$folder/truth.mrc" "$folder/truth.mrc" --mask auto --mask-output "$folder/mask.mrc" >/dev/null
    echo "${*:2}" >"$folder/made.txt"
}

# make_wrong NAME MODEL GROUP BOX PIXEL-SIZE PARTICLES SNR ORDER POSE SHIFT DEFOCUS: sets $set, the folder with particles.h5 and
# relion/ with wrong metadata, and $right, that of the same images with right metadata, which rows with the same images share.
make_wrong() {
    set=$work/$1
    right=$work/right-${2%.*}-$4-$5-$6-$7
    simulated "$set" "$2" "${@:4:4}" --star "$set/relion" --pose-error "$9" --shift-error "${10}" --defocus-error "${11}"
    simulated "$right" "$2" "${@:4:4}"
}

# timed FILE COMMAND...: runs a command and writes the seconds of CPU time that it and its children take, which other programs on the
# machine change less than the time that passes.
timed() {
    local file=$1
    shift
    "$python" - "$file" "$@" <<'END'
import resource
import subprocess
import sys

file, *command = sys.argv[1:]
subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(file, "w") as out:
    print(round(used.ru_utime + used.ru_stime, 1), file=out)
END
}

# fsc_of MAP: mean FSC against the truth over the shells below Nyquist, without a mask | in the mask of the truth.
fsc_of() { "$python" tests/judges/maps.py win "$set/truth.mrc" "$set/mask.mrc" "$1" "$1" | awk -F ' [|] ' '{ print $1 " \\| " $3 }'; }

# errors_of STAR GROUP COLUMN: median error of the poses in degrees, modulo the group. COLUMN of the truth numbers the images.
errors_of() { "$python" benches/refine_errors.py "$1" "$set/truth.csv" "$2" "$3"; }

# write_cells CELLS MAP STAR GROUP COLUMN SECONDS: CELLS.cells: FSC; median error of the poses, if there is a STAR; CPU seconds.
write_cells() {
    local fsc error= seconds
    fsc=$(fsc_of "$2")
    [ -z "$3" ] || error=$(errors_of "$3" "$4" "$5")
    seconds=$(cat "$6")
    echo "$fsc | $error | $seconds" >"$1.cells"
}

# trained FOLDER COLUMN GROUP OPTION...: a training run on the particles in FOLDER, and its cells.
trained() {
    local folder=$1 column=$2 group=$3 run=$1/$2 star=$1/relion/particles.star numbers=particle
    shift 3
    timed "$run.seconds" "$program" --log-level info train "$folder/particles.h5" -o "$run" --overwrite --voxel-particles 0 \
        --symmetry "$group" "$@" 2>"$run.log"
    rm -rf "$run/checkpoints"
    case $column in
    right) star= ;;
    refined)
        star=$run/refined.star numbers=row
        "$program" --log-level error export star "$folder/particles.h5" -o "$star" --run "$run"
        rm "$run/refined.mrcs"
        ;;
    esac
    write_cells "$folder/$column" "$run/half1.mrc" "$star" "$group" "$numbers" "$run.seconds"
}

# with_relion GROUP BOX PIXEL-SIZE ORDER: RELION's auto-refinement with local searches from the first iteration on, one process for
# each half, from a reconstruction with the same wrong poses.
with_relion() {
    local group=$1 box=$2 pixel=$3 order=$4 run=$set/relion/run last
    local edge high
    edge=$(awk -v box="$box" -v pixel="$pixel" 'BEGIN { print 0.85 * box * pixel }')
    high=$(awk -v pixel="$pixel" 'BEGIN { print 5 * pixel }')
    command -v relion_refine_mpi >/dev/null || stop "RELION is missing: make setup-tests"
    rm -rf "$run"
    mkdir -p "$run"
    (
        cd "$set/relion"
        relion_reconstruct --i particles.star --o start.mrc --ctf --sym "$group" >reconstruct.log
        options=(-n 3 --bind-to none --oversubscribe)
        [ "$(id -u)" -ne 0 ] || options+=(--allow-run-as-root)
        timed "../relion.seconds" mpirun "${options[@]}" relion_refine_mpi --i particles.star --ref start.mrc --o run/run \
            --auto_refine --split_random_halves --ini_high "$high" --ctf --norm --scale --sym "$group" --particle_diameter "$edge" \
            --flatten_solvent --zero_mask --healpix_order "$order" --auto_local_healpix_order "$order" --offset_range 5 \
            --offset_step 2 --oversampling 1 --low_resol_join_halves 40 --pad 2 --pool 30 --j 1 --dont_combine_weights_via_disc \
            --preread_images --random_seed 1 >refine.log 2>&1
    )
    last=$run/run
    [ -f "${last}_half1_class001_unfil.mrc" ] || stop "relion_refine made no map: $set/relion/refine.log"
    write_cells "$set/relion" "${last}_half1_class001_unfil.mrc" "${last}_data.star" "$group" particle "$set/relion.seconds"
}

# run_row FIELD...: the columns of a row that are missing.
run_row() {
    local name=$1 group=$3 box=$4 pixel=$5 order=$8 column folder
    say "== $name"
    make_wrong "$@"
    for column in $columns; do
        folder=$set
        [ "$column" != right ] || folder=$right
        [ ! -f "$folder/$column.cells" ] || continue
        case $column in
        none) trained "$set" none "$group" ;;
        refined) trained "$set" refined "$group" --refine all ;;
        right) trained "$right" right "$group" ;;
        relion) with_relion "$group" "$box" "$pixel" "$order" ;;
        *) stop "no column is named $column" ;;
        esac
        say "$column: $(cat "$folder/$column.cells")"
    done
    "$python" - "$work" "$work/$name" "$right" "$@" <<'END'
import sys
from pathlib import Path

work, folder, right, name, *_ = sys.argv[1:]
cells, seconds = [], {}
for column in ("none", "refined", "relion", "right"):
    file = Path(right if column == "right" else folder, f"{column}.cells")
    if not file.exists():
        cells.append("not run")
        continue
    fsc, error, time = (part.strip() for part in file.read_text().split(" | "))
    cells.append(fsc + (f", {error}" if error else ""))
    seconds[column] = float(time)
ratios = [f"{seconds[column] / seconds['none']:.2f}" if {column, "none"} <= seconds.keys() else "" for column in ("refined", "relion")]
Path(work, f"{name}.row").write_text(f"| {name} | {' | '.join(cells + ratios)} |\n")
END
    cat "$work/$name.row"
}

each_row "$all" run_row "$@"

{
    echo "# Refinement"
    echo
    echo "Written by \`benches/refine.sh\` on $(machine). Cells that were not run on that date are from earlier runs; \"not run\": never."
    echo
    echo "Sets, with the standard deviations of the errors of the written metadata (poses about each axis, shifts along each axis, defoci):"
    echo
    awk 'NF { printf "- %s: %s%s; %s px of %s A, %s particles at SNR %s; %s degrees, %s px, %s A\n", $1, $2,
        $3 == "C1" ? "" : ", " $3, $4, $5, $6, $7, $9, $10, $11 }' <<<"$all"
    echo
    echo "Cells: FSC of half map 1 against the truth, means over the shells below Nyquist, without a mask | in the automatic mask of the" \
        "truth; median error of the poses in degrees, modulo the point group (of defoci in A). Columns:"
    echo
    echo "- none: \`train\`; refined: \`train --refine all\`; right: \`train\` with the right poses, shifts and defoci, on the same images." \
        "All with two halves and otherwise default options."
    echo "- RELION: \`relion_refine_mpi --auto_refine\` with local searches from the first iteration on (orders of \`healpix_order\` in the" \
        "script), from a reconstruction with the same wrong poses, low-pass filtered at five pixels; its unfiltered half map."
    echo "- Times: CPU seconds of the refined run, and of RELION, over those of the run without."
    echo
    echo "| Set | None | Refined | RELION | Right | Time, refined | Time, RELION |"
    echo "|---|--:|--:|--:|--:|--:|--:|"
    written_rows "$all" "$work" "$results"
} >"$work/table.md"
mv "$work/table.md" "$results"
say "wrote $results"
