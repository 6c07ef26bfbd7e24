#!/usr/bin/env python3
"""Checks the recipes of slurm/packages and slurm/apptainer.def: one version, files that exist, hashes, and search paths without an
empty element, which would be the working folder. Prints every problem; the exit code is 1 if there is one.
"""
import ast
import pathlib
import re
import subprocess
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parents[2]
RECIPES = TOP / "slurm/packages"
MANIFEST = tomllib.loads((TOP / "Cargo.toml").read_text())["package"]
VERSION, RUST = MANIFEST["version"], MANIFEST["rust-version"]
problems = []


def check(condition, problem):
    if not condition:
        problems.append(problem)


def requirements(text):
    """Names of packages, and those that lack a version or a hash."""
    entries = [line for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*$", "", text)).splitlines() if line.strip()]
    bad = [entry.split()[0] for entry in entries if not re.match(r"\S+==\S+.* --hash=sha256:[0-9a-f]{64}", entry)]
    return len(entries), bad


def empty_elements(text):
    """Lines that set a search path with an empty element."""
    # ${NAME:+:$NAME} is a colon and the variable, or nothing.
    text = re.sub(r"\$\{(\w+):\+:\$\1\}", "", text)
    lines = [line for line in text.splitlines() if re.search(r"(LD_LIBRARY_PATH|PATH|PYTHONPATH)=", line)]
    # (An empty element of MANPATH stands for the system's own pages.)
    lines = [line for line in lines if "MANPATH=" not in line]
    return [line.strip() for line in lines if re.search(r"=:|::|:\s*$|:\"|:\$\{?\w+(:-)?\}?[\"\s]*$", line)]


# The checks themselves.
assert requirements("a==1 \\\n    --hash=sha256:" + "0" * 64 + "\n")[1] == []
assert requirements("a==1\n")[1] == ["a==1"] and requirements("a>=1 --hash=sha256:" + "0" * 64)[1] == ["a>=1"]
assert empty_elements("export LD_LIBRARY_PATH=/a:${LD_LIBRARY_PATH:-}") and empty_elements("export PATH=/a::/b")
assert not empty_elements("export LD_LIBRARY_PATH=/a${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")

lists = sorted(TOP.glob("tests/*/requirements.txt")) + [RECIPES / "cuda-requirements.txt"]
check(len(lists) >= 5, "the lists of Python packages were not found")
for path in lists:
    count, bad = requirements(path.read_text())
    check(count and not bad, f"{path}: without version and hash: {bad}")

definition = (TOP / "slurm/apptainer.def").read_text()
check(f"cryosplat-mpi-{VERSION}-" in definition, f"apptainer.def: expected version {VERSION} in its command")
check("--require-hashes" in definition, "apptainer.def: pip without --require-hashes")
check(
    not re.search(r"^Bootstrap: docker", definition, re.M) or not re.search(r"^From: (?!.*@sha256:)", definition, re.M),
    "apptainer.def: a base image without digest",
)
files = re.search(r"%files\n(.*?)\n\n", definition, re.S)[1]
for source in (line.split()[0] for line in files.splitlines()):
    check(source == "{{" or (TOP / source).exists(), f"apptainer.def: {source} does not exist")

scripts = [TOP / "slurm/apptainer.def", *RECIPES.rglob("*"), *TOP.glob("slurm/*.sbatch"), *TOP.glob("slurm/empiar/*.sh")]
for path in scripts:
    if path.is_file() and "__pycache__" not in path.parts:
        for line in empty_elements(path.read_text()):
            problems.append(f"{path}: a search path with an empty element: {line}")

spack = (RECIPES / "spack/cryosplat-mpi/package.py").read_text()
ast.parse(spack)
check(f'version("{VERSION}"' in spack, f"package.py: no version {VERSION}")
check(f'"rust@{RUST}:"' in spack, f"package.py: expected Rust {RUST}")

conda = (RECIPES / "conda/recipe.yaml").read_text()
check(f'version: "{VERSION}"' in conda, f"recipe.yaml: expected version {VERSION}")
check("license: " + MANIFEST["license"] in conda, "recipe.yaml: another licence")
variants = (RECIPES / "conda/variants.yaml").read_text()
check(all(f"- {mpi}" in variants for mpi in ("openmpi", "mpich")), "variants.yaml: expected openmpi and mpich")

written = subprocess.run([sys.executable, RECIPES / "easyconfig.py"], capture_output=True, text=True, check=True).stdout
easyconfig = {}
exec(compile(written, "easyconfig", "exec"), easyconfig)  # noqa: S102: an easyconfig is Python
check(easyconfig["version"] == VERSION, "easyconfig: another version")
check(len(easyconfig["checksums"]) == len(easyconfig["crates"]) + 1, "easyconfig: crates without checksum")
rust = next(version for name, version in easyconfig["builddependencies"] if name == "Rust")
check(tuple(map(int, rust.split("."))) >= tuple(map(int, RUST.split("."))), f"easyconfig: Rust {rust} is too old")

for problem in problems:
    print("wrong:", problem)
sys.exit(bool(problems))
