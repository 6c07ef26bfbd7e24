#!/usr/bin/env python3
"""Compares the outputs of two programs over the cases of matrix.py: see run.sh, which starts this."""

import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import sys

import h5py
import numpy as np

import normal
from matrix import cases
from runner import Program

# Programs whose outputs are kept.
KEPT = 3


def options():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-binary", required=True, metavar="PATH", help="the program that is right")
    parser.add_argument("--binary", required=True, metavar="PATH", help="the program to compare with it")
    parser.add_argument("--cache", required=True, metavar="FOLDER", help="where outputs are kept")
    parser.add_argument("--emulator", metavar="FOLDER", help="the emulator of CUDA's libraries")
    parser.add_argument("--shared", metavar="FOLDER", help="extra inputs: data/real below it")
    repeated = {"action": "append", "default": []}
    parser.add_argument("--expect", **repeated, metavar="FILE", help="stated exceptions: CASE FILE KEY REASON...")
    parser.add_argument("--only", **repeated, metavar="PATTERN", help="cases whose names match, such as 'train-*'")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="cases at a time")
    parser.add_argument("--fresh", action="store_true", help="run all cases of --binary again")
    parser.add_argument("--text", action="store_true", help="show how wording differs, too")
    parser.add_argument("--values", type=int, default=4, metavar="N", help="differing values to show of each file")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--self-test", action="store_true", help="show that a changed bit is found in each kind of file")
    return parser.parse_args()


def glob(pattern):
    """A pattern with * and ? alone as wildcards: keys contain brackets."""
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") + r"\Z", re.DOTALL)


class Exceptions:
    """Differences that the caller expects, each with its reason."""

    def __init__(self, files):
        self.rules = []
        for file in files:
            for number, line in enumerate(pathlib.Path(file).read_text().splitlines(), 1):
                fields = shlex.split(line, comments=True)
                if not fields:
                    continue
                if len(fields) < 4:
                    sys.exit(f"error: {file}: line {number}: expected CASE FILE KEY REASON..., found `{line}`")
                self.rules.append([*map(glob, fields[:3]), " ".join(fields), 0])

    def hold(self, case, file, key):
        """Is this difference expected?"""
        found = False
        for rule in self.rules:
            if rule[0].match(case) and rule[1].match(file) and rule[2].match(key):
                rule[4] += 1
                found = True
        return found


def state(program, case):
    """The entries of a case's outputs, by file."""
    folder = program.cases / case
    # What the binary, the folder and the inputs are called differs between the two programs.
    places = [(str(folder / "in"), "INPUTS"), (str(folder), "CASE")]
    for cached in program.folder.parent.iterdir():
        places.append((str(cached / "inputs"), "INPUTS"))
        if (cached / "paths").exists():
            places += [(path, "PROGRAM") for path in (cached / "paths").read_text().splitlines()]
    return normal.folder_entries(folder, places, case)


def differences(base, other):
    """The entries that differ: (class, file, key, value in base, value in the other)."""
    found = []
    for file in sorted(base.keys() | other.keys()):
        if file not in base or file not in other:
            found.append(("data", file, "-", *("there" if file in side else "missing" for side in (base, other))))
            continue
        for kind, key in sorted(base[file].keys() | other[file].keys()):
            pair = [side[file].get((kind, key), "(none)") for side in (base, other)]
            if pair[0] != pair[1]:
                found.append((kind, file, key, *pair))
    return found


def short(value):
    """A value on one line."""
    text = str(value).replace("\n", " | ")
    return text if len(text) <= 100 else text[:97] + "..."


def show(found, limit):
    """Prints differing values, at most `limit` of each file."""
    shown = {}
    for _, file, key, base, other in found:
        shown[file] = shown.get(file, 0) + 1
        if shown[file] <= limit:
            print(f"    {file}: {key}: {short(base)} -> {short(other)}")
    for file, count in shown.items():
        if count > limit:
            print(f"    {file}: ... {count - limit} more")


def show_words(found):
    """Prints the lines of texts that differ."""
    for _, file, key, base, other in found:
        lines = [str(side).splitlines() for side in (base, other)]
        for sign, own, others in (("-", *lines), ("+", *reversed(lines))):
            for line in own:
                if line not in others:
                    print(f"    {sign} {file}: {key}: {short(line)}")


def compare(programs, chosen, failures, exceptions, arguments):
    """Prints the table; returns how many cases differ."""
    counts = {"same": 0, "text": 0, "expected": 0, "DIFFERS": 0, "FAILED": 0}
    width = max(len(case.name) for case in chosen)
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        states = [pool.map(state, [program] * len(chosen), [case.name for case in chosen]) for program in programs]
        print(f"{'case':{width}}  files  values  result")
        for case, base, other in zip(chosen, *states):
            name = case.name
            if name in failures:
                counts["FAILED"] += 1
                print(f"{name:{width}}      -       -  FAILED: {failures[name]}")
                continue
            found = differences(base, other)
            data = [one for one in found if one[0] == "data"]
            text = [one for one in found if one[0] == "text"]
            wrong = [one for one in data if not exceptions.hold(name, one[1], one[2])]
            result = "DIFFERS" if wrong else "expected" if data else "text" if text else "same"
            counts[result] += 1
            listed = wrong or data or text
            names = ", ".join(dict.fromkeys(one[1] for one in listed))
            values = sum(map(len, base.values()))
            print(f"{name:{width}}  {len(base):5d}  {values:6d}  {result}{': ' + names if names else ''}")
            show(wrong, arguments.values)
            if arguments.text:
                show_words(text)
    print(", ".join(f"{count} {word}" for word, count in counts.items() if count or word == "same"))
    for rule in exceptions.rules:
        print(f"exception, {rule[4]} values: {rule[3]}")
    return counts["DIFFERS"] + counts["FAILED"]


