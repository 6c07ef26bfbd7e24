# Outputs that are inputs, links and pipes in the place of files, refused locks, hostile files. Sourced by benches/faults.sh.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of benches/faults.sh
title="Files"

# The raw stack, the set that was imported from it, and its run.
raw=$sets/raw
mkdir -p "$raw"
cp "$sets/particles.star" "$sets/particles.mrcs" "$raw"
"$program" --log-level warn import "$raw/particles.star" -o "$raw/set.h5" >/dev/null
half1=$sets/run/half1.mrc
half2=$sets/run/half2.mrc

relabelled() { # a stack of another program
    cp "$sets/particles.mrcs" foreign.mrcs
    printf 'EMAN 2.99    ' | dd of=foreign.mrcs bs=1 seek=224 conv=notrunc status=none
    "$program" export star "$sets/p.h5" -o foreign.star
}

linked() { # OUTPUT is a link to an input
    ln -s "$2" "$1"
    shift 2
    "$program" "$@"
}

in_place() { # mean of half maps under the name of the first
    cp "$half1" a.mrc
    "$program" postprocess a.mrc "$half2" -o a
}

truth_in_run() {
    mkdir run
    cp "$sets/truth.mrc" run/map.mrc
    train -o run --epochs 2 --truth run/map.mrc
}

pipe_as() { # WHAT ARGUMENTS...: a named pipe in the place of pipe.h5
    mkfifo pipe.h5
    timeout 20 "$program" "$@"
}

stopped() { # SIGNAL (a shell ignores SIGINT for what it starts in the background): a simulation of minutes, stopped; fails if it leaves a temporary file
    "$program" simulate --phantom -o big.h5 -n 100000 --box 128 --pixel-size 2 --threads 1 &
    local process=$! code=0
    wait_for 60 sh -c 'ls .big.h5.*.partial'
    kill "-$1" "$process"
    wait "$process" || code=$?
    [ "$1" = KILL ] || { ! ls .big.h5.*.partial 2>/dev/null || return 99; }
    return "$code"
}

killed_then_again() {
    stopped KILL || true
    "$program" simulate --phantom -o big.h5 -n 20 --box 16 --pixel-size 8
    ! ls .big.h5.*.partial 2>/dev/null
}

without_locks() { # ERRNO: every lock is refused
    cc -shared -fPIC -o refuse_locks.so "$OLDPWD/tests/shims/refuse_locks.c"
    export LD_PRELOAD=$PWD/refuse_locks.so REFUSED_LOCKS=$1
    train -o run --epochs 2
}

locked_scratch() { # another program holds the lock of the folder and copies nothing
    mkdir scratch
    flock scratch sleep 30 &
    local holder=$!
    train -o run --epochs 2 --cache scratch --scratch scratch
    kill "$holder"
}

external() { # a particle file whose images are a link to a named pipe
    mkfifo pipe.h5
    python3 - "$sets/p.h5" <<'PY' || return
import sys, h5py, shutil
shutil.copy(sys.argv[1], "linked.h5")
with h5py.File("linked.h5", "r+") as file:
    del file["images"]
    file["images"] = h5py.ExternalLink("pipe.h5", "/images")
PY
    timeout 20 "$program" info linked.h5
}

keep "$raw/particles.mrcs" "$raw/particles.star" "$raw/set.h5"
fault "\`export star\` over the raw particles.mrcs" "$program" export star "$raw/set.h5" -o "$raw/particles.star" --overwrite
keep "$raw/particles.mrcs" "$raw/particles.star"
fault "\`import\` over its own stack" "$program" import "$raw/particles.star" -o "$raw/particles.mrcs"
fault "\`export star\` over another program's stack" relabelled
keep "$sets/particles.mrcs" "$sets/particles.star" "$sets/truth.mrc"
fault "\`simulate --star\` over the input map" "$program" simulate --map "$sets/truth.mrc" -o s.h5 --star "$sets" --box 32 --pixel-size 4
fault "half maps by \`postprocess -o\`" in_place
keep "$half1" "$half2"
fault "half maps by \`fsc --mask-output\`" "$program" fsc "$half1" "$half2" --mask sphere --mask-output "$half2"
keep "$sets/p.h5"
fault "the particle file by \`info --directions\`, through a link" linked out.svg "$sets/p.h5" info "$sets/p.h5" --directions out.svg
fault "the truth by \`train\` into its folder" truth_in_run
fault "/dev/stdout as output" "$program" simulate --phantom -o /dev/stdout -n 4 --box 16 --pixel-size 8
fault "a named pipe as particle file" pipe_as train pipe.h5 -o run --device cpu
fault "a named pipe as output" pipe_as simulate --phantom -o pipe.h5 -n 4 --box 16 --pixel-size 8
fault "\`simulate\` stopped by SIGTERM" stopped TERM
fault "\`simulate\` stopped by SIGHUP" stopped HUP
fault "\`simulate\` killed, then run again" killed_then_again
for number in 11 37 95 524; do
    keep "$sets/p.h5"
    fault "every file lock fails with errno $number" without_locks "$number"
done
fault "another user holds the lock of the scratch folder" locked_scratch
if python3 -c 'import h5py' 2>/dev/null; then
    fault "images are an external link to a named pipe" external
fi
fault "\`--prometheus\` is a file" train -o run --prometheus "$sets/p.h5"
