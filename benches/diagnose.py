"""Makes faults for benches/diagnose.sh, and its tables.

python diagnose.py select STAR COUNT AXIS DEGREES OUT.star  the first COUNT particles seen within DEGREES of the AXIS (x, y, z) or its opposite
python diagnose.py edit STAR FAULT SIZE OUT.star            a fault of the metadata, or of the stack beside STAR (then also OUT.mrcs)
python diagnose.py tables FOLDER                            tables of the findings under FOLDER/sound and FOLDER/fault
"""

import json
import math
import pathlib
import sys

import numpy as np


class Star:
    """A STAR file of simulate: the lines as they are, with the words of each row of its two loops."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.lines = self.path.read_text().splitlines()
        self.columns, self.rows = {}, {}
        block = None
        for at, line in enumerate(self.lines):
            words = line.split()
            if line.startswith("data_"):
                block = line.strip()
                self.columns[block], self.rows[block] = {}, []
            elif words and words[0].startswith("_rln"):
                self.columns[block][words[0].removeprefix("_rln")] = len(self.columns[block])
            elif block and words and len(words) == len(self.columns[block]):
                self.rows[block].append((at, words))

    def change(self, block, change, *labels):
        """Applies `change` to the numbers in the columns `labels` of each row."""
        places = [self.columns[block][label] for label in labels]
        for _, words in self.rows[block]:
            changed = change(*(float(words[place]) for place in places))
            for place, value in zip(places, np.atleast_1d(changed)):
                words[place] = f"{value:.8f}"

    def values(self, *labels):
        places = [self.columns["data_particles"][label] for label in labels]
        return np.array([[float(words[place]) for place in places] for _, words in self.rows["data_particles"]])

    def write(self, path):
        lines = {at: " ".join(words) for rows in self.rows.values() for at, words in rows}
        kept = [lines.get(at, line) for at, line in enumerate(self.lines) if not self.is_row(at) or at in lines]
        pathlib.Path(path).write_text("\n".join(kept) + "\n")

    def is_row(self, at):
        return at >= self.first_row

    @property
    def first_row(self):
        return max(at for at, line in enumerate(self.lines) if line.startswith("_rln")) + 1


def matrix(rot, tilt, psi):
    """The rotation of RELION's angles in degrees (docs/method.md, section 1)."""
    (cf, ct, cp), (sf, st, sp) = np.cos(np.radians([rot, tilt, psi])), np.sin(np.radians([rot, tilt, psi]))
    return np.array(
        [
            [cp * ct * cf - sp * sf, cp * ct * sf + sp * cf, -cp * st],
            [-sp * ct * cf - cp * sf, -sp * ct * sf + cp * cf, sp * st],
            [st * cf, st * sf, ct],
        ]
    )


def angles(rotation):
    """RELION's angles of a rotation, in degrees."""
    tilt = np.arccos(np.clip(rotation[2, 2], -1, 1))
    if abs(np.sin(tilt)) < 1e-9:
        return 0.0, np.degrees(tilt), np.degrees(np.arctan2(rotation[0, 1], rotation[0, 0]))
    rot = np.arctan2(rotation[2, 1], rotation[2, 0])
    psi = np.arctan2(rotation[1, 2], -rotation[0, 2])
    return np.degrees([rot, tilt, psi])


def turn(vector):
    """The rotation about `vector` by its length in degrees."""
    angle = np.radians(np.linalg.norm(vector))
    x, y, z = np.asarray(vector) / max(np.linalg.norm(vector), 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def select(path, count, axis, degrees, output):
    """The particles seen within `degrees` of an axis, or of its opposite."""
    star = Star(path)
    rows = []
    for row in star.rows["data_particles"]:
        place = star.columns["data_particles"]
        view = matrix(*(float(row[1][place[name]]) for name in ("AngleRot", "AngleTilt", "AnglePsi")))[2]
        if abs(view["xyz".index(axis)]) >= np.cos(np.radians(float(degrees))):
            rows.append(row)
    if len(rows) < int(count):
        sys.exit(f"only {len(rows)} of {count} particles within {degrees} degrees of {axis}")
    # Halves keep their sizes.
    halves = [[row for row in rows if row[1][place["RandomSubset"]] == half] for half in "12"]
    star.rows["data_particles"] = sorted(row for half in halves for row in half[: int(count) // 2])
    star.write(output)


def wavelength(volts):
    return 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))


def ctf_signs(star, box):
    """Signs of the CTFs on the half plane of numpy's rfft2, one for each particle."""
    optics = star.columns["data_optics"]
    words = star.rows["data_optics"][0][1]
    volts, cs, contrast, size = (
        float(words[optics[name]]) for name in ("Voltage", "SphericalAberration", "AmplitudeContrast", "ImagePixelSize")
    )
    wave = wavelength(volts * 1e3)
    y, x = np.meshgrid(np.fft.fftfreq(box, size), np.fft.rfftfreq(box, size), indexing="ij")
    square, angle = x**2 + y**2, np.arctan2(y, x)
    for u, v, astigmatism, phase in star.values("DefocusU", "DefocusV", "DefocusAngle", "PhaseShift"):
        defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (angle - np.radians(astigmatism)))
        chi = np.pi * wave * defocus * square - np.pi / 2 * cs * 1e7 * wave**3 * square**2
        yield np.where(np.sin(chi + np.arcsin(contrast) + np.radians(phase)) < 0, -1.0, 1.0)


