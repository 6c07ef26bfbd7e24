#!/usr/bin/env bash
# Varies one setting at a time, for both recipes, on sets with a known truth. Writes benches/results/ablations.md, with the
# statements of the paper on each setting (ablations_paper.py). Two idle cores need about an hour.
#
#   benches/ablations.sh [ROW...]     all, or some of the names below; other rows of the table are kept
#
# ABLATIONS_RECIPES=scaled  one of the recipes: the rows of the other are kept
# ABLATIONS_PARTICLES=N     particles per set, for a trial of the script: the table then goes to target/ablations-trial/
# CRYOSPLAT=PROGRAM         the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name; signal-to-noise ratio in dB; options of train that replace those of the base (--gaussians 5120 --epochs 5).
rows="
base -10
gaussians-2048 -10 --gaussians 2048
gaussians-10240 -10 --gaussians 10240
gaussians-20480 -10 --gaussians 20480
gaussians-30000 -10 --gaussians 30000
epochs-1 -10 --epochs 1
epochs-2 -10 --epochs 2
epochs-3 -10 --epochs 3
epochs-4 -10 --epochs 4
snr-0 0
snr-5 -5
snr-15 -15
snr-20 -20
isotropic -10 --isotropic
one-rate -10 --rate-factors 1,1,1,1
rate-by-kind -10 --rate-factors 1,0.3,1,10
weights-uniform -10 --weighting uniform
weights-ctf -10 --weighting ctf
image-centred -10
densified -10 --densify 2
"
recipes=${ABLATIONS_RECIPES:-paper scaled}
count=${ABLATIONS_PARTICLES:-10000}
work=target/ablations
results=benches/results/ablations.md
if [ -n "${ABLATIONS_PARTICLES:-}" ]; then
    work=target/ablations-trial
    results=$work/ablations.md
fi
prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
mkdir -p "$work"

# train_on RUN PARTICLES OPTIONS...: both halves, on two ranks.
train_on() {
    local run=$1 particles=$2
    shift 2
    run_ranks 2 "$program" --log-level error train "$particles" -o "$run" --overwrite --voxel-particles 0 "$@"
    rm -rf "$run/checkpoints"
}

# off_centre: sets $particles, the set with every image shifted by half a pixel along x and y, as for a model whose grid has its
# origin between the pixels.
off_centre() {
    local half_pixel=1.885
    particles=$work/off.h5
    "$program" --log-level error export star "$set/particles.h5" -o "$work/off.star"
    awk -v off="$half_pixel" '
        /^data_/ { table = $1 }
        table == "data_particles" && /^_rln/ { labels++; if ($1 ~ /^_rlnOrigin/) skip[labels] = 1 }
        table == "data_particles" && NF > 3 && !/^_rln/ {
            if (!printed) { print "_rlnOriginXAngst"; print "_rlnOriginYAngst"; printed = 1 }
            line = ""
            for (i = 1; i <= NF; i++) if (!skip[i]) line = line " " $i
            print line, off, off
            next
        }
        table == "data_particles" && /^_rlnOrigin/ { next }
        { sub(/ #[0-9]+ *$/, ""); print }' "$work/off.star" >"$work/off2.star"
    "$program" --log-level error import "$work/off2.star" -o "$particles" --no-normalize
}

# run_row NAME DB OPTIONS...: runs both recipes, and writes their rows to $work/NAME.row.
run_row() {
    local name=$1 db=$2 recipe run options particles kept
    shift 2
    say "== $name"
    local tag=ribosome128-ablation$db
    [ "$count" -eq 10000 ] || tag=$tag-$count
    make_set "$tag" 4v5d.cif 128 3.77 "$count" "${db}dB"
    particles=$set/particles.h5
    [ "$name" != image-centred ] || off_centre
    kept=$(rows_of "$name" "$work" "$results")
    for recipe in paper scaled; do
        if [[ " $recipes " != *" $recipe "* ]]; then
            grep -F "| $recipe |" <<<"$kept" || true
            continue
        fi
        run=$work/$name-$recipe
        options=(--recipe "$recipe" "$@")
        [[ " $* " == *" --gaussians "* ]] || options+=(--gaussians 5120)
        [[ " $* " == *" --epochs "* ]] || options+=(--epochs 5)
        train_on "$run" "$particles" "${options[@]}"
        "$program" --log-level error fsc "$run/half1.mrc" "$set/truth.mrc" --reference --json >"$run/truth.json"
        "$program" --log-level error fsc "$run/half1.mrc" "$run/half2.mrc" --voxels "$set/voxels" --json >"$run/halves.json"
        "$program" --log-level error fsc "$set/voxels/half1.mrc" "$set/truth.mrc" --reference --json >"$run/voxels.json"
        "$python" benches/ablation_row.py "$name" "$db" "$recipe" "$run"
    done >"$work/$name.row"
    cat "$work/$name.row"
}

each_row "$rows" run_row "$@"

mkdir -p "$(dirname "$results")"
{
    echo "# One setting at a time"
    echo
    echo "Written by \`make ablations\` on $(machine)," \
        "\`mpirun -n 2 cryosplat-mpi train SET --recipe RECIPE --gaussians 5120 --epochs 5\` and the options of the row; 70S ribosome," \
        "128 px of 3.77 A, $count particles. Rows that were not run on that date are from earlier runs."
    echo
    echo "Mean FSC over the shells below Nyquist, without a mask: half map 1 against the truth; between the half maps; cross-validated," \
        "over the shells that the voxel maps reach (\"to\", in A). Resolutions in A: against the truth at 0.5, half maps at 0.143." \
        "Voxels: half 1 of \`backproject --no-wiener\` against the truth."
    echo
    echo "| Row | SNR, dB | Recipe | Gaussians | Passes | Truth | at 0.5 | Half maps | at 0.143 | Cross-validated | to | Voxels |"
    echo "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    written_rows "$rows" "$work" "$results"
} >"$work/table.md"
"$python" benches/ablations_paper.py "$work/table.md" >"$work/paper.md"
{ cat "$work/table.md" && echo && cat "$work/paper.md"; } >"$work/all.md"
mv "$work/all.md" "$results"
say "wrote $results"
