#!/usr/bin/env bash
# Tests and measures cryosplat-mpi on the GPU of this machine. It is part of the folder that `make gpu-package` makes, and needs
# only that folder, the driver, and CUDA's NVRTC and cuFFT; it uses NCCL and compute-sanitizer if they are installed.
#
#   run.sh [--quick] [--only PART,...] [--time SECONDS] [--emulator FOLDER] [OUT]
#
#   OUT                folder for log, results.json and results.md (default: ./results)
#   --quick            bench a few small cases only
#   --only PART,...    run some parts only: tests, memcheck, racecheck, NCCL, bench
#   --time SECONDS     end after about this time (default: 540); parts without time left fail
#   --emulator FOLDER  use the emulated libraries in this folder, built by tests/emulator/build.sh, instead of a GPU
#
# All parts run, also after a failure. The exit code is 1 if any part failed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

out=results
quick=no
only=
time=540
emulator=
while [ "$#" -gt 0 ]; do
    case "$1" in
        --quick) quick=yes ;;
        --only) only=${2:?--only needs parts} && shift ;;
        --time) time=${2:?--time needs seconds} && shift ;;
        --emulator) emulator=$(cd "${2:?--emulator needs a folder}" && pwd) && shift ;;
        -*)
            echo "$0: unknown option $1 (expected --quick, --only, --time or --emulator)" >&2
            exit 2
            ;;
        *) out=$1 ;;
    esac
    shift
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
rm -f "$out"/{log,results.json,results.md}

# --- libraries

# Folders of CUDA libraries, most likely first.
cuda_folders() {
    tr ':' '\n' <<<"${LD_LIBRARY_PATH:-}"
    for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" /usr/local/cuda /usr/local/cuda-*; do
        [ -n "$folder" ] && printf '%s\n' "$folder/lib64" "$folder/targets/x86_64-linux/lib"
    done
    # NVIDIA's Python packages, and those of PyTorch.
    if command -v python3 >/dev/null; then
        python3 - <<'PYTHON' || true
import glob, importlib.util, os
for package, pattern in (("nvidia", "*/lib"), ("torch", "lib")):
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        print(*sorted(glob.glob(os.path.join(folder, pattern)), reverse=True), sep="\n")
PYTHON
    fi
    printf '%s\n' /usr/local/nvidia/lib64 /usr/lib/x86_64-linux-gnu /usr/lib64
}

# Path of the newest version of a library in the first folder that has one.
find_library() {
    local folder file
    for folder in "${folders[@]}"; do
        file=$(find -L "$folder" -maxdepth 1 -name "$1.so*" -type f | sort -V | tail -n 1)
        if [ -n "$file" ]; then
            echo "$file"
            return
        fi
    done
}

# Prints the LD_LIBRARY_PATH. The program opens libnccl.so and libnvrtc.so, but Python packages contain only libnccl.so.2 and
# libnvrtc.so.13, so this makes links with the plain names.
library_path() {
    local folders=() library file path=$work/links:$here/lib
    mkdir -p "$work/links"
    if [ -n "$emulator" ]; then
        echo "$emulator:$here/lib"
        return
    fi
    while read -r file; do
        [ -d "$file" ] && folders+=("$file")
    done < <(cuda_folders | awk 'NF && !seen[$0]++')
    for library in libnvrtc libcufft libnccl; do
        file=$(find_library "$library")
        if [ -n "$file" ]; then
            echo "$library: $file" >&2
            ln -sf "$file" "$work/links/$library.so"
            # The libraries that it opens itself are in the same folder.
            path+=:$(dirname "$file")
        else
            echo "$library: not found" >&2
        fi
    done
    # The driver, if it is in no system folder, and other libraries that these are linked with.
    for file in "${folders[@]}"; do
        case $file in
            /usr/lib*) ;;
            *) path+=:$file ;;
        esac
    done
    echo "$path"
}

# --- parts

outcomes=()
failed=0
last=$work/last

outcome() {
    outcomes+=("$1: $2")
    echo "== $1: $2"
    # Prints the results so far, however this script ends.
    results
}

# Was this part requested?
wanted() { [[ -z $only || ,$only, == *",${1%% *},"* || (,$only, == *,tests,* && $1 == "test "*) ]]; }

# skip NAME WHY
skip() { ! wanted "$1" || outcome "$1" "skipped, $2"; }

