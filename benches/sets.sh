# Simulated particle sets with a known truth. Source it after tests/scripts/lib.sh.
# shellcheck shell=bash

sets=target/truth

# prepare_sets PROGRAM: prepares for make_set.
prepare_sets() {
    program=$1
    [ -x "$program" ] || stop "$program is not there: make build"
    mkdir -p "$sets"
    make_venv target/judges-venv tests/judges/requirements.txt || stop "pip could not install mrcfile and numpy"
    python=target/judges-venv/bin/python
}

# make_set NAME MODEL BOX PIXEL-SIZE PARTICLES SNR [PREFERENCE [OPTION...]], with further options of simulate: sets $set, the folder with particles.h5, truth.mrc, the automatic
# mask of the truth (mask.mrc) and the maps of `backproject --no-wiener` (voxels/). Made once for each list of parameters.
make_set() {
    local name=$1 model=$2 box=$3 size=$4 count=$5 snr=$6
    local views=("${@:8}")
    [ -z "${7:-}" ] || views+=(--preference "$7")
    local made="$model $box $size $count $snr${7:+ $7}${8:+ ${*:8}}"
    set=$sets/$name
    tests/demo/model.sh "$model"
    if [ "$(cat "$set/made.txt" 2>/dev/null)" = "$made" ]; then
        return
    fi
    rm -rf "$set"
    mkdir -p "$set"
    "$program" --log-level warn simulate --model "target/demo/$model" -o "$set/particles.h5" --truth "$set/truth.mrc" \
        --box "$box" --pixel-size "$size" --particles "$count" --snr "$snr" "${views[@]}" --seed 3
    "$program" --log-level error fsc "$set/truth.mrc" "$set/truth.mrc" --mask auto --mask-output "$set/mask.mrc" >/dev/null
    run_ranks 2 "$program" --log-level warn backproject "$set/particles.h5" -o "$set/voxels" --no-wiener
    echo "$made" >"$set/made.txt"
}

# against_truth VOXELS MAP: cells of `maps.py win`: mean FSC of voxels and map, without and with the mask, and the worst shells.
against_truth() { "$python" tests/judges/maps.py win "$set/truth.mrc" "$set/mask.mrc" "$@"; }

# each_row TABLE COMMAND [NAME...]: runs COMMAND with the fields of the lines of TABLE whose first field is a NAME, or of all lines.
each_row() {
    local table=$1 command=$2 name
    local names fields
    shift 2
    names=("$@")
    [ "$#" -gt 0 ] || read -ra names <<<"$(awk 'NF { printf "%s ", $1 }' <<<"$table")"
    for name in "${names[@]}"; do
        read -ra fields <<<"$(awk -v name="$name" '$1 == name' <<<"$table")"
        [ "${#fields[@]}" -gt 0 ] || stop "no row is named $name"
        "$command" "${fields[@]}"
    done
}

# rows_of NAME FOLDER RESULTS: the rows of that name, from FOLDER/NAME.row, or from the table of RESULTS before the first run here.
rows_of() {
    if [ -f "$2/$1.row" ]; then
        cat "$2/$1.row"
    elif [ -f "$3" ]; then
        awk -v start="| $1 |" 'index($0, start) == 1' "$3"
    fi
}

# written_rows TABLE FOLDER RESULTS: the rows of all names in TABLE, in order.
written_rows() {
    local name
    while read -r name _; do
        [ -z "$name" ] || rows_of "$name" "$2" "$3"
    done <<<"$1"
}
