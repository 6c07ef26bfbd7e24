#!/usr/bin/env bash
# Compares the time that `train --dry-run` and `train` estimate with the time that the run takes, on simulated particles of several
# boxes, numbers of particles and options. Writes benches/results/estimate.md.
#
#   benches/estimate.sh [RUN...]    all, or some of the names below; other rows of the table are kept
#
# CRYOSPLAT=PROGRAM               the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name, set, ranks, options of train.
all="
32px-300 box32 1
48px-1000 box48 1
64px-2000 box64 1
96px-1000 box96 1 --epochs 20 --mixtures 1
64px-2000-2ranks box64 2
64px-2000-short box64 1 --epochs 12 --mixtures 1 --no-diagnosis
40px-800 box40 1
56px-1500 box56 1
56px-1500-gaussians box56 1 --gaussians 900 --epochs 30 --mixtures 2
64px-1000-D2 d2 1 --symmetry D2
48px-700-C3 c3 1 --symmetry C3
128px-600 box128 1 --epochs 10 --mixtures 1
48px-1000-refine box48 1 --refine all
80px-700-2ranks box80 2 --epochs 40 --mixtures 2
"
# The runs that the constants of the estimate were chosen on.
chosen=" 32px-300 48px-1000 64px-2000 96px-1000 64px-1000-D2 "
# Name, box, pixel size in A, particles, SNR, specimen.
simulated="
box32 32 6 300 0.1 --phantom
box48 48 5 1000 0.1 --phantom
box64 64 4 2000 0.05 --phantom
box96 96 3 1000 0.1 --phantom
box40 40 8 800 0.05 --model target/demo/4v5d.cif
box56 56 6 1500 0.1 --model target/demo/4v5d.cif
box80 80 5 700 0.2 --model target/demo/4v5d.cif
d2 64 4 1000 0.05 --phantom --symmetry D2 --unit-at 45,25,30
c3 48 5 700 0.1 --phantom --symmetry C3 --unit-at 45,25,30
box128 128 3 600 0.1 --phantom
"
program=$(realpath "${CRYOSPLAT:-target/release/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: make build"
results=benches/results/estimate.md
work=$sets/estimate
mkdir -p "$work"
load=$(load)

# particles NAME: makes the set, once.
particles() {
    local fields
    read -ra fields <<<"$(awk -v name="$1" '$1 == name' <<<"$simulated")"
    [ ! -f "$work/$1.h5" ] || return 0
    [ "${fields[5]}" != --model ] || tests/demo/model.sh "$(basename "${fields[6]}")"
    "$program" --log-level error simulate "${fields[@]:5}" -o "$work/$1.h5" --box "${fields[1]}" --pixel-size "${fields[2]}" \
        --particles "${fields[3]}" --snr "${fields[4]}" --seed 3 >/dev/null
}

# measure NAME SET RANKS OPTION...: the row of a run.
measure() {
    local set=$2 ranks=$3 run=$work/run
    local launch=()
    [ "$ranks" = 1 ] || launch=(run_ranks "$ranks")
    particles "$set"
    "${launch[@]}" "$program" --log-level error train "$work/$set.h5" --dry-run --json --device cpu "${@:4}" >"$work/dry.json"
    "${launch[@]}" "$program" --log-level error train "$work/$set.h5" -o "$run" --overwrite --device cpu "${@:4}" 2>/dev/null
    local fitted=-
    [[ "$chosen" != *" $1 "* ]] || fitted=yes
    jq -rn --arg name "$1" --arg fitted "$fitted" --arg ranks "$ranks" --arg options "${*:4}" --slurpfile dry <(sed -n '/^{/,$p' "$work/dry.json") \
        --slurpfile run "$run/run.json" '
        def one: (. * 10 | round) / 10;
        def ratio($by): (. / $by * 100 | round) / 100;
        ($run[0].estimate) as $estimate | ($run[0].seconds) as $took |
        def pair($part): "\($estimate[$part] | one) / \($took[$part] | one)";
        "| \($name) | \($fitted) | \($ranks) | \(if $options == "" then "-" else "`\($options)`" end) | \($dry[0].seconds.total | one) | \($estimate.total | one) | \($took.total | one) | "
        + "\($dry[0].seconds.total | ratio($took.total)) | \($estimate.total | ratio($took.total)) | "
        + ([pair("training"), pair("refining"), pair("diagnosis"),
            "\($estimate.cross_validation + $estimate.outputs | one) / \($took.cross_validation + $took.outputs | one)"] | join(" | ")) + " |"' \
        >"$work/$1.row"
    cat "$work/$1.row"
}

each_row "$all" measure "$@"
table=$(while read -r name _; do [ -z "$name" ] || rows_of "$name" "$work" "$results"; done <<<"$all")
{
    echo "# Estimated and measured time of a run"
    echo
    echo "Written by \`make estimate-table\` on $(machine). Rows of runs that were not repeated on that date are from earlier runs."
    remark_load "$load"
    echo
    echo "Seconds: of the estimate of \`train --dry-run\`, of the estimate in the log of \`train\` (\`estimate\` in run.json), and of the run. Then the estimates over the time taken, and parts of a run as estimated / measured. The constants of src/train/estimate.rs, src/train/pace.rs and src/diagnose/cost.rs were chosen on some of the runs; the others confirm them. No time was measured on a GPU."
    echo
    echo "| Run | Constants chosen on it | Ranks | Options | Dry run | Log | Took | Dry run / took | Log / took | Training | Refinement | Diagnosis | Cross-validation and outputs |"
    echo "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    echo "$table"
} >"$results.part"
mv "$results.part" "$results"
echo "$results"
