#!/usr/bin/env bash
# Tests the report in a real browser: light, dark, as wide as a phone, and with broken pages, which must be detected. Each test
# prints one line: "ok: ...", "skipped: ..." or "FAILED: ...".
#
#   tests/browser/run.sh
#
# CRYOSPLAT names the program (default: target/debug/cryosplat-mpi). KEEP=1 keeps the pages and their screenshots.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || browser=
if [ -z "$browser" ] || ! "$browser" --version >/dev/null 2>&1; then
    say "skipped: the report in a browser: chromium is missing"
    exit 0
fi
command -v python3 >/dev/null || { say "skipped: the report in a browser: python3 is missing"; exit 0; }

mkdir -p target
make_work "$PWD/target/browser.XXXXXX"

quiet() { "$program" --log-level warn "$@"; }
quiet simulate --phantom --box 48 --pixel-size 6 --particles 400 --seed 3 --snr 1 -o "$work/particles.h5"
quiet train "$work/particles.h5" -o "$work/run" --gaussians 300 --epochs 2 --truth "$work/particles_truth.mrc"

# with_probe PAGE: writes the report with the probe as its first script.
with_probe() {
    python3 - "$work/run/report.html" tests/browser/probe.js "$1" <<'PYTHON'
import sys
page, probe = (open(path, encoding="utf-8").read() for path in sys.argv[1:3])
assert page.count("<head>") == 1
# Requests beyond the file are refused and reported as errors.
policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'unsafe-inline' data:\">"
open(sys.argv[3], "w", encoding="utf-8").write(page.replace("<head>", f"<head>{policy}<script>{probe}</script>"))
PYTHON
}

# Width of a phone: windows of this browser are at least 500 px wide, frames are not. The document of a frame is not dumped, so it
# passes its probe to the enclosing page.
phone() {
    cat >"$2" <<HTML
<!DOCTYPE html><html><body style="margin:0"><iframe src="$(basename "$1")" style="width:390px;height:5000px;border:0"></iframe>
<script>addEventListener("message", (event) => document.documentElement.setAttribute("data-probe", event.data));</script></body></html>
HTML
    sed -i 's|</body>|<script>new MutationObserver(() => parent.postMessage(document.documentElement.dataset.probe, "*")).observe(document.documentElement, { attributes: true, attributeFilter: ["data-probe"] });</script></body>|' "$1"
}

# look KIND PAGE: prints the result of the probe and takes a screenshot.
look() {
    local kind=$1 page=$2
    local options=(--headless=new --no-sandbox --disable-gpu-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader
        --hide-scrollbars --virtual-time-budget=20000 --user-data-dir="$work/browser")
    [ "$kind" != dark ] || options+=(--blink-settings=preferredColorScheme=0)
    timeout 120 "$browser" "${options[@]}" "--window-size=1200,900" --dump-dom "file://$page" >"$page.dom" 2>"$page.log" </dev/null || return 1
    if [ "${KEEP:-0}" = 1 ]; then
        timeout 120 "$browser" "${options[@]}" "--window-size=1200,5200" "--screenshot=$page.png" "file://$page" \
            >"$page.log" 2>&1 </dev/null
    fi
    python3 tests/browser/check.py "$kind" "$page.dom"
}

failed=0
check() {
    local kind=$1 page=$2 found
    if found=$(look "$kind" "$page" 2>&1); then
        say "ok: the report in a browser, $kind: $found"
    else
        say "FAILED: the report in a browser, $kind"
        say "$found"
        tail -n 5 "$page.log"
        failed=1
    fi
}

with_probe "$work/page.html"
check light "$work/page.html"
check dark "$work/page.html"
cp "$work/page.html" "$work/framed.html"
phone "$work/framed.html" "$work/phone.html"
check phone "$work/phone.html"

# Broken pages must be detected: a viewer that draws nothing, and a page that accesses the network.
sed 's/gl.drawElements(/void (/' "$work/page.html" >"$work/empty.html"
sed 's|</main>|<img src="https://example.org/a.png"></main>|' "$work/page.html" >"$work/asking.html"
for page in empty asking; do
    cmp -s "$work/page.html" "$work/$page.html" && stop "$page.html should differ"
    if look light "$work/$page.html" >/dev/null 2>&1; then
        say "FAILED: the broken page $page is not detected"
        failed=1
    else
        say "ok: the broken page $page is detected"
    fi
done
exit "$failed"
