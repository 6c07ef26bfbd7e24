#!/usr/bin/env bash
# Counts the findings of `diagnose`: on sound sets, where each is a false alarm, and on sets with a fault made on purpose, where it has to be
# named. Writes benches/results/diagnose.md. Two idle cores need about an hour.
#
#   benches/diagnose.sh [ROW...]    all runs, or some (SET or BASE/FAULT); runs that exist are kept. The row "diagnose" diagnoses all runs that
#                                   exist, and "tables" writes the tables
#
# Thresholds are chosen on the sets and faults of group A. Those of group B, of other specimens, confirm them.
#
# CRYOSPLAT=PROGRAM         the program to run (default: target/release/cryosplat-mpi)
# WORK=FOLDER               sets and runs (default: target/diagnose): sound/NAME and fault/NAME, each with particles.h5, truth.mrc and run/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

# Sound sets. Name (its first letter is the group); model, box, pixel size in A, particles, signal-to-noise ratio; options of simulate; after
# "--" those of train. Some have the small defects that every real set has.
sounds="
a01-phantom phantom 32 6 1000 0.1 --defocus-median 20000
a02-ribosome 4v5d.cif 48 8 1200 0.05
a03-hexon 6qt9-A.cif 32 4 800 0.1 --pose-error 0.5 --shift-error 0.3 --contrast-spread 0.1
a04-rna 4v5d-A.cif 40 8 1000 0.1 --defocus-median 12000
a05-ferritin-o 4v1w-A.cif 32 6 500 0.05 --symmetry O --unit-at 45,25,18 -- --symmetry O
a06-d7 4v1w-A.cif 40 4 600 0.1 --symmetry D7 --unit-at 45,0,25 -- --symmetry D7
a07-few phantom 64 3 500 0.3 --defocus-spread 0.15
a08-c3 6qt9-D.cif 48 4.5 1000 0.02 --symmetry C3 --unit-at 45,0,0 -- --symmetry C3
a09-many 6qt9-G.cif 32 4.5 4000 0.05 --contrast-spread 0.1 --shift-error 0.3
a10-coloured 4v5d.cif 40 9 1500 0.1 --noise-spectrum measured --pose-error 0.5 -- --noise spectrum
b01-spliceosome 3jb9.cif 48 7.5 1200 0.1
b02-rna 4v5d-JA.cif 40 8 800 0.1
b03-prp8 3jb9-Apoly.cif 32 7.5 1000 0.05 --pose-error 0.5 --shift-error 0.3 --contrast-spread 0.1
b04-small 4v1w-A.cif 32 2.5 1500 0.1 --defocus-median 12000
b05-snu114 3jb9-Bpoly.cif 40 4.5 900 0.3 --defocus-spread 0.15
b06-d2 3jb9-Rpoly.cif 40 6.6 600 0.1 --symmetry D2 --unit-at 30,0,28 -- --symmetry D2
b07-phantom phantom 48 5 700 0.2 --defocus-median 25000
b08-icosahedral 4v1w-A.cif 48 8 500 0.05 --symmetry I --unit-at 0,70,112 -- --symmetry I
b09-low 3jb9-Apoly.cif 40 6 3000 0.02 --contrast-spread 0.1
b10-coloured 3jb9.cif 32 11 2000 0.2 --noise-spectrum measured --shift-error 0.3 -- --noise spectrum
b11-ribosome 4v5d.cif 32 12 600 0.2
b12-hexon 6qt9-D.cif 32 5 1000 0.05
b13-phantom phantom 40 4 600 0.1 --max-shift 1
b14-rna 4v5d-JA.cif 32 10 1500 0.03 --pose-error 0.5
b15-hexon 6qt9-G.cif 36 4 700 0.15 --preference 0.7
b16-t 4v1w-A.cif 32 6 500 0.1 --symmetry T --unit-at 40,20,30 -- --symmetry T
"
# Sets that faults are made of: for each group a smaller and a larger one.
bases="
a1 6qt9-A.cif 32 4 800 0.1
a2 4v5d-A.cif 32 9 2000 0.1
b1 3jb9-Bpoly.cif 32 5.5 800 0.1
b2 4v5d-JA.cif 32 9 2000 0.1
"
# Faults: name, size; how it is made. "edit" changes metadata or the stack, the other words are options of simulate, import or train.
faults="
poses-1 edit poses 1
poses-3 edit poses 3
poses-5 edit poses 5
origins-sign edit origins -1
origins-none edit origins 0
origins-twice edit origins 2
defocus-1.3 edit defocus 1.3
defocus-1.6 edit defocus 1.6
defocus-0.7 edit defocus 0.7
pixel-size-1.1 edit pixel-size 1.1
pixel-size-0.5 edit pixel-size 0.5
pixel-size-2 edit pixel-size 2
contrast-inverted import --invert
cone-top-60 select z 60
cone-top-45 select z 45
cone-top-30 select z 30
cone-side-45 select x 45
small-64 train --gaussians 64 --epochs 1 --mixtures 1
small-200 train --gaussians 200 --epochs 3 --mixtures 1
small-epochs train --epochs 2
transposed edit transposed 0
flipped edit flipped 0
phase-flipped edit phase-flipped 0
voltage-200 edit voltage 200
voltage-120 edit voltage 120
junk-0.3 simulate --junk 0.3
junk-0.5 simulate --junk 0.5
symmetry-unused simulate --symmetry C3 --unit-at 35,0,0
symmetry-c2-wrong train --symmetry C2
symmetry-d3-wrong train --symmetry D3
copies edit copies 0
noise-coloured simulate --noise-spectrum measured
noise-steep simulate --noise-spectrum SPECTRUM
phase-plate edit phase-plate 0
"

