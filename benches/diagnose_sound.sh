#!/usr/bin/env bash
# How often `diagnose` accuses a sound set: many simulated sets of random specimens, boxes, noise, views and small defects, each imported from
# its STAR file and reconstructed by `backproject`, which takes seconds where a training takes minutes. Tests of the model do not apply.
# Prints a line for each set and the rate. Usage: benches/diagnose_sound.sh [SETS [FIRST_SEED]]
# Variables: WORK (folder, default target/diagnose-sound), PROGRAM (default target/release/cryosplat-mpi), MODELS (folder of mmCIF files).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sets=${1:-150} first=${2:-1}
work=${WORK:-target/diagnose-sound}
program=${PROGRAM:-target/release/cryosplat-mpi}
models=${MODELS:-target/demo}
mkdir -p "$work"
shopt -s nullglob
specimens=("$models"/*.cif)

# pick WORD...: one of the words, by the random state of bash.
pick() {
    local words=("$@")
    echo "${words[RANDOM % ${#words[@]}]}"
}

accused=0 made=0
for ((seed = first; seed < first + sets; seed++)); do
    RANDOM=$seed
    box=$(pick 32 40 48 64)
    pixel=$(pick 3 4 5 6)
    specimen=(--phantom)
    if ((${#specimens[@]} > 0 && RANDOM % 2 == 0)); then
        specimen=(--model "$(pick "${specimens[@]}")")
        box=$(pick 48 64)
        # The largest of them is 320 A across.
        pixel=$(pick 7 7.5 8)
    fi
    options=(--box "$box" --pixel-size "$pixel" -n "$(pick 300 600 1000 2000)" --snr "$(pick 0.02 0.05 0.1 0.3)"
        --max-shift "$(pick 0 1 3)" --defocus-median "$(pick 10000 15000 25000)" --astigmatism "$(pick 0 200 600)"
        --pose-error "$(pick 0 0.3 0.5)" --shift-error "$(pick 0 0.2)" --contrast-spread "$(pick 0 0.1)"
        --voltage "$(pick 200 300)" --preference "$(pick 0 0 0.5)" --seed "$seed")
    set=$work/$seed
    rm -rf "$set"
    mkdir -p "$set"
    if ! "$program" --log-level error simulate "${specimen[@]}" "${options[@]}" --star "$set/star" -o "$set/s.h5" >/dev/null 2>"$set/log"; then
        echo "$seed: not made: $(tail -n 1 "$set/log")"
        rm -rf "$set"
        continue
    fi
    "$program" --log-level error import "$set/star/particles.star" -o "$set/p.h5" >/dev/null
    "$program" --log-level error backproject "$set/p.h5" -o "$set/run" >/dev/null
    "$program" --log-level error diagnose "$set/run" --json >"$set/diagnosis.json"
    made=$((made + 1))
    found=$(python3 -c 'import json, sys
findings = json.load(open(sys.argv[1]))["findings"]
print("; ".join("{id} ({title})".format(**f) for f in findings if f["severity"] in ("warning", "fault")))' "$set/diagnosis.json")
    [ -z "$found" ] || accused=$((accused + 1))
    echo "$seed ${specimen[*]##*/} ${options[*]}: ${found:-nothing}"
    rm -rf "$set"
done
echo "$accused of $made sound sets have a warning or a fault"
