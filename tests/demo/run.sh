#!/usr/bin/env bash
# The demonstration: a particle set of the 70S ribosome with a known truth, both half maps from it over MPI, their FSC.
# Everything lands in demo/. Again: the particles are kept, the training starts anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=${CRYOSPLAT:-target/release/cryosplat-mpi}
particles=demo/particles.h5
truth=demo/particles_truth.mrc
settings=(--box 64 --pixel-size 6.0 --particles 10000 --snr 0.1 --seed 1)

mkdir -p demo
if tests/demo/model.sh; then
    source=(--model target/demo/4v5d.cif)
    say "demo: the truth is the 70S ribosome (4v5d.cif)"
else
    source=(--phantom)
    say "demo: the ribosome's model cannot be had (see above): the built-in phantom takes its place"
fi

# Particles of the same options and program are kept. The record is written last, so it stands for complete files.
record="${source[*]} ${settings[*]} $("$program" --version)"
if [ -f "$particles" ] && [ -f "$truth" ] && [ "$(cat demo/simulated.txt 2>/dev/null)" = "$record" ]; then
    say "demo: keeping $particles"
else
    rm -f demo/simulated.txt
    say "demo: simulating 10,000 particles"
    "$program" simulate "${source[@]}" -o "$particles" "${settings[@]}"
    echo "$record" >demo/simulated.txt
fi

rm -rf demo/run
say "demo: training both half maps on 2 MPI ranks; some minutes on two cores"
run_ranks 2 "$program" train "$particles" -o demo/run --gaussians 5120 --truth "$truth"

echo
echo "The FSC of the two half maps (their resolution is where it falls below 0.143):"
"$program" fsc demo/run/half1.mrc demo/run/half2.mrc
echo
echo "The FSC of the map against the truth, which only a simulation has:"
"$program" fsc demo/run/map.mrc "$truth"
echo
echo "Look at:"
echo "  demo/run/report.html   the run on one page"
echo "  demo/run/fsc.png       the FSC curves"
echo "  demo/run/slices.png    slices of the maps"
echo "  demo/run/map.mrc       the map, for ChimeraX or RELION"