program=$(realpath "${CRYOSPLAT:-target/release/cryosplat-mpi}")
work=${WORK:-target/diagnose}
results=benches/results/diagnose.md
[ -x "$program" ] || stop "$program is not there: make build"
make_venv target/judges-venv tests/judges/requirements.txt || stop "pip could not install mrcfile and numpy"
python=target/judges-venv/bin/python
mkdir -p "$work/sound" "$work/fault"
# A spectrum that falls sixteenfold.
awk 'BEGIN { for (k = 0; k <= 16; k++) print 16 / (1 + 15 * k / 16) }' >"$work/spectrum.txt"
quiet=(--log-level error)

# simulate_set FOLDER MODEL BOX PIXEL-SIZE PARTICLES SNR [OPTION...]: a set for RELION in FOLDER.
simulate_set() {
    local folder=$1 source=(--phantom)
    if [ "$2" != phantom ]; then
        [ -f "target/demo/$2" ] || tests/demo/model.sh "$2" || stop "$2 is not available"
        source=(--model "target/demo/$2")
    fi
    "$program" "${quiet[@]}" simulate "${source[@]}" -o "$folder/simulated.h5" --star "$folder" --box "$3" --pixel-size "$4" -n "$5" --snr "$6" \
        --seed 5 "${@:7}" </dev/null
    rm -f "$folder/simulated.h5"
}

# train_set FOLDER STAR PARTICLES [OPTION...]: imports FOLDER/STAR and trains on it. An option --invert is one of import. The model of a half
# sees 20,000 images, a fifth of the default.
train_set() {
    local folder=$1 star=$2 choice=() epochs=$((40000 / $3))
    shift 3
    if [ "${1:-}" = --invert ]; then
        choice=(--invert)
        shift
    fi
    "$program" "${quiet[@]}" import "$folder/$star" -o "$folder/particles.h5" "${choice[@]}" </dev/null >"$folder/import.log"
    [[ " $* " == *" --epochs "* ]] || set -- "$@" --epochs "$((epochs > 100 ? 100 : epochs))"
    "$program" "${quiet[@]}" train "$folder/particles.h5" -o "$folder/run" --overwrite --threads 1 "$@" </dev/null
    rm -rf "$folder/run/checkpoints" "$folder"/*.mrcs "$folder/simulated_truth.mrc"
}

# claim FOLDER: makes the folder of a run; fails if it exists, or if another copy of this script is making it.
claim() { [ ! -f "$1/done" ] && mkdir "$1" 2>/dev/null; }

run_sound() {
    local folder=$work/sound/$1 simulate=() word
    claim "$folder" || return 0
    shift
    while [ "$#" -gt 0 ]; do
        word=$1
        shift
        [ "$word" != -- ] || break
        simulate+=("$word")
    done
    say "== ${folder##*/}"
    simulate_set "$folder" "${simulate[@]}"
    train_set "$folder" particles.star "${simulate[3]}" "$@"
    touch "$folder/done"
}

