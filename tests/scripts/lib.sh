# What the scripts share: to be sourced, with the repository's top as working folder.
# shellcheck shell=bash

say() { echo "$*"; }
stop() {
    echo "error: $*" >&2
    exit 1
}

# Inside containers without the right to read another process's memory, OpenMPI warns at every message otherwise.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# Real cores of this machine, which is what OpenMPI counts as slots.
cores() {
    local count
    count=$(lscpu --parse=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l) || count=0
    if [ "$count" -lt 1 ] || [ "$count" -gt "$(nproc)" ]; then
        count=$(nproc)
    fi
    echo "$count"
}

# run_ranks N COMMAND...: mpirun with what this machine needs. Without binding, each rank takes its share of the cores.
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

# make_venv FOLDER REQUIREMENTS: a virtual environment with exactly these packages; made once for each list.
make_venv() {
    local folder=$1 requirements=$2
    if [ -f "$folder/requirements.txt" ] && cmp -s "$folder/requirements.txt" "$requirements"; then
        return
    fi
    rm -rf "$folder"
    python3 -m venv "$folder" || return 1
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" </dev/null || return 1
    cp "$requirements" "$folder/requirements.txt"
}

# make_work TEMPLATE: a new folder, $work, as `mktemp --directory` makes it; it goes with the shell, unless KEEP=1.
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