def flip_number(path):
    """Changes one bit in a data set of numbers of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        numbers = [file[name] for name in names if file[name].size and file[name].dtype.kind in "fui"]
        chosen = numbers[len(numbers) // 2]
        raw = bytearray(chosen[()].tobytes())
        raw[len(raw) // 2] ^= 1
        chosen[()] = np.frombuffer(bytes(raw), chosen.dtype).reshape(chosen.shape)


def flip(path):
    """Changes one bit of a file; in a text, one that makes a digit another digit."""
    if path.suffix == ".h5":
        flip_number(path)
        return
    raw = bytearray(path.read_bytes())
    if path.suffix in (".json", ".jsonl"):
        found = re.search(rb'"loss":\s*\d\.(\d)', raw) or re.search(rb":\s*-?\d+\.(\d)", raw)
        at = found.start(1)
    elif path.suffix == ".svg":
        at = re.search(rb'<path d="M(\d)', raw).start(1)
    elif path.suffix in (".csv", ".star", ".cif", ".pdb"):
        at = [m.start() for m in re.finditer(rb"\d", raw)][-2]
    else:
        at = len(raw) * 2 // 3
    raw[at] ^= 1
    path.write_bytes(raw)


def self_test(program, chosen):
    """Changes one file of each kind in copies of the outputs; returns how many changes are not found."""
    missed, seen = 0, set()
    for case in chosen:
        folder = program.cases / case.name
        for path in sorted(folder.rglob("*")):
            kind = path.suffix
            inside = path.relative_to(folder).as_posix()
            if not path.is_file() or inside.startswith(("in/", ".log/")) or kind in seen or kind in (".md", ".prom", ".html"):
                continue
            seen.add(kind)
            copy = program.folder / f"flipped{kind}"
            shutil.copyfile(path, copy)
            before = normal.entries(copy, inside, [], case.name)
            flip(copy)
            found = differences({inside: before}, {inside: normal.entries(copy, inside, [], case.name)})
            copy.unlink()
            data = [one for one in found if one[0] == "data"]
            missed += not data
            print(f"{kind:7s} {case.name}/{inside}: {'found: ' + data[0][2] if data else 'MISSED'}")
    return missed


def main():
    """Runs what is not in the cache, and compares."""
    arguments = options()
    chosen = [case for case in cases() if not arguments.only or any(fnmatch.fnmatch(case.name, only) for only in arguments.only)]
    if not chosen:
        sys.exit("error: no case matches --only")
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        machine = set(re.findall(r"\bavx2\b|\bavx512f\b", file.read()))
    shared = pathlib.Path(arguments.shared).resolve() if arguments.shared else None
    machine |= {"shared"} if shared and (shared / "data/real").is_dir() else set()
    machine |= {"emulator"} if arguments.emulator else set()
    for case in chosen:
        for need in set(case.needs) - machine:
            print(f"skipped: {case.name}: this machine has no {need}")
    chosen = [case for case in chosen if machine.issuperset(case.needs)]
    if arguments.list:
        print("\n".join(case.name for case in chosen))
        return 0
    emulator = pathlib.Path(arguments.emulator).resolve() if arguments.emulator else None
    exceptions = Exceptions(arguments.expect)
    programs = [Program(binary, arguments.cache, emulator, shared) for binary in (arguments.base_binary, arguments.binary)]
    if programs[0].hash == programs[1].hash:
        # The same program: its second run is kept apart, and shows whether outputs repeat.
        programs[1].folder = programs[1].folder.with_name(programs[1].folder.name + "-again")
        programs[1].cases = programs[1].folder / "cases"
        programs[1].cases.mkdir(parents=True, exist_ok=True)
        os.utime(programs[1].folder)
    if arguments.fresh:
        shutil.rmtree(programs[1].cases)
        programs[1].cases.mkdir()
    kept = sorted(pathlib.Path(arguments.cache).iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for old in kept[KEPT:]:
        shutil.rmtree(old)
    data = programs[0].make_inputs()
    failures = {}
    for program, role in zip(programs, ("base", "new")):
        print(f"{role}: {program.binary} ({program.hash[:16]})")
        failed, seconds = program.run_cases(chosen, data, arguments.jobs)
        failures |= {name: f"{role}: {why}" for name, why in failed.items()}
        slow = sorted(seconds.items(), key=lambda item: -item[1])[:3]
        print(f"  {sum(seconds.values()):.0f} s in all; longest: " + ", ".join(f"{name} {took:.1f} s" for name, took in slow))
    # A case of the base that does not do what it is meant to shows nothing.
    failures |= {name: f"base: {why}" for name, why in programs[0].unexpected(chosen).items() if name not in failures}
    if arguments.self_test:
        return self_test(programs[0], chosen)
    return compare(programs, chosen, failures, exceptions, arguments)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
