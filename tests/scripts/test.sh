#!/usr/bin/env bash
# Runs all parts of `make test` in order, also after a failure. The last line counts results. The exit code is 1 if any part
# failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

log=target/test.log
# Tests that find no reference data return without a check, and append a line here: process, test, reason.
export CRYOSPLAT_TEST_SKIPPED=$PWD/target/test.skipped
mkdir -p target
: >"$log"
: >"$CRYOSPLAT_TEST_SKIPPED"
failed_parts=()

part() {
    local name=$1
    shift
    echo "== $name"
    if ! "$@" 2>&1 </dev/null | tee -a "$log"; then
        failed_parts+=("$name")
        echo "== $name FAILED"
    fi
}

# The documentation is for developers, so it may link to private items.
documentation() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
        cargo doc --no-deps --document-private-items --locked
}

part "format" cargo fmt --check
part "clippy" cargo clippy --all-targets --locked -- -D warnings
part "documentation" documentation
part "charts" python3 benches/charts.py --check
# --no-fail-fast: run all test programs after a failure.
part "tests" cargo test --locked --no-fail-fast
# The tests above used the highest SIMD level of this CPU. Test the lower levels against the same reference.
levels=(portable)
! grep -qsw avx2 /proc/cpuinfo || levels+=(avx2)
for level in "${levels[@]}"; do
    part "instructions: $level" env "CRYOSPLAT_SIMD=$level" cargo test --locked --lib --test render
done
# Test the emulator itself, then the CUDA path with the sanitizers of the compiler in the emulator and in the kernels.
part "emulator" tests/emulator/self_test.sh target/emulator
part "sanitizers" env CRYOSPLAT_EMULATOR_SANITIZE=1 cargo test --locked --test cuda
# These use the debug build of cargo test.
part "judges" tests/judges/run.sh
part "browser" tests/browser/run.sh
part "kernels" tests/kernels/run.sh
part "slurm" tests/slurm/run.sh
part "nodes" tests/nodes/run.sh
part "packages" tests/packages/run.sh

# cargo: "test result: ok. 12 passed; 0 failed; ..."; judges, browser, kernels, slurm, nodes and packages: "ok: ..." and "FAILED: ...".
sum() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$log"; }
passed=$(($(sum passed) + $(grep -c '^ok: ' "$log" || true)))
failed=$(($(sum failed) + $(grep -c '^FAILED: ' "$log" || true)))
skipped=$(($(sum ignored) + $(grep -c '^skipped: ' "$log" || true)))
# Cargo counts these as passed.
unchecked=$(cut -f 1,2 "$CRYOSPLAT_TEST_SKIPPED" | sort -u | wc -l)
passed=$((passed - unchecked))
skipped=$((skipped + unchecked))
awk -F '\t' '!seen[$2]++ { print "skipped: " $2 ": " $3 }' "$CRYOSPLAT_TEST_SKIPPED"
for name in "${failed_parts[@]}"; do
    echo "failed: $name"
done
# A part can fail without counted tests: a warning, or a program that does not build.
if [ "${#failed_parts[@]}" -gt "$failed" ]; then
    failed=${#failed_parts[@]}
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "${#failed_parts[@]}" -eq 0 ]
