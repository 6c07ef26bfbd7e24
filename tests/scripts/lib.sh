# Helpers for the scripts. Source it with the top folder of the repository as the working folder.
# shellcheck shell=bash

say() { echo "$*"; }
stop() {
    echo "error: $*" >&2
    exit 1
}

# Without it, OpenMPI warns at every message in containers that may not read the memory of other processes.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# cores: physical cores of this machine, which OpenMPI counts as slots.
cores() {
    local count
    count=$(lscpu --parse=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || count=0
    if [ "$count" -lt 1 ] || [ "$count" -gt "$(nproc)" ]; then
        count=$(nproc)
    fi
    echo "$count"
}

# run_ranks N COMMAND...: mpirun with the options that this machine needs, without binding: ranks share the cores.
run_ranks() {
    local ranks=$1
    shift
    local options=(-n "$ranks" --bind-to none)
    if [ "$(id -u)" -eq 0 ]; then
        options+=(--allow-run-as-root)
    fi
    if [ "$ranks" -gt "$(cores)" ]; then
        options+=(--oversubscribe)
    fi
    mpirun "${options[@]}" "$@" </dev/null
}

# bound_ranks N CORES COMMAND...: mpirun with each of N ranks bound to its own CORES cores; the machine must have enough.
bound_ranks() {
    local options=(-n "$1" --bind-to core --map-by "slot:PE=$2")
    shift 2
    if [ "$(id -u)" -eq 0 ]; then
        options+=(--allow-run-as-root)
    fi
    mpirun "${options[@]}" "$@" </dev/null
}

# load: load of this machine over the last minute; call it before measuring.
load() { cut -d ' ' -f 1 /proc/loadavg; }

# remark_load LOAD: a paragraph for a table of times, if that load was not that of an idle machine.
remark_load() {
    awk -v load="$1" 'BEGIN { exit !(load > 0.5) }' || return 0
    echo
    echo "**The machine was not idle**: its load was $1 when the first run began. Times are less reliable."
}

# requirement_names REQUIREMENTS: its packages with their versions, in one line.
requirement_names() { sed -n 's/^\([A-Za-z0-9_.-]*==[^ ;]*\).*/\1/p' "$1" | paste -sd ' '; }

# make_venv FOLDER REQUIREMENTS: makes a virtual environment with exactly these packages, once for each list. Each file has its
# hash there.
make_venv() {
    local folder=$1 requirements=$2
    if [ -f "$folder/requirements.txt" ] && cmp -s "$folder/requirements.txt" "$requirements"; then
        return
    fi
    rm -rf "$folder"
    python3 -m venv "$folder" || return 1
    "$folder/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$requirements" </dev/null || return 1
    cp "$requirements" "$folder/requirements.txt"
}

# make_work TEMPLATE: sets $work to a new folder, made by `mktemp --directory` and removed with the shell unless KEEP=1.
make_work() {
    work=$(mktemp --directory "$1")
    trap finish_work EXIT
}
finish_work() {
    if [ "${KEEP:-0}" = 1 ]; then
        say "the data is in $work"
    else
        rm -rf "$work"
    fi
}

# seconds_since START: whole seconds since START, a time of `date +%s.%N`.
seconds_since() { awk -v from="$1" -v to="$(date +%s.%N)" 'BEGIN { printf "%.0f", to - from }'; }

# machine: date, version, commit and CPU, for the heading of a table.
# shellcheck disable=SC2154 # the script that sources this names the program
machine() {
    echo "$(date -u +%F), version $("$program" --version | cut -d ' ' -f 2), commit $(git describe --always --dirty 2>/dev/null || echo unknown)," \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | head -n 1), $(nproc) CPUs"
}

# ribosome_set BOX TAG: simulates 10,000 noisy images of the 70S ribosome in a box of BOX pixels once, with $program, under $work,
# with TAG in the names; or uses the folder in RIBOSOME64 or RIBOSOME128. Sets $set_folder, and $origin: how it was made.
ribosome_set() {
    local box=$1 tag=$2 given=RIBOSOME$1 simulate file
    set_folder=$work/set$tag
    if [ -n "${!given:-}" ]; then
        set_folder=${!given}
        origin="the set in \`$given\`, given by the user"
    else
        simulate=(simulate -o "$work/simulated$tag.h5" --star "$set_folder"
            --box "$box" --pixel-size $((384 / box)) --particles 10000 --snr 0.1 --seed 1)
        if tests/demo/model.sh; then
            simulate+=(--model target/demo/4v5d.cif)
        else
            say "the model of the ribosome is missing: measuring with the phantom"
            simulate+=(--phantom)
        fi
        if [ ! -f "$set_folder/truth.mrc" ] || [ "$(cat "$work/simulated$tag.txt" 2>/dev/null)" != "${simulate[*]}" ]; then
            rm -f "$work/simulated$tag.txt"
            # shellcheck disable=SC2154 # the script that sources this names the program
            "$program" --log-level warn "${simulate[@]}"
            echo "${simulate[*]}" >"$work/simulated$tag.txt"
        fi
        # shellcheck disable=SC2034 # for the scripts that source this
        origin="\`cryosplat-mpi ${simulate[*]}\`"
    fi
    for file in particles.star truth.mrc; do
        [ -f "$set_folder/$file" ] || stop "$set_folder holds no $file"
    done
    # Programs also run in other folders.
    set_folder=$(realpath "$set_folder")
}
