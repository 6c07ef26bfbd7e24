#!/usr/bin/env bash
# Screenshot of the first screen of a report in Chromium.
#
#   tests/browser/picture.sh REPORT.html PICTURE.png
set -euo pipefail
[ "$#" -eq 2 ] || { echo "usage: picture.sh REPORT.html PICTURE.png" >&2; exit 2; }
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    { echo "error: chromium is missing: make setup-tests" >&2; exit 1; }
profile=$(mktemp --directory)
trap 'rm -rf "$profile"' EXIT
timeout 120 "$browser" --headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --hide-scrollbars \
    "--window-size=860,1260" --virtual-time-budget=20000 --run-all-compositor-stages-before-draw --user-data-dir="$profile" \
    "--screenshot=$(realpath "$2")" "file://$(realpath "$1")" >"$profile/log" 2>&1 </dev/null || { cat "$profile/log" >&2; exit 1; }
