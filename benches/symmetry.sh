#!/usr/bin/env bash
# Compares maps of symmetric particles trained with and without --symmetry, on particles expanded by relion_particle_symmetry_expand,
# and of relion_reconstruct, with the truth. Writes benches/results/symmetry.md.
#
#   benches/symmetry.sh [SET...]    all, or some of the names below; other rows of the table are kept
#
# EXPAND=yes                      also train on expanded particles, which takes |G| times as long
# CRYOSPLAT=PROGRAM               the program to run (default: target/release/cryosplat-mpi)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh
# shellcheck source=benches/sets.sh
. benches/sets.sh

# Name, model, group, centre of the unit in angstrom (-: the model is the whole), box, pixel size in A, particles, SNR.
all="
ferritin 4v1w.cif O - 64 3 600 0.05
c4 6z6u-A.pdb C4 38,0,0 64 2.5 800 0.05
d7 6z6u-A.pdb D7 45,22,28 64 3 600 0.05
tetrahedral 6z6u-A.pdb T 42,20,30 64 2.8 600 0.05
icosahedral 6z6u-A.pdb I 20,35,95 64 4.5 400 0.05
"
prepare_sets "${CRYOSPLAT:-target/release/cryosplat-mpi}"
results=benches/results/symmetry.md
work=$sets/symmetry
mkdir -p "$work"
command -v relion_particle_symmetry_expand >/dev/null || stop "RELION is missing: make setup-tests"

# make_symmetric NAME MODEL GROUP CENTRE BOX PIXEL-SIZE PARTICLES SNR: sets $set, the folder with particles.h5, relion/, truth.mrc,
# mask.mrc and expanded.h5. Made once for each list of parameters.
make_symmetric() {
    local model=$2 group=$3 centre=$4
    local unit=()
    [ "$centre" = - ] || unit=(--symmetry "$group" --unit-at "$centre")
    set=$work/$1
    tests/demo/model.sh "$model"
    if [ "$(cat "$set/made.txt" 2>/dev/null)" = "$*" ]; then
        return
    fi
    rm -rf "$set"
    mkdir -p "$set"
    "$program" --log-level warn simulate --model "target/demo/$model" "${unit[@]}" -o "$set/particles.h5" --star "$set/relion" \
        --truth "$set/truth.mrc" --box "$5" --pixel-size "$6" --particles "$7" --snr "$8" --seed 3
    "$program" --log-level error fsc "$set/truth.mrc" "$set/truth.mrc" --mask auto --mask-output "$set/mask.mrc" >/dev/null
    (
        cd "$set/relion"
        relion_particle_symmetry_expand --i particles.star --o expanded.star --sym "$group" >expand.log
        relion_reconstruct --i particles.star --o reconstructed.mrc --ctf --sym "$group" >reconstruct.log
    )
    "$program" --log-level error import "$set/relion/expanded.star" -o "$set/expanded.h5" >/dev/null
    echo "$*" >"$set/made.txt"
}

# cell MAP: mean FSC of a map against the truth over the shells below Nyquist, without a mask and in the mask of the truth.
cell() {
    "$python" tests/judges/maps.py win "$set/truth.mrc" "$set/mask.mrc" "$1" "$1" | awk -F ' [|] ' '{ print $1 " \\| " $3 }'
}

# trained KIND PARTICLES OPTION...: the row of a training run.
trained() {
    local kind=$1 particles=$2 start seconds
    shift 2
    start=$(date +%s.%N)
    run_ranks 2 "$program" --log-level warn train "$particles" -o "$set/run" --overwrite --voxel-particles 0 "$@"
    seconds=$(seconds_since "$start")
    echo "| $name | $kind | $(cell "$set/run/map.mrc") | $("$python" - "$set/run/run.json" <<'END'
import json
import sys

with open(sys.argv[1]) as file:
    run = json.load(file)
mixtures, gaussians, epochs = (run["settings"][name] for name in ("mixtures", "gaussians", "epochs"))
mixtures = f"{mixtures} x " if mixtures > 1 else ""
passes = run["particles"]["models"][0]["particles"] * epochs
print(f"{mixtures}{gaussians:,} | {passes:,} | {run['images_per_second']:.0f}")
END
) | $seconds |"
    rm -rf "$set/run/checkpoints"
}

# drawn: Gaussians of the whole in the last run.
drawn() {
    "$python" - "$set/run/run.json" <<'END'
import json
import sys

orders = {"T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
with open(sys.argv[1]) as file:
    settings = json.load(file)["settings"]
group = settings["symmetry"]
order = orders.get(group) or int(group[1:]) * (2 if group[0] == "D" else 1)
print(settings["gaussians"] * order)
END
}

# run_set NAME MODEL GROUP CENTRE BOX PIXEL-SIZE PARTICLES SNR: its rows, in $work/NAME.row.
run_set() {
    local name=$1 group=$3 whole
    say "== $name"
    make_symmetric "$@"
    {
        trained "\`--symmetry $group\`" "$set/particles.h5" --symmetry "$group"
        whole=$(drawn)
        trained "without symmetry" "$set/particles.h5"
        trained "without symmetry, as many Gaussians drawn, two epochs" "$set/particles.h5" --gaussians "$whole" --epochs 2
        [ -z "${EXPAND:-}" ] || trained "expanded by hand" "$set/expanded.h5"
        echo "| $name | relion_reconstruct --sym $group | $(cell "$set/relion/reconstructed.mrc") | | | | |"
    } >"$work/$name.row"
    cat "$work/$name.row"
}

each_row "$all" run_set "$@"

{
    echo "# Symmetric particles"
    echo
    echo "Written by \`make symmetry-table\` on $(machine), \`mpirun -n 2 cryosplat-mpi train SET\`. Rows of sets that were not run" \
        "on that date are from earlier runs."
    echo
    echo "Sets:"
    echo
    awk 'NF { printf "- %s: %s, %s%s; %s px of %s A, %s particles at SNR %s\n", $1, $2, $3,
        $4 == "-" ? " (the model is the whole)" : ", one chain centred at (" $4 ") A", $5, $6, $7, $8 }' <<<"$all"
    echo
    echo "FSC of the mean of both half maps against the truth: means over the shells below Nyquist, without a mask | in the automatic" \
        "mask of the truth. Gaussians and passes are those of a half, with symmetry those of the asymmetric unit. Expanded by hand:" \
        "relion_particle_symmetry_expand, \`import\`, \`train\` without symmetry; a pass is one over the expanded particles."
    echo
    echo "| Set | Map | FSC | Gaussians | Passes | Images/s | Seconds |"
    echo "|---|---|--:|--:|--:|--:|--:|"
    written_rows "$all" "$work" "$results"
} >"$work/table.md"
mv "$work/table.md" "$results"
say "wrote $results"