# run_fault BASE/FAULT
run_fault() {
    local folder=$work/fault/${1/\//-} base how simulate=() train=() star=particles.star count
    read -ra base <<<"$(awk -v name="${1%%/*}" '$1 == name' <<<"$bases")"
    read -ra how <<<"$(awk -v name="${1#*/}" '$1 == name' <<<"$faults")"
    if [ "${#base[@]}" -eq 0 ] || [ "${#how[@]}" -lt 2 ]; then stop "no fault is named $1"; fi
    claim "$folder" || return 0
    say "== ${folder##*/}"
    count=${base[4]}
    case ${how[1]} in
    simulate) simulate=("${how[@]:2}") ;;
    import | train) train=("${how[@]:2}") ;;
    # A cone of 30 degrees holds an eighth of all views.
    select) base[4]=$((base[4] * 9)) ;;
    esac
    # Three units need a larger box.
    if [ "${1#*/}" = symmetry-unused ]; then base[3]=$(awk -v size="${base[3]}" 'BEGIN { print 1.4 * size }'); fi
    # The phase plate is that of the images: amplitude contrast 1 is a phase shift of 90 degrees.
    if [ "${how[2]}" = phase-plate ]; then simulate=(--amplitude-contrast 1); fi
    simulate_set "$folder" "${base[@]:1}" "${simulate[@]/SPECTRUM/$work/spectrum.txt}"
    case ${how[1]} in
    edit) "$python" benches/diagnose.py edit "$folder/particles.star" "${how[2]}" "${how[3]}" "$folder/edited.star" && star=edited.star ;;
    select)
        "$python" benches/diagnose.py select "$folder/particles.star" "$count" "${how[2]}" "${how[3]}" "$folder/edited.star"
        star=edited.star
        ;;
    esac
    train_set "$folder" "$star" "$count" "${train[@]}"
    touch "$folder/done"
}

# diagnose_all: diagnoses all runs that exist.
diagnose_all() {
    local finished folder
    for finished in "$work"/{sound,fault}/*/done; do
        [ -f "$finished" ] || continue
        folder=${finished%/done}
        timeout 300 "$program" "${quiet[@]}" diagnose "$folder/run" --json </dev/null >"$folder/diagnosis.part" || stop "diagnose failed: $folder"
        mv "$folder/diagnosis.part" "$folder/diagnosis.json"
    done
}

names() { awk 'NF { print $1 }' <<<"$1"; }

wanted=("$@")
if [ "$#" -eq 0 ]; then
    for base in $(names "$bases"); do
        for fault in $(names "$faults"); do wanted+=("$base/$fault"); done
    done
    mapfile -t -O "${#wanted[@]}" wanted < <(names "$sounds")
    wanted+=(diagnose tables)
fi
# write_tables: writes the tables of all runs with a diagnosis.
write_tables() {
    {
        echo "# Findings of diagnose"
        echo
        echo "Written by \`make diagnose-table\` on $(machine). Sets, faults and the options of each: [diagnose.sh](../diagnose.sh). Every run is" \
            "\`train\` with the default recipe, but a half sees 20,000 images, a fifth of the default. Thresholds were chosen on group A;" \
            "group B has other specimens and confirms them."
        echo
        "$python" benches/diagnose.py tables "$work"
    } >"$work/table.md"
    cp "$work/table.md" "$results"
    say "wrote $results"
}

for row in "${wanted[@]}"; do
    case $row in
    tables) write_tables ;;
    diagnose) diagnose_all ;;
    */*) run_fault "$row" ;;
    *)
        read -ra fields <<<"$(awk -v name="$row" '$1 == name' <<<"$sounds")"
        [ "${#fields[@]}" -gt 0 ] || stop "no set is named $row"
        run_sound "${fields[@]}"
        ;;
    esac
done
