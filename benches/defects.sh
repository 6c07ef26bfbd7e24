#!/usr/bin/env bash
# Compares `train` with and without what it can take into account of noise, contrast and images without a particle, on sets with
# such defects and on sets without. Writes benches/results/defects.md. Two idle cores need about twenty minutes.
#
#   benches/defects.sh [ROW...]     all, or some of the rows (SET+VARIANT); other rows of the table are kept
#
# CRYOSPLAT=PROGRAM         the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name; model, box, pixel size in A, particles, signal-to-noise ratio; defects (options of simulate).
sets_table="
groups 4v5d.cif 64 6 2000 0.05 --noise-groups 1,4 --noise-spectrum white,measured
coloured 4v5d.cif 64 6 2000 0.05 --noise-spectrum measured
contrast 4v5d.cif 64 6 2000 0.05 --contrast-spread 0.3
junk 4v5d.cif 64 6 2000 0.05 --junk 0.2
all 4v5d.cif 64 6 2000 0.05 --noise-groups 1,4 --noise-spectrum white,measured --contrast-spread 0.3 --junk 0.2 --pose-error 1 --shift-error 0.4 --defocus-error 200
ribosome64-1000 4v5d.cif 64 6 1000 0.1
ribosome64-1000-snr0.01 4v5d.cif 64 6 1000 0.01
apoferritin64-2000 6z6u.pdb 64 3 2000 0.05
6qt9-64-2000 6qt9.cif 64 7 2000 0.05
"
# What train takes into account.
variants="none noise contrast weights together"
epochs=30

# options_of VARIANT: its options of train.
options_of() {
    case $1 in
    none) echo "--noise white --contrast one --weigh-particles=no" ;;
    noise) echo "--noise spectrum --contrast one --weigh-particles=no" ;;
    contrast) echo "--noise white --contrast estimated --weigh-particles=no" ;;
    weights) echo "--noise white --contrast one --weigh-particles" ;;
    together) echo "--noise spectrum --contrast estimated --weigh-particles" ;;
    *) stop "no variant is named $1" ;;
    esac
}

work=target/defects
results=benches/results/defects.md
prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
mkdir -p "$work"

# run_row NAME: trains half 1 of a set on one thread, and writes its row to $work/NAME.row.
run_row() {
    local name=$1 run=$work/$1 fields options
    read -ra fields <<<"$(awk -v name="${name%+*}" '$1 == name' <<<"$sets_table")"
    [ "${#fields[@]}" -gt 0 ] || stop "no set is named ${name%+*}"
    read -ra options <<<"$(options_of "${name#*+}")"
    say "== $name"
    make_set "defects-${fields[0]}" "${fields[@]:1:5}" "" "${fields[@]:6}"
    "$program" --log-level error train "$set/particles.h5" -o "$run" --overwrite --half 1 --threads 1 --voxel-particles 0 \
        --epochs "$epochs" --truth "$set/truth.mrc" "${options[@]}"
    rm -rf "$run/checkpoints"
    "$program" --log-level error fsc "$run/half1.mrc" "$set/truth.mrc" --reference --mask "$set/mask.mrc" --json >"$run/truth.json"
    "$python" - "$name" "$run" "${fields[*]:6}" >"$work/$name.row" <<'END'
import json
import sys

name, folder, defects = sys.argv[1:]
with open(f"{folder}/truth.json") as file:
    curves = {curve["label"]: curve["mean"] for curve in json.load(file)["curves"]}
cells = " | ".join(f"{value:.4f}" for value in list(curves.values())[:2])
print(f"| {name} | {defects or 'none'} | {cells} |")
END
    cat "$work/$name.row"
}

rows=
while read -r name _; do
    for variant in $variants; do
        [ -z "$name" ] || rows+="$name+$variant"$'\n'
    done
done <<<"$sets_table"
each_row "$rows" run_row "$@"

{
    echo "# Noise, contrast and weights in the loss"
    echo
    echo "Written by \`make defects-table\` on $(machine): \`train --half 1 --epochs $epochs\`. Rows that were not run on that date" \
        "are from earlier runs."
    echo
    echo "FSC of the map of half 1 against the truth: means over the shells below Nyquist, without a mask and in the automatic mask" \
        "of the truth. After \"+\": what the loss takes into account. \"noise\": \`--noise spectrum\`; \"contrast\":" \
        "\`--contrast estimated\`; \"weights\": \`--weigh-particles\`; \"together\": all three."
    echo
    echo "| Set | Defects | FSC | FSC, mask |"
    echo "|---|---|--:|--:|"
    written_rows "$rows" "$work" "$results"
} >"$work/table.md"
mv "$work/table.md" "$results"
say "wrote $results"
