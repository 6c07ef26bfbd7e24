# Faults of run folders: two jobs in one folder, files of others, and what a resumed run must share.
# shellcheck shell=bash disable=SC2034,SC2154 # variables that faults.sh sets or reads
title="Run folders"

set=$sets/p.h5
options=(--device cpu --threads 1 --gaussians 400 --mixtures 2)
endless=(--epochs 100000 --checkpoint-minutes 1e-9)

has_checkpoint() { compgen -G "$1/checkpoints/half2_step*.h5" >/dev/null; }

# begin FOLDER [OPTIONS...]: a training in the background, until it has a checkpoint; its process is in $first.
begin() {
    local folder=$1
    shift
    [ "$#" -gt 0 ] || set -- --log-level off
    # Not by way of a function, which would run in a shell of its own, and that would get the signals.
    "$program" train "$set" "${options[@]}" -o "$folder" "${endless[@]}" "$@" &
    first=$!
    wait_for 60 has_checkpoint "$folder"
}

# beside OPTIONS...: a second training in the folder of a running one, which must be unharmed.
beside() {
    local code=0
    begin run
    train -o run --epochs 2 "$@" || code=$?
    kill -0 "$first" && kill "$first"
    wait "$first" || true
    return "$code"
}

fault "A second training in the folder of a running one" beside
fault "\`--overwrite\` beside a running training" beside --overwrite
fault "\`--resume auto\` beside a running training" beside --resume auto

both_at_once() {
    "$program" train "$set" "${options[@]}" -o run --epochs 2 2>first.log &
    train -o run --epochs 2 2>second.log || true
    wait
    # One trains, and one is refused, whose line comes last.
    grep -h "done in" first.log second.log
    grep -h "ERROR" first.log second.log
}
fault "Two trainings start in one folder at the same time: one is refused" both_at_once

after_kill() {
    begin run
    kill -9 "$first"
    wait "$first" || true
    train -o run --epochs 2 --overwrite
}
fault "SIGKILL, and a new training at once: the folder is taken over" after_kill

after_a_kill_elsewhere() {
    begin run
    kill -9 "$first"
    wait "$first" || true
    sed -i "s/\"host\":\"[^\"]*\"/\"host\":\"node7\"/" run/owner.json
    train -o run --epochs 2 --overwrite
}
fault "The owner was another machine that is gone: its heartbeat is watched" after_a_kill_elsewhere

suspended() {
    local code=0
    begin run --log-level error
    kill -STOP "$first"
    sed -i "s/\"token\":\"[^\"]*\"/\"token\":\"other\"/" run/owner.json
    kill -CONT "$first"
    wait "$first" || code=$?
    return "$code"
}
fault "A suspended training wakes after its folder was taken over: it ends without writing" suspended

in_a_folder_with() {
    mkdir run
    echo mine >"run/$1"
    shift
    train -o run --epochs 2 "$@"
}
fault "\`train --overwrite\` into a folder with somebody's map.mrc" in_a_folder_with map.mrc --overwrite
fault "\`train\` into a folder with another program's run.json" in_a_folder_with run.json

planted_owner() {
    mkdir run
    ln -s "$sets/p.h5" run/owner.json
    train -o run --epochs 2
}
keep "$sets/p.h5"
fault "owner.json is a link to the particles" planted_owner

stopped_run() {
    begin run
    kill "$first"
    wait "$first" || true
}
resume() { "$program" train "$set" "${options[@]}" -o run "${endless[@]}" --resume; }

swapped() {
    stopped_run
    rm -f run/checkpoints/half1_*
    for file in run/checkpoints/half2_*; do cp "$file" "${file/half2/half1}"; done
    resume
}
fault "Checkpoints of half 2 under the names of half 1" swapped

# The voltage of the only optics group, 300 kV, becomes 200 kV.
edited() {
    local set=p.h5
    cp "$sets/p.h5" p.h5
    stopped_run
    python3 -c 'import pathlib, struct; f = pathlib.Path("p.h5"); before, after = (struct.pack("<d", kv) for kv in (300, 200))
data = f.read_bytes(); assert before in data; f.write_bytes(data.replace(before, after, 1))'
    resume
}
fault "\`--resume\` after the optics of the particle file were changed" edited

each_its_own() {
    mkdir node0 node1
    mpirun --allow-run-as-root --oversubscribe -n 2 sh -c "cd node\$OMPI_COMM_WORLD_RANK && exec \"\$0\" \"\$@\"" "$program" train \
        "$sets/p.h5" --device cpu --threads 1 --gaussians 400 -o run --epochs 2
}
fault "The run folder is local to each node" each_its_own

small_files() {
    mpirun --allow-run-as-root --oversubscribe -n 2 sh -c "[ \$OMPI_COMM_WORLD_RANK = 0 ] || ulimit -f 16; exec \"\$0\" \"\$@\"" \
        "$program" train "$sets/p.h5" --device cpu --threads 1 --gaussians 400 -o run --epochs 2
}
fault "The leader of half 2 may not write files as large as a checkpoint" small_files