# part NAME SECONDS COMMAND...: runs it within this time and the remaining total time. Sets ended_well.
part() {
    local name=$1 limit=$2 left=$((time - SECONDS)) code=0 started=$SECONDS
    shift 2
    ended_well=no
    wanted "$name" || return 0
    [ "$limit" -le "$left" ] || limit=$left
    [ "$limit" -ge 0 ] || limit=0
    echo "== $name (at most $limit s): $*"
    if [ "$limit" -lt 5 ]; then
        failed=1
        outcome "$name" "FAILED, no time was left for it"
        return
    fi
    timeout --kill-after=5 "$limit" "$@" </dev/null 2>&1 | tee "$last" || code=$?
    if [ "$code" -eq 0 ]; then
        ended_well=yes
        outcome "$name" "ok, $((SECONDS - started)) s"
    elif grep -q 'Device not supported' "$last"; then
        outcome "$name" "skipped, the tool does not know this device"
    elif [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
        failed=1
        outcome "$name" "FAILED, it took longer than $limit s"
    else
        failed=1
        outcome "$name" "FAILED with exit code $code"
    fi
}

sanitizer() {
    local candidate
    for candidate in "$(command -v compute-sanitizer || true)" /usr/local/cuda*/bin/compute-sanitizer; do
        if [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
}

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

all_parts() {
    local program=$here/bin/cryosplat-mpi bench=("$here/bin/gpu-bench") nccl tool test again set=$work/particles.h5
    local train=(train "$set" -o "$work/run" --device cuda --gaussians 300 --epochs 1 --batch 4 --threads 2 --overwrite)

    if command -v nvidia-smi >/dev/null; then nvidia-smi || true; else echo "no nvidia-smi here"; fi
    if ! "${bench[@]}" --versions >"$work/versions"; then
        echo "error: no usable GPU: see above (nvidia-smi, driver, NVRTC, cuFFT)" >&2
        return 1
    fi
    cat "$work/versions"

    part "tests" 200 "$here/bin/cuda-tests"
    # An illegal access disables the device for all tests of a process, so failed tests are repeated, each in its own process.
    if wanted "tests" && [ "$ended_well" = no ]; then
        mapfile -t again < <(sed -n 's/^test \([a-z_]*\) *\.\.\. FAILED$/\1/p' "$last")
        for test in "${again[@]}"; do
            part "test $test alone" 40 "$here/bin/cuda-tests" --exact "$test"
        done
    fi

    "$program" simulate --phantom -o "$set" --box 40 --pixel-size 4 -n 48 --snr 1 --seed 3
    tool=$(sanitizer)
    if [ -n "$emulator" ]; then
        skip "memcheck" "there is no device"
        skip "memcheck of kernels" "there is no device"
        skip "racecheck" "there is no device"
    elif [ -z "$tool" ]; then
        skip "memcheck" "compute-sanitizer is not here"
        skip "memcheck of kernels" "compute-sanitizer is not here"
        skip "racecheck" "compute-sanitizer is not here"
    else
        # Ignore calls by which libraries probe for features and which are refused.
        tool+=" --error-exitcode 87 --report-api-errors no --tool"
        # shellcheck disable=SC2086
        {
            part "memcheck" 60 $tool memcheck "$program" "${train[@]}"
            # Narrow and wide splats, odd boxes.
            part "memcheck of kernels" 60 $tool memcheck "$here/bin/cuda-tests" --exact loss_and_gradients_agree_with_the_dense_reference
            # The other storage of particles too.
            part "racecheck" 80 $tool racecheck "$program" "${train[@]}" --cache none
        }
    fi

    nccl=$(sed -n 's/.*NCCL \([0-9.]*\)$/\1/p' "$work/versions")
    if [ -z "$nccl" ]; then
        skip "NCCL" "it is not here"
    elif ! at_least "$nccl" 2.30; then
        skip "NCCL" "version $nccl takes no two ranks on one GPU (2.30 does)"
    else
        part "NCCL" 40 env NCCL_MULTI_RANK_GPU_ENABLE=1 mpirun --oversubscribe --bind-to none -n 2 \
            "$program" "${train[@]}" --half 1 --collective nccl
        if [ "$ended_well" = yes ] && ! grep -q 'all-reduce over NCCL' "$last"; then
            failed=1
            outcome "NCCL" "FAILED, something else added up"
        fi
    fi

    [ "$quick" = no ] || bench+=(--quick)
    part "bench" "$time" "${bench[@]}" --json "$out/results.json" --table "$work/table"
    printf '%s\n' "${outcomes[@]}"
    return "$failed"
}

# Writes results.md: the parts, then the tables.
results() {
    {
        printf -- '- %s\n' "${outcomes[@]}"
        [ -z "$emulator" ] || echo "- Measured on the emulator: these numbers say nothing about a GPU."
        echo
        cat "$work/table" 2>/dev/null || true
    } >"$out/results.md"
}

main() {
    LD_LIBRARY_PATH=$(library_path)
    export LD_LIBRARY_PATH
    export PATH=$here/bin:$PATH
    # OpenMPI searches its installation folder, which is this folder here. One machine, no network, any user.
    export OPAL_PREFIX=$here OPAL_BINDIR=$here/bin OPAL_LIBDIR=$here/lib OPAL_PKGLIBDIR=$here/lib/openmpi
    export OPAL_DATADIR=$here/share OPAL_PKGDATADIR=$here/share/openmpi OPAL_SYSCONFDIR=$here/etc
    export OMPI_MCA_plm=isolated OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
    # Its helper library searches a plugin that compresses long messages, which is not needed.
    export PMIX_MCA_pcompress_base_silence_warning=1
    # The loopback interface may be disabled, shared memory may be small, and plugins of another OpenMPI installation must not be
    # loaded.
    ip link set lo up 2>/dev/null || true
    export OMPI_MCA_btl_vader_backing_directory=$work/temporary
    mkdir -p "$here/lib/pmix" 2>/dev/null || true
    export PMIX_PKGLIBDIR=$here/lib/pmix
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    # Settings of the tests and the bench.
    export CRYOSPLAT_TEST_GPU=1 CRYOSPLAT_TEST_PROGRAM=$here/bin/cryosplat-mpi CRYOSPLAT_TEST_SHARED=$here/shared
    CRYOSPLAT_COMMIT=$(cat "$here/commit")
    export CRYOSPLAT_COMMIT
    # Kernels are compiled by the NVRTC of this machine, and everything is written to one folder.
    mkdir -p "$work/temporary"
    export XDG_CACHE_HOME=$work/cache TMPDIR=$work/temporary
    all_parts
}

code=0
main 2>&1 | tee "$out/log" || code=$?
exit "$code"
