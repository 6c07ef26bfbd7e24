"""Which faults of the metadata `diagnose` names: random sets, simulated and reconstructed by `backproject`, each without a fault and with
many. Writes a table. Usage: python benches/diagnose_metadata.py PROGRAM FOLDER SETS FIRST_SEED [MODEL.cif...]
"""

import json
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np

from diagnose import Star, angles, matrix, turn

PARTICLES, OPTICS = "data_particles", "data_optics"
POSE, ORIGIN, DEFOCUS = ("AngleRot", "AngleTilt", "AnglePsi"), ("OriginXAngst", "OriginYAngst"), ("DefocusU", "DefocusV")
DRAW = np.random.default_rng(1)


def scaled(columns, factor, block=PARTICLES):
    return lambda star: star.change(block, lambda *values: [factor * value for value in values], *columns)


def added(columns, numbers):
    return lambda star: star.change(PARTICLES, lambda *values: np.add(values, numbers), *columns)


def pixel_size(star):
    return float(star.rows[OPTICS][0][1][star.columns[OPTICS]["ImagePixelSize"]])


def in_pixels(columns, change):
    """A change of the origins in pixels."""

    def edit(star):
        size = pixel_size(star)
        star.change(PARTICLES, lambda *values: size * np.asarray(change(np.divide(values, size))), *columns)

    return edit


def scattered(degrees):
    return lambda star: star.change(PARTICLES, lambda *pose: angles(turn(DRAW.normal(size=3) * degrees) @ matrix(*pose)), *POSE)


def mixed_up(share):
    """Poses and origins of a share of the particles belong to the next of them."""

    def edit(star):
        rows = star.rows[PARTICLES]
        chosen = sorted(DRAW.choice(len(rows), int(share * len(rows)), replace=False))
        places = [star.columns[PARTICLES][name] for name in POSE + ORIGIN]
        words = [[rows[at][1][place] for place in places] for at in chosen]
        for at, own in zip(chosen, words[1:] + words[:1]):
            for place, word in zip(places, own):
                rows[at][1][place] = word

    return edit


def in_group_2(edit):
    """A change of the second optics group alone."""

    def of_group(star):
        whole = {block: list(rows) for block, rows in star.rows.items()}
        for block, rows in whole.items():
            place = star.columns[block]["OpticsGroup"]
            star.rows[block] = [row for row in rows if row[1][place] == "2"]
        edit(star)
        star.rows = whole

    return of_group


def both(*edits):
    return lambda star: [edit(star) for edit in edits]


# Name; what is done; the findings that name it; options of import.
FAULTS = [
    ("origins of the other sign", scaled(ORIGIN, -1), {"origins-sign"}),
    ("origins halved", scaled(ORIGIN, 0.5), {"origins-unit"}),
    ("origins doubled", scaled(ORIGIN, 2), {"origins-unit"}),
    ("origins in pixels as angstrom", lambda star: scaled(ORIGIN, 1 / pixel_size(star))(star), {"origins-unit"}),
    ("x and y of the origins exchanged", lambda star: star.change(PARTICLES, lambda x, y: (y, x), *ORIGIN), {"origins-axes"}),
    ("origins + 1 px", in_pixels(ORIGIN[:1], lambda x: x + 1), {"origins-offset"}),
    ("origins + 2 px", in_pixels(ORIGIN[:1], lambda x: x + 2), {"origins-offset"}),
    ("errors of 1 px in the origins", in_pixels(ORIGIN, lambda xy: xy + DRAW.normal(size=2)), {"shifts"}),
    ("errors of 2 px in the origins", in_pixels(ORIGIN, lambda xy: xy + 2 * DRAW.normal(size=2)), {"shifts"}),
    ("errors of 2 degrees in the poses", scattered(2), {"poses"}),
    ("errors of 4 degrees in the poses", scattered(4), {"poses"}),
    ("errors of 8 degrees in the poses", scattered(8), {"poses"}),
    ("all angles negated", scaled(POSE, -1), {"pose-convention"}),
    ("psi negated", scaled(POSE[2:], -1), {"pose-convention"}),
    ("psi + 90 degrees", added(POSE[2:], [90]), {"pose-convention"}),
    ("inverse rotations", lambda star: star.change(PARTICLES, lambda *pose: angles(matrix(*pose).T), *POSE), {"pose-convention"}),
    ("rows mixed up", mixed_up(1), {"poses", "no-agreement"}),
    ("30% of the rows mixed up", mixed_up(0.3), {"junk", "poses"}),
    ("defocus times 0.9", scaled(DEFOCUS, 0.9), {"defocus", "pixel-size"}),
    ("defocus times 1.2", scaled(DEFOCUS, 1.2), {"defocus", "pixel-size"}),
    ("defocus times 1.6", scaled(DEFOCUS, 1.6), {"defocus", "voltage", "pixel-size"}),
    ("defocus + 1,500 A", added(DEFOCUS, [1500, 1500]), {"defocus"}),
    ("defocus + 4,000 A", added(DEFOCUS, [4000, 4000]), {"defocus"}),
    ("defocus in nanometres", scaled(DEFOCUS, 0.1), {"defocus"}),
    ("amplitude contrast 0.4", lambda star: star.change(OPTICS, lambda _: 0.4, "AmplitudeContrast"), {"amplitude-contrast"}),
    ("pixel size times 1.05", scaled(["ImagePixelSize"], 1.05, OPTICS), {"pixel-size", "defocus"}),
    ("pixel size times 1.15", scaled(["ImagePixelSize"], 1.15, OPTICS), {"pixel-size", "defocus"}),
    ("pixel size times 2", scaled(["ImagePixelSize"], 2, OPTICS), {"pixel-size"}),
    ("one group: pixel size times 1.1", in_group_2(scaled(["ImagePixelSize"], 1.1, OPTICS)), {"pixel-size"}),
    ("one group: defocus times 1.4", in_group_2(scaled(DEFOCUS, 1.4)), {"defocus"}),
    ("one group: origins of the other sign", in_group_2(scaled(ORIGIN, -1)), {"origins-sign"}),
    ("contrast inverted, origins of the other sign", scaled(ORIGIN, -1), {"contrast-inverted", "origins-sign"}, "--invert"),
    ("errors of 4 degrees, defocus times 1.4", both(scattered(4), scaled(DEFOCUS, 1.4)), {"defocus", "poses", "pixel-size"}),
]


