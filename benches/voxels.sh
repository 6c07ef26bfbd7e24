#!/usr/bin/env bash
# Compares `backproject` with `relion_reconstruct --ctf`: FSC of both maps against the truth and images per second of one core, on 10,000 images of the 70S ribosome in boxes of 64 and 128 px (6 and 3 A, SNR 0.1). Writes benches/results/voxels.md.
# RELION must be there (make setup-tests). Two idle cores need about five minutes.
#
#   benches/voxels.sh [BOX...]       both, or some of: 64 128
#
# RIBOSOME64=DIR, RIBOSOME128=DIR   take a set from DIR (particles.star with its stack, truth.mrc) instead of simulating it
# CRYOSPLAT=PROGRAM                 the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

work=target/voxels
results=benches/results/voxels.md
# The number that ribosome_set makes.
images=10000
pairs=3
boxes=("$@")
[ "$#" -gt 0 ] || boxes=(64 128)

prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
command -v relion_reconstruct >/dev/null || stop "relion_reconstruct is not there: make setup-tests"
mkdir -p "$work"

# core_seconds LOG COMMAND...: CPU time of the command and its children, which other programs on the machine hardly affect. Its
# output goes to LOG.
core_seconds() {
    local log=$1 TIMEFORMAT='%U %S'
    shift
    { time "$@" >"$log" 2>&1 </dev/null || stop "failed, see $log: $*"; } 2>&1 | awk 'NF == 2 { print $1 + $2 }'
}

ours() { core_seconds "$work/ours.log" "$program" backproject "$work/particles$box.h5" --threads 1 --overwrite "$@"; }
# RELION finds images from the folder it runs in.
theirs() {
    (cd "$set_folder" && core_seconds "$here/relion.log" relion_reconstruct --i particles.star --o "$here/relion$box.mrc" --ctf)
}

here=$(realpath "$work")
for box in "${boxes[@]}"; do
    ribosome_set "$box" "$box"
    say "== $box px"
    echo "- $box px: $origin" >"$work/$box px.origin"
    # RELION does not normalise images.
    "$program" --log-level warn import "$set_folder/particles.star" -o "$work/particles$box.h5" --no-normalize
    for _ in $(seq "$pairs"); do
        plain=$(ours -o "$work/plain$box" --no-wiener)
        relion=$(theirs)
        echo "$plain $relion"
    done | tee "$work/pairs$box"
    ours -o "$work/filtered$box" >/dev/null
    # The pair with the median ratio.
    rates=$(awk -v n="$images" '{ print $2 / $1, n / $1, n / $2 }' "$work/pairs$box" | sort -n |
        awk -v middle=$(((pairs + 1) / 2)) 'NR == middle { printf "%.0f | %.0f | %.1f", $2, $3, $1 }')
    cells=$("$python" tests/judges/maps.py beside "$set_folder/truth.mrc" "$work/plain$box/map.mrc" "$work/relion$box.mrc" \
        --within 0.005 --cells)
    filtered=$("$python" tests/judges/maps.py mean "$set_folder/truth.mrc" "$work/filtered$box/map.mrc" | sed 's/ |.*//')
    echo "| $box px | $cells | $filtered | $rates |" | tee "$work/$box px.row"
done

{
    echo "# Voxel maps compared with RELION"
    echo
    echo "Written by \`make voxels\` on $(machine)," \
        "relion_reconstruct $(relion_reconstruct --version 2>/dev/null | sed -n 's/^RELION version: \([^ ]*\).*/\1/p')."
    echo
    echo "The particles:"
    echo
    for box in 64 128; do
        cat "$work/$box px.origin" 2>/dev/null || grep "^- $box px: " "$results" 2>/dev/null || true
    done
    echo
    echo "FSC: mean Fourier shell correlation with the true map over the shells below Nyquist, without a mask. Images/s of one" \
        "core: $images images divided by the CPU time of the whole program, with one thread. \`backproject\` makes three maps (both" \
        "halves and all particles) and the report in this time, \`relion_reconstruct\` makes one map. The programs ran alternately," \
        "$pairs times; the table gives the pair with the median ratio."
    echo
    echo "| 10,000 images | \`backproject --no-wiener\`, mean FSC | \`relion_reconstruct --ctf\`, mean FSC |" \
        "Largest difference in a shell | \`backproject\`, mean FSC | \`backproject --no-wiener\`, images/s |" \
        "\`relion_reconstruct\`, images/s | Ratio |"
    echo "|---|--:|--:|--:|--:|--:|--:|--:|"
    for box in 64 128; do
        rows_of "$box px" "$work" "$results"
    done
} >"$work/table.md"
mkdir -p "$(dirname "$results")"
mv "$work/table.md" "$results"
say "wrote $results"
