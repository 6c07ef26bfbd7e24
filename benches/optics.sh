#!/usr/bin/env bash
# What a beam tilt costs, and what taking it back returns: maps of simulated particles against the truth. Writes
# benches/results/optics.md. Needs relion_reconstruct for one of its rows.
#
#   benches/optics.sh
#
# CRYOSPLAT=PROGRAM            the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

prepare_sets "$(realpath "${CRYOSPLAT:-target/release/cryosplat-mpi}")"
results=benches/results/optics.md
set=$sets/optics
python=$(realpath --no-symlinks "$python")
model=6z6u.pdb
tests/demo/model.sh "$model"
rm -rf "$set"
mkdir -p "$set"

# against MAP: mean FSC against the truth below Nyquist, without and with the mask.
against() {
    against_truth "$1" "$1" | awk -F ' [|] ' '{ print $2 " | " $4 }'
}
# voxels FILE.star: imports and reconstructs.
voxels() {
    "$program" --log-level warn import "$1" -o "$set/imported.h5" --no-normalize
    rm -rf "$set/voxels"
    run_ranks 2 "$program" --log-level warn backproject "$set/imported.h5" -o "$set/voxels" --no-wiener
    against "$set/voxels/map.mrc"
}

"$program" --log-level warn simulate --model "target/demo/$model" -o "$set/straight.h5" --truth "$set/truth.mrc" \
    --star "$set/images" --box 64 --pixel-size 3 --particles 3000 --snr 0.05 --seed 3
"$program" --log-level error fsc "$set/truth.mrc" "$set/truth.mrc" --mask auto --mask-output "$set/mask.mrc" >/dev/null
# The tilt is put into the images with numpy, independently of the program. One STAR file has its columns, the other does not.
cp "$set/images/particles.mrcs" "$set/images/tilted.mrcs"
sed 's/@particles.mrcs/@tilted.mrcs/' "$set/images/particles.star" >"$set/images/untold.star"
"$python" tests/judges/optics.py columns "$set/images/untold.star" "$set/images/tilted.star" rlnBeamTiltX=8 rlnBeamTiltY=-5
"$python" tests/judges/optics.py odd "$set/images/tilted.star"
{
    echo "# Beam tilt"
    echo
    echo "Written by \`benches/optics.sh\` on $(machine). Apoferritin ($model), 3,000 images of 64 pixels of 3 A, SNR 0.05;" \
        "beam tilt 8, -5 mrad. FSC against the truth, mean over the shells below Nyquist, without and in a tight mask."
    echo
    echo "| Images | Map | No mask | Mask |"
    echo "|---|---|--:|--:|"
    echo "| without tilt | voxels | $(voxels "$set/images/particles.star") |"
    echo "| tilted, not taken back | voxels | $(voxels "$set/images/untold.star") |"
    if command -v relion_reconstruct >/dev/null; then
        (cd "$set/images" && relion_reconstruct --i tilted.star --o relion.mrc --ctf >/dev/null)
        echo "| tilted, taken back | relion_reconstruct | $(against "$set/images/relion.mrc") |"
    fi
    echo "| tilted, taken back | voxels | $(voxels "$set/images/tilted.star") |"
    "$program" --log-level warn import "$set/images/tilted.star" -o "$set/tilted.h5"
    run_ranks 2 "$program" --log-level warn train "$set/tilted.h5" -o "$set/run" --overwrite
    echo "| tilted, taken back | Gaussians, default recipe | $(against "$set/run/map.mrc") |"
} >"$set/table.md"
mv "$set/table.md" "$results"
say "wrote $results"