def edit(path, fault, size, output):
    """Makes one fault: of the STAR file, or of its stack."""
    star, output = Star(path), pathlib.Path(output)
    particles, optics = "data_particles", "data_optics"
    draw = np.random.default_rng(1)
    if fault == "poses":
        wrong = lambda *pose: angles(turn(draw.normal(size=3) * float(size)) @ matrix(*pose))
        star.change(particles, wrong, "AngleRot", "AngleTilt", "AnglePsi")
    elif fault == "transposed":
        star.change(particles, lambda *pose: angles(matrix(*pose).T), "AngleRot", "AngleTilt", "AnglePsi")
    elif fault == "origins":
        factor = float(size)
        star.change(particles, lambda x, y: (factor * x, factor * y), "OriginXAngst", "OriginYAngst")
    elif fault == "defocus":
        factor = float(size)
        star.change(particles, lambda u, v: (factor * u, factor * v), "DefocusU", "DefocusV")
    elif fault == "pixel-size":
        star.change(optics, lambda pixel: float(size) * pixel, "ImagePixelSize")
    elif fault == "voltage":
        star.change(optics, lambda _: float(size), "Voltage")
    elif fault == "phase-plate":
        star.change(optics, lambda _: 0.1, "AmplitudeContrast")
    elif fault in ("copies", "flipped", "phase-flipped"):
        import mrcfile

        stack = path.replace(".star", ".mrcs")
        with mrcfile.open(stack) as file:
            images, voxel = file.data.copy(), file.voxel_size.copy()
        box = images.shape[-1]
        place = star.columns[particles]
        numbers = [int(words[place["ImageName"]].split("@")[0]) - 1 for _, words in star.rows[particles]]
        if fault == "flipped":
            images = np.roll(images[:, ::-1], 1, axis=1)
        elif fault == "copies":
            # Under another number and in another order, as where a micrograph was picked twice.
            halves = [[at for at, (_, words) in enumerate(star.rows[particles]) if words[place["RandomSubset"]] == half] for half in "12"]
            for one, other in zip(halves[0], reversed(halves[1])):
                images[numbers[other]] = images[numbers[one]]
                kept = {name: star.rows[particles][other][1][place[name]] for name in ("ImageName", "RandomSubset")}
                star.rows[particles][other][1][:] = star.rows[particles][one][1]
                for name, word in kept.items():
                    star.rows[particles][other][1][place[name]] = word
        else:
            for number, signs in zip(numbers, ctf_signs(star, box)):
                images[number] = np.fft.irfft2(np.fft.rfft2(images[number]) * signs, s=(box, box))
        made = output.with_suffix(".mrcs")
        with mrcfile.new(made, overwrite=True) as file:
            file.set_data(images.astype(np.float32))
            file.voxel_size = voxel
        for _, words in star.rows[particles]:
            words[place["ImageName"]] = words[place["ImageName"]].split("@")[0] + "@" + made.name
    else:
        sys.exit(f"no fault is named {fault}")
    star.write(output)


# The findings that name a fault, and those that name another with which the images cannot tell it apart. Any one of them will do.
RIGHT = {
    "poses": ({"poses"}, set()),
    "origins-sign": ({"origins-sign"}, set()),
    "origins-none": ({"shifts"}, set()),
    "origins-twice": ({"origins-unit"}, {"shifts"}),
    "defocus": ({"defocus"}, {"voltage", "pixel-size"}),
    "pixel-size": ({"pixel-size"}, {"defocus", "voltage", "origins-unit"}),
    "contrast": ({"contrast-inverted"}, set()),
    "cone": ({"missing-cone"}, {"missing-views"}),
    "small": ({"model-too-small", "training-too-short"}, {"model-behind-voxels"}),
    "transposed": ({"pose-convention"}, set()),
    "flipped": ({"pose-convention"}, {"origins-axes"}),
    "phase-flipped": ({"phase-flipped"}, set()),
    "voltage": ({"voltage"}, {"defocus", "pixel-size"}),
    "junk": ({"junk"}, set()),
    "symmetry-unused": ({"symmetry-unused"}, set()),
    "symmetry-c2-wrong": ({"symmetry-absent"}, set()),
    "symmetry-d3-wrong": ({"symmetry-absent"}, set()),
    "copies": ({"copies-in-both-halves"}, set()),
    "noise": ({"noise-coloured"}, set()),
    "phase-plate": ({"phase-shift"}, set()),
}
SERIOUS = ("warning", "fault")


