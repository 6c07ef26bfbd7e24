#!/usr/bin/env bash
# Makes a folder with everything that a GPU check needs: the program, the tests of the CUDA path, the bench, and their libraries
# except glibc, CUDA and the driver. Copy it to a machine that has a GPU and CUDA but neither cargo nor MPI nor HDF5, and start
# run.sh in it there (tests/gpu/run.sh).
#
#   tests/gpu/package.sh [FOLDER]     default: target/gpu-check, which is replaced
#
# CRYOSPLAT_TEST_SHARED=DIR   use the reference data in DIR instead of ../shared
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

folder=${1:-target/gpu-check}
# Size limit in bytes, for machines without a network.
largest=$((60 << 20))
cargo=${CARGO:-cargo}
golden=${CRYOSPLAT_TEST_SHARED:-../shared}/golden/golden_small.h5

# Replace only a folder made by this script.
if [ -e "$folder" ] && [ ! -f "$folder/commit" ] && [ -n "$(ls -A "$folder")" ]; then
    stop "$folder exists and is not an older package: remove it, or name another folder"
fi
for command in ldd strip ompi_info; do
    command -v "$command" >/dev/null || stop "$command is missing: install binutils and OpenMPI (make setup)"
done

# --- the programs

# executable KIND NAME ARGUMENTS...: builds a target with cargo and prints its path.
executable() {
    local kind=$1 name=$2 file
    shift 2
    file=$("$cargo" "$@" --release --locked --message-format=json-render-diagnostics |
        grep "\"kind\":\[\"$kind\"\]" | grep "\"name\":\"$name\"" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    [ -f "$file" ] || stop "cargo reports no $kind named $name"
    echo "$file"
}

say "building the program, its tests and the bench"
program=$(executable bin cryosplat-mpi build --bin cryosplat-mpi)
tests=$(executable test cuda test --no-run --test cuda)
bench=$(executable bench gpu test --no-run --bench gpu)

rm -rf "$folder"
mkdir -p "$folder"/{bin,lib/openmpi,share/openmpi,etc}
strip -o "$folder/bin/cryosplat-mpi" "$program"
strip -o "$folder/bin/cuda-tests" "$tests"
strip -o "$folder/bin/gpu-bench" "$bench"

# --- OpenMPI

path() { ompi_info --path "$1" --parsable | sed -n "s/^path:$1://p" | head -n 1; }
launcher=$(command -v orterun) || stop "orterun is missing: the package is made with OpenMPI 4"
cp -L "$launcher" "$folder/bin/mpirun"
cp -L "$(path bindir)/orted" "$folder/bin/orted"
# Plugins for networks, batch systems and other languages need further libraries, and a single machine needs none of them.
unwanted='ofi|ucx|psm2?|openib|usnic|netlink|verbs|portals|knem|slurm|lsf|tm|gridengine|flux|jsm|monitoring|memheap|sshmem|spml|scoll|atomic'
for plugin in "$(path pkglibdir)"/mca_*.so; do
    [[ $(basename "$plugin" .so) =~ _($unwanted)(_|$) ]] || cp -L "$plugin" "$folder/lib/openmpi/"
done
cp -L "$(path pkgdatadir)"/help-*.txt "$folder/share/openmpi/"

# --- shared libraries

# A process can use one glibc only, that of the machine. Every machine has the run-time libraries of a compiler, and CUDA may need
# newer ones than those of this machine.
of_the_system='linux-vdso|ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libutil|libanl|libnsl|libgcc_s|libstdc\+\+'
for file in "$folder"/bin/* "$folder"/lib/openmpi/*.so; do
    ldd "$file"
done | sort -u | while read -r name arrow library _; do
    if [[ $arrow == "=>" && ! $name =~ ^($of_the_system)[.-] ]]; then
        [ "$library" != not ] || stop "$name is missing, although a program is linked with it"
        [ -f "$folder/lib/$name" ] || cp -L "$library" "$folder/lib/$name"
    fi
done

# --- the rest

if [ -f "$golden" ]; then
    mkdir -p "$folder/shared/golden"
    cp "$golden" "$folder/shared/golden/"
fi
commit=unknown
if git rev-parse HEAD >/dev/null 2>&1; then
    commit=$(git rev-parse HEAD)
    [ -z "$(git status --porcelain --untracked-files=no)" ] || commit+=", changed"
fi
echo "$commit" >"$folder/commit"
cp tests/gpu/run.sh "$folder/run.sh"

size=$(du -sb "$folder" | cut -f 1)
say "$folder: $size bytes, commit $commit"
[ "$size" -le "$largest" ] || stop "the folder is larger than the limit of $largest bytes"