def run(program, *arguments):
    done = subprocess.run([program, "--log-level", "error", *map(str, arguments)], capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{arguments}: {done.stderr}")
    return done.stdout


def findings(program, folder, star, options):
    """The serious findings of a set."""
    file, out = folder / "set.h5", folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    file.unlink(missing_ok=True)
    run(program, "import", star, "-o", file, *options)
    run(program, "backproject", file, "-o", out)
    found = json.loads(run(program, "diagnose", out, "--json"))["findings"]
    return [finding["id"] for finding in found if finding["severity"] in ("warning", "fault")]


def simulate(program, folder, seed, models):
    """A random set; what it is in words."""
    pick = random.Random(seed).choice
    model = pick(["", *models])
    box, size = (pick([48, 64]), pick([7.0, 7.5, 8.0])) if model else (pick([40, 48, 64, 80]), pick([3.0, 4.0, 5.0]))
    count, snr = pick([1000, 1500, 2500]), pick([0.05, 0.1, 0.2])
    specimen = ["--model", model] if model else ["--phantom"]
    run(program, "simulate", *specimen, "--box", box, "--pixel-size", size, "-n", count, "--snr", snr, "--max-shift", 3,
        "--defocus-median", 15000, "--noise-groups", "1,1", "--seed", seed, "--star", folder, "-o", folder / "simulated.h5")
    return f"{pathlib.Path(model).stem or 'phantom'}, {box} px of {size:g} A, {count} particles, SNR {snr}"


def main(program, folder, sets, first, *models):
    folder, sets, first = pathlib.Path(folder), int(sets), int(first)
    cells, words = {name: [] for name, *_ in FAULTS}, []
    sound = []
    for seed in range(first, first + sets):
        of_set = folder / str(seed)
        of_set.mkdir(parents=True, exist_ok=True)
        words.append(simulate(program, of_set, seed, models))
        star = of_set / "particles.star"
        sound.append(findings(program, of_set, star, []))
        print(f"{seed}: {words[-1]}: {sound[-1]}", file=sys.stderr, flush=True)
        for name, edit, right, *options in FAULTS:
            edited = Star(star)
            edit(edited)
            edited.write(of_set / "edited.star")
            found = findings(program, of_set, of_set / "edited.star", options)
            cell = "named" if found and found[0] in right else f"`{found[0]}`" if found else "missed"
            cells[name].append(cell)
            print(f"{seed}: {name}: {cell}", file=sys.stderr, flush=True)
        shutil.rmtree(of_set)
    print("| Fault | Named | " + " | ".join(str(seed) for seed in range(first, first + sets)) + " |")
    print("|---|--:|" + "---|" * sets)
    accused = sum(bool(found) for found in sound)
    print(f"| none | {accused} accused | " + " | ".join(", ".join(f"`{one}`" for one in found) or "nothing" for found in sound) + " |")
    for name, row in cells.items():
        print(f"| {name} | {row.count('named')} of {len(row)} | " + " | ".join(row) + " |")
    print("\nThe sets: " + "; ".join(f"{first + at}: {text}" for at, text in enumerate(words)) + ".")


main(*sys.argv[1:])
