#!/usr/bin/env python3
"""Licences of all crates in the program, for the release archive: reads `cargo metadata` from standard input, prints the texts.

A crate without a text of its own that offers Apache-2.0 is distributed under it; its text is in LICENSE. Any other crate without a
text is an error, as is one whose licence is unknown.
"""
import json
import pathlib
import sys

NAMES = ("LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def crates(metadata):
    """The packages that are linked into the program or run to build it, without tests' and benches' own."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package in seen:
            continue
        seen.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    packages = (package for package in metadata["packages"] if package["id"] in seen - {root})
    return sorted(packages, key=lambda package: (package["name"], package["version"]))


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    found = {path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(NAMES)}
    if package["license_file"]:
        found.add(folder / package["license_file"])
    return [path.read_text(errors="replace").strip() for path in sorted(found)]


def main():
    packages = crates(json.load(sys.stdin))
    shared, problems = {}, []
    print("# Licences of the crates in cryosplat-mpi\n")
    for package in packages:
        name, licence = f"{package['name']} {package['version']}", package["license"]
        own = texts(package)
        if not licence and not own:
            problems.append(f"{name}: no licence is named and no text is there")
        elif not own and "Apache-2.0" not in (licence or ""):
            problems.append(f"{name}: {licence}, but no text is there")
        if not own:
            print(f"{name}: {licence}; used under Apache-2.0, whose text is in LICENSE")
            continue
        numbers = [shared.setdefault(text, len(shared) + 1) for text in own]
        print(f"{name}: {licence}; texts {', '.join(map(str, numbers))}")
    for text, number in shared.items():
        print(f"\n{'=' * 40} text {number}\n\n{text}")
    for problem in problems:
        print(f"error: {problem}: ask its authors, or replace it", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
