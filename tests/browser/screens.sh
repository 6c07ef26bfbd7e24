#!/usr/bin/env bash
# Screenshots of the pages in headless Chromium, light, dark and as wide as a phone, into tests/browser/screens: to be looked at.
#
#   tests/browser/screens.sh
#
# CRYOSPLAT names the program (default: target/debug/cryosplat-mpi).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/scripts/lib.sh
. tests/scripts/lib.sh

program=$(realpath "${CRYOSPLAT:-target/debug/cryosplat-mpi}")
[ -x "$program" ] || stop "$program is not there: cargo build"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || stop "chromium is missing: make setup-tests"
make_work "${TMPDIR:-/tmp}/cryosplat-screens.XXXXXX"
screens=tests/browser/screens
mkdir -p "$screens"

quiet() { "$program" --log-level error "$@" >/dev/null; }
(
    cd "$work"
    quiet simulate --phantom --box 64 --pixel-size 4 --particles 2000 --seed 3 --snr 0.3 --preference 2 -o particles.h5
    quiet train particles.h5 -o run --gaussians 300 --epochs 10 --mixtures 1
    quiet backproject particles.h5 -o voxels
    quiet postprocess run/half1.mrc run/half2.mrc -o run/post
)

# shot PAGE PICTURE WIDTH HEIGHT [dark]: a picture of half the size of the window.
shot() {
    local options=(--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --hide-scrollbars
        --virtual-time-budget=20000 --run-all-compositor-stages-before-draw --force-device-scale-factor=0.5
        "--user-data-dir=$work/browser" "--window-size=$3,$4" "--screenshot=$PWD/$screens/$2.png")
    [ "${5:-}" != dark ] || options+=(--blink-settings=preferredColorScheme=0)
    timeout 180 "$browser" "${options[@]}" "file://$1" >"$work/log" 2>&1 </dev/null || { cat "$work/log" >&2; exit 1; }
}

# A window is at least 500 px wide, a frame is not.
phone() {
    printf '<!DOCTYPE html><html><body style="margin:0"><iframe src="%s" style="width:390px;height:5200px;border:0"></iframe></body></html>' \
        "$1" >"$work/phone.html"
}

shot "$work/run/report.html" report_light 1120 5600
shot "$work/run/report.html" report_dark 1120 5600 dark
shot "$work/run/post.html" post_light 1120 3600
shot "$work/voxels/report.html" voxels_dark 1120 3600 dark
phone "$work/run/report.html"
shot "$work/phone.html" report_phone 500 5200
say "$(du -ch "$screens"/*.png | tail -n 1)"
