# Shared by the scripts of this folder: source it.
# shellcheck shell=bash
#
# Goes from an EMPIAR entry to a map: download, convert, import, train, report. A step whose result exists is skipped.
# Everything is written to the folder WORK.
#
# These scripts have run on stand-ins only (tests/slurm/empiar.sh: small files of the same layout, with real CTFs), never
# on the files of the archive.
#
#   DATA=...           a folder with the files of the entry, in the layout of its data/: skips the download
#   POSES=...          a folder with inputs/ of the entry in https://github.com/zhonge/cryodrgn_empiar: skips the download
#   WORK=...           the folder to write to (default: empiar-NUMBER, in the working folder)
#   BOX, GAUSSIANS, EPOCHS, BATCH    box to train at, Gaussians, epochs, images per step and half
#   IMPORT_OPTIONS     more options of `cryosplat-mpi import`, such as --first 20000 or --dtype f16
#   TEMPLATE           the template of ../ that trains (default: single-node), submitted with SBATCH_OPTIONS
#   LAUNCH             start the ranks with this command here instead of submitting a job, such as "mpirun -n 2"
#
# Needs wget, and git for entries without poses in their STAR file: `cryosplat-mpi import` then reads the poses and CTFs that
# were published with cryoDRGN's paper (.pkl). It runs no code from these files. POSES_COMMIT names the commit to take; without
# it, the commit that was taken is printed.
#
# Memory: `import` prints what a rank needs (`cryosplat-mpi info`). Times have not been measured: `cryosplat-mpi bench`
# gives the images per second of a node, and a training processes EPOCHS times the particles.

: "${entry:?set by the script that sources this}"
program=${CRYOSPLAT:-cryosplat-mpi}
templates=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${WORK:-empiar-$entry}
mkdir -p "$work"
work=$(realpath "$work")
data=$(realpath -m "${DATA:-$work/data}")
poses=$(realpath -m "${POSES:-$work/cryodrgn_empiar/empiar$entry/inputs}")
GAUSSIANS=${GAUSSIANS:-30000}
EPOCHS=${EPOCHS:-5}
BATCH=${BATCH:-64}

say() { echo "$entry: $*"; }
stop() {
    echo "$entry: error: $*" >&2
    exit 1
}
want() { command -v "$1" >/dev/null || stop "$1 is missing; $2"; }

# download NAME...: downloads files, and folders (with a slash at the end), below data/ of the entry. Existing files are kept,
# partial ones completed.
download() {
    [ -z "${DATA:-}" ] || return 0
    want wget "install it, or download by EMPIAR's other ways (Globus, Aspera) and set DATA"
    local name
    for name in "$@"; do
        say "downloading $name from https://www.ebi.ac.uk/empiar/EMPIAR-$entry/"
        wget --no-verbose --continue --recursive --no-parent --no-host-directories --cut-dirs=4 --reject 'index.html*' \
            --directory-prefix "$data" "https://ftp.ebi.ac.uk/empiar/world_availability/$entry/data/$name"
    done
}

# download_poses: cryoDRGN's published poses and CTFs, from its consensus refinements.
download_poses() {
    if [ -n "${POSES:-}" ] || [ -d "$poses" ]; then
        return
    fi
    want git "install it, or set POSES"
    git clone https://github.com/zhonge/cryodrgn_empiar "$work/cryodrgn_empiar"
    if [ -n "${POSES_COMMIT:-}" ]; then
        git -C "$work/cryodrgn_empiar" checkout --quiet --detach "$POSES_COMMIT"
    fi
    say "poses of commit $(git -C "$work/cryodrgn_empiar" rev-parse HEAD); set POSES_COMMIT to it to take the same again"
}

# stacks_of STAR: prints the stacks of its images, in order. Fails unless each stack occurs completely and in order, because
# cryoDRGN's poses follow the STAR file, and a list of stacks means all of their images.
stacks_of() {
    awk -v folder="$data" '
        {
            for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+@/) {
                split($i, part, "@")
                if (part[2] != stack) { stack = part[2]; expected = 1; print folder "/" stack }
                if (part[1] + 0 != expected++) {
                    print "line " NR ": image " $i " is out of order" >"/dev/stderr"
                    exit 1
                }
            }
        }' "$1"
}

# import_poses OPTIONS...: writes $work/particles.h5 from $work/stacks.txt with cryoDRGN's poses and CTFs.
import_poses() {
    local stack
    while read -r stack; do
        [ -e "$stack" ] || stop "$stack is missing: complete the download"
    done <"$work/stacks.txt"
    import "$work/stacks.txt" --poses "$poses/poses.pkl" --ctf "$poses/ctf.pkl" "$@"
}

# import IMAGES OPTIONS...: writes $work/particles.h5.
import() {
    local more images=$1
    shift
    read -ra more <<<"${IMPORT_OPTIONS:-}"
    [ -s "$work/particles.h5" ] ||
        "$program" import "$images" -o "$work/particles.h5" --datadir "$data" "$@" "${more[@]}"
    "$program" info "$work/particles.h5" --gaussians "$GAUSSIANS" --batch "$BATCH"
}

train() {
    local more settings=(--gaussians "$GAUSSIANS" --epochs "$EPOCHS" --batch "$BATCH")
    if [ -n "${LAUNCH:-}" ]; then
        read -ra more <<<"$LAUNCH"
        "${more[@]}" "$program" train "$work/particles.h5" -o "$work/run" --resume auto "${settings[@]}"
        return
    fi
    want sbatch "set LAUNCH to train without SLURM, such as LAUNCH='mpirun -n 2'"
    read -ra more <<<"${SBATCH_OPTIONS:-}"
    say "training by ${TEMPLATE:-single-node}.sbatch; this waits until it is done"
    CRYOSPLAT=$program PARTICLES=$work/particles.h5 RUN=$work/run OPTIONS="${settings[*]}" \
        sbatch --wait --output="$work/train.log" "${more[@]}" "$templates/${TEMPLATE:-single-node}.sbatch"
}

# report FIGURE: prints the resolution and that of the paper.
report() {
    say "half maps, without a mask and corrected for an automatic one:"
    "$program" fsc "$work/run/half1.mrc" "$work/run/half2.mrc" --mask auto
    say "the paper (arXiv 2508.04929) reports $1 A. In both cases the two half maps share their poses."
}
