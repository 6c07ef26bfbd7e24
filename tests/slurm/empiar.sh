#!/usr/bin/env bash
# Runs slurm/empiar/*.sh from start to end on stand-ins (stand_in.py) whose map is known. One line each:
# "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/slurm/empiar.sh [ENTRY...]
#
# CRYOSPLAT names the program (default: target/debug/cryosplat-mpi). With SBATCH_OPTIONS it trains by SLURM
# jobs, otherwise with mpirun. KEEP=1 keeps the data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
entries=("$@")
[ "$#" -gt 0 ] || entries=(10028 10049 10076 10180)
describe() { echo "empiar/$1.sh: from the files of the archive (a stand-in) to the true map"; }

skip_all() {
    local entry
    for entry in "${entries[@]}"; do
        say "skipped: $(describe "$entry"): $1"
    done
    exit 0
}
python3 -c 'import ensurepip, venv' 2>/dev/null || skip_all "python3 with venv is missing"
make_venv target/judges-venv tests/judges/requirements.txt || skip_all "pip could not install numpy and mrcfile"
python=$PWD/target/judges-venv/bin/python

# Real CTFs of 10028, if available.
ctf=(../shared/data/real/empiar10028_ctf.pkl)
if [ -e "${ctf[0]}" ]; then
    ctf=(--ctf "$(realpath "${ctf[0]}")")
else
    ctf=()
fi
if [ -z "${SBATCH_OPTIONS:-}" ]; then
    LAUNCH="mpirun -n 2 --bind-to none"
    [ "$(id -u)" -ne 0 ] || LAUNCH+=" --allow-run-as-root"
    [ "$(cores)" -ge 2 ] || LAUNCH+=" --oversubscribe"
    export LAUNCH
fi

make_work "${TMPDIR:-/tmp}/cryosplat-empiar.XXXXXX"

# In one of them the box is not smaller than that of the particles, as in the entry itself.
export BOX=32 GAUSSIANS=300 EPOCHS=12 BATCH=8 TEMPLATE=cpu CRYOSPLAT=$program
from_archive_to_map() {
    local entry=$1 folder=$work/$1
    "$python" tests/slurm/stand_in.py "$entry" "$folder" --box "$BOX" "${ctf[@]}"
    mkdir -p "$folder/work"
    DATA=$folder/data POSES=$folder/inputs WORK=$folder/work "slurm/empiar/$entry.sh" </dev/null
    "$python" tests/judges/maps.py agree "$folder/work/run/map.mrc" "$folder/truth.mrc" --to 40 --above 0.9
}

failed=0
for entry in "${entries[@]}"; do
    set +e
    (
        set -e
        from_archive_to_map "$entry"
    ) >"$work/$entry.test" 2>&1
    code=$?
    set -e
    if [ "$code" -eq 0 ]; then
        say "ok: $(describe "$entry"): $(tail -n 1 "$work/$entry.test")"
    else
        cat "$work/$entry.test"
        [ ! -e "$work/$entry/work/train.log" ] || cat "$work/$entry/work/train.log"
        say "FAILED: $(describe "$entry")"
        failed=$((failed + 1))
    fi
done
[ "$failed" -eq 0 ]
