#!/usr/bin/env bash
# Builds the emulated libcuda, libnvrtc, libcufft and libnccl into a folder:
#
#     tests/emulator/build.sh OUT [--sanitize]
#
# Nothing is done where OUT is up to date, and of several that build into one OUT at a time the first does the work.
# OUT/environment then holds the variables, one KEY=VALUE a line, under which a program finds these libraries.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[[ $# -ge 1 ]] || { echo "usage: $0 OUT [--sanitize]" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
sanitize=no
[[ ${2:-} == --sanitize ]] && sanitize=yes
[[ $# -le 1 || $sanitize == yes ]] || { echo "$0: '$2' is not understood, expected --sanitize" >&2; exit 2; }
compiler=${CXX:-g++}

identity() {
    (cd "$here" && cat build.sh common/* driver/* kernel/* nvrtc/* cufft/* nccl/* && "$compiler" --version && echo "$sanitize $out") | sha256sum
}

exec 9>"$out/.lock"
flock 9
wanted=$(identity)
[[ -f $out/identity && $(<"$out/identity") == "$wanted" ]] && exit 0

work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
flags=(-std=c++17 -O1 -fPIC -Wall -Wextra -fvisibility=hidden -pthread)
[[ $sanitize == yes ]] && flags+=('-fsanitize=address,undefined' -fno-sanitize-recover=all -fno-omit-frame-pointer)

# The driver's sources share one header, which takes longer to read than any of them: it is compiled first. The copy is
# for that alone, a precompiled header must lie beside its source.
mkdir "$work/source"
cp -r "$here"/{common,driver,kernel,nvrtc,cufft,nccl} "$work/source/"
echo '#include "driver.h"' > "$work/source/driver/precompiled.h"
compile() {
    case $1 in
    *.h) "$compiler" "${flags[@]}" -x c++-header "$1" -o "$1.gch" ;;
    driver/fibers.cpp | driver/meeting.cpp | driver/switch.cpp | cufft/*) "$compiler" "${flags[@]}" -O2 -c "$1" -o "$work/${1//\//_}.o" ;;
    driver/*) "$compiler" "${flags[@]}" -include driver/precompiled.h -c "$1" -o "$work/${1//\//_}.o" ;;
    *) "$compiler" "${flags[@]}" -c "$1" -o "$work/${1//\//_}.o" ;;
    esac
}
run_all() {  # as many at a time as there are processors
    local source running=0
    for source in "$@"; do
        if (( running >= $(nproc) )); then wait -n; running=$((running - 1)); fi
        compile "$source" &
        running=$((running + 1))
    done
    while (( running > 0 )); do wait -n; running=$((running - 1)); done
}
cd "$work/source"
run_all driver/precompiled.h {nvrtc,cufft,nccl,common}/*.cpp
run_all driver/*.cpp
cd "$here"

# The C++ library's own templates would else be visible too.
echo '{ global: cu*; nvrtc*; nccl*; emulator_driver_interface; local: *; };' > "$work/exports"
link() {  # NAME SONAME PART LIBRARIES...
    # The loader is to replace $ORIGIN, not the shell.
    # shellcheck disable=SC2016
    "$compiler" "${flags[@]}" -shared -Wl,-soname,"$2" -Wl,--version-script,"$work/exports" -Wl,-rpath,'$ORIGIN' -o "$work/$2" \
        "$work/$3"_*.o "$work/common_injection.cpp.o" "${@:4}" -ldl
    [[ $1 == "$2" ]] || ln -s "$2" "$work/$1"
}
link libcuda.so libcuda.so.1 driver
link libnvrtc.so libnvrtc.so.12 nvrtc
link libcufft.so libcufft.so.11 cufft "$work/libcuda.so.1"
link libnccl.so libnccl.so.2 nccl "$work/libcuda.so.1" -lrt

mkdir -p "$out/kernel"
cp "$here"/kernel/*.h "$work/"
{
    echo "LD_LIBRARY_PATH=$out"
    if [[ $sanitize == yes ]]; then
        # The program itself is not sanitised, so the runtime must come first in another way. It looks for no leaks: the
        # emulator reports those of CUDA objects, and the program's own at its exit are not its concern.
        echo "LD_PRELOAD=$(realpath "$("$compiler" -print-file-name=libasan.so)")"
        echo "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:exitcode=87"
        echo "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:exitcode=87"
    fi
} > "$work/environment"
echo "$wanted" > "$work/identity"

# One rename a file: a process that runs at this moment keeps the files it has opened. `identity` last, as it vouches for all.
mv -f "$work"/*.h "$out/kernel/"
for file in "$work"/lib* "$work/environment" "$work/identity"; do mv -fT "$file" "$out/${file##*/}"; done
rm -rf "$out/compiled"