def right(fault):
    """The findings that name `fault`, which may end with its size."""
    return next(findings for name, findings in RIGHT.items() if fault == name or fault.startswith(name + "-"))


def diagnoses(folder):
    """Name and diagnosis of each run under `folder`, in the order of their names."""
    for path in sorted(pathlib.Path(folder).glob("*/diagnosis.json")):
        yield path.parent.name, json.loads(path.read_text())


def cell_of(fault, findings):
    """How the findings of a run name its fault: a cell of the table."""
    good, alike = right(fault)
    serious = [finding["id"] for finding in findings if finding["severity"] in SERIOUS]
    first = serious[0] if serious else None
    if first in good:
        return "named"
    if first in alike:
        return f"alike: `{first}`"
    if good & set(serious):
        return f"after `{first}`"
    if good & {finding["id"] for finding in findings}:
        return f"after `{first}`" if first else "noted"
    return f"`{first}`" if first else "missed"


def alarms_table(sounds):
    """Rows of the findings on sound sets."""
    counts = {group: sum(name.startswith(group) for name in sounds) for group in "ab"}
    print(f"## Sound sets\n\n{counts['a']} sets of group A, {counts['b']} of group B. The number of sets with each finding; all are false alarms.\n")
    print("| Finding | A | B | Sets |\n|---|--:|--:|---|")
    alarms = {}
    for name, diagnosis in sounds.items():
        for finding in diagnosis["findings"]:
            alarms.setdefault((finding["id"], finding["severity"]), []).append(name)
    for (finding, severity), names in sorted(alarms.items()):
        numbers = " | ".join(str(sum(name.startswith(group) for name in names)) for group in "ab")
        print(f"| `{finding}` ({severity}) | {numbers} | {', '.join(names)} |")
    bad = [{name for (_, severity), names in alarms.items() if severity in SERIOUS for name in names if name.startswith(group)} for group in "ab"]
    print(f"| any warning or fault | {len(bad[0])} | {len(bad[1])} | |")
    count, most = len(sounds), 0.0
    # Of as few or fewer alarms among all sets, a rate has a probability of 5% at its upper limit.
    alarms = len(bad[0]) + len(bad[1])
    chance = lambda rate: sum(math.comb(count, at) * rate**at * (1 - rate) ** (count - at) for at in range(alarms + 1))
    while count and most < 1 and chance(most) > 0.05:
        most += 0.001
    print(f"\nWith {alarms} of {count} sets the rate of sound sets with a warning or a fault is below {100 * most:.0f}% (95% confidence); to show 2% takes 150 sets.")


def faults_table(diagnosed):
    """Rows of the faults, and sums over each group."""
    order = list(RIGHT)
    cells = {}
    for name, diagnosis in diagnosed:
        base, fault = name.split("-", 1)
        cells.setdefault(fault, {})[base] = cell_of(fault, diagnosis["findings"])
    bases = sorted({base for row in cells.values() for base in row})
    print("\n## Faults\n")
    print("Named: the first finding, a warning or a fault, is the right one. Noted: it is a note, and nothing is more serious. Alike: the first is a")
    print("fault with which these images cannot tell it apart. After: the right one comes after another. Else the first finding, or missed.\n")
    print(f"| Fault | {' | '.join(bases)} |\n|---|{'---|' * len(bases)}")
    place = lambda fault: next(at for at, name in enumerate(order) if fault == name or fault.startswith(name + "-"))
    for fault in sorted(cells, key=lambda fault: (place(fault), fault)):
        print(f"| {fault} | {' | '.join(cells[fault].get(base, '') for base in bases)} |")
    print("\n| Group | Runs | Named or noted | Alike | After another | Another only | Missed |\n|---|--:|--:|--:|--:|--:|--:|")
    for group in "ab":
        found = [cell for row in cells.values() for base, cell in row.items() if base.startswith(group)]
        kinds = [("named", "noted"), "alike", "after", "`", "missed"]
        print(f"| {group.upper()} | {len(found)} | {' | '.join(str(sum(cell.startswith(kind) for cell in found)) for kind in kinds)} |")


def tables(folder):
    """Prints both tables."""
    alarms_table(dict(diagnoses(f"{folder}/sound")))
    faults_table(diagnoses(f"{folder}/fault"))


if __name__ == "__main__":
    {"select": select, "edit": edit, "tables": tables}[sys.argv[1]](*sys.argv[2:])
