"""Makes faults for benches/diagnose.sh, and its tables.

python diagnose.py select STAR COUNT AXIS DEGREES OUT.star  the first COUNT particles seen within DEGREES of the AXIS (x, y, z) or its opposite
python diagnose.py edit STAR FAULT SIZE OUT.star            a fault of the metadata, or of the stack beside STAR (then also OUT.mrcs)
python diagnose.py tables FOLDER                            tables of the findings under FOLDER/sound and FOLDER/fault
"""

import json
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
    elif fault == "copies":
        rows = [row for row in star.rows[particles] if row[1][star.columns[particles]["RandomSubset"]] == "1"]
        place = star.columns[particles]["RandomSubset"]
        other = [words[:place] + ["2"] + words[place + 1 :] for _, words in rows]
        free = sorted({at for at, _ in star.rows[particles]} - {at for at, _ in rows})
        star.rows[particles] = sorted(rows + list(zip(free, other)))
    elif fault in ("flipped", "phase-flipped"):
        import mrcfile

        stack = path.replace(".star", ".mrcs")
        with mrcfile.open(stack) as file:
            images, voxel = file.data.copy(), file.voxel_size.copy()
        box = images.shape[-1]
        if fault == "flipped":
            images = np.roll(images[:, ::-1], 1, axis=1)
        else:
            numbers = [int(words[star.columns[particles]["ImageName"]].split("@")[0]) - 1 for _, words in star.rows[particles]]
            for number, signs in zip(numbers, ctf_signs(star, box)):
                images[number] = np.fft.irfft2(np.fft.rfft2(images[number]) * signs, s=(box, box))
        made = output.with_suffix(".mrcs")
        with mrcfile.new(made, overwrite=True) as file:
            file.set_data(images.astype(np.float32))
            file.voxel_size = voxel
        place = star.columns[particles]["ImageName"]
        for _, words in star.rows[particles]:
            words[place] = words[place].split("@")[0] + "@" + made.name
    else:
        sys.exit(f"no fault is named {fault}")
    star.write(output)


# The findings that name a fault. Any one of them will do.
RIGHT = {
    "poses": {"poses"},
    "origins-sign": {"origins-sign", "origins"},
    "origins-none": {"origins-none", "origins"},
    "origins-twice": {"origins-twice", "origins"},
    "defocus": {"defocus"},
    "pixel-size": {"pixel-size"},
    "contrast": {"contrast-inverted"},
    "cone": {"missing-cone"},
    "small": {"model-too-small", "training-too-short"},
    "transposed": {"poses-transposed"},
    "flipped": {"images-flipped"},
    "phase-flipped": {"ctf-phase-flipped"},
    "voltage": {"voltage"},
    "junk": {"junk"},
    "symmetry-unused": {"symmetry-unused"},
    "symmetry-c2-wrong": {"symmetry-wrong"},
    "symmetry-d3-wrong": {"symmetry-wrong"},
    "copies": {"copies"},
    "noise": {"noise-coloured"},
    "phase-plate": {"phase-shift"},
}
SERIOUS = ("warning", "fault")


def right(fault):
    """The findings that name `fault`, which may end with its size."""
    return next(findings for name, findings in RIGHT.items() if fault == name or fault.startswith(name + "-"))


def diagnoses(folder):
    """Name and diagnosis of each run under `folder`, in the order of their names."""
    for path in sorted(pathlib.Path(folder).glob("*/diagnosis.json")):
        yield path.parent.name, json.loads(path.read_text())


def tables(folder):
    """Prints both tables."""
    sounds = dict(diagnoses(f"{folder}/sound"))
    groups = {group: [name for name in sounds if name.startswith(group)] for group in "ab"}
    print(f"Sound sets: {len(groups['a'])} of group A, {len(groups['b'])} of group B.\n")
    print("| Finding | A | B | Sets |\n|---|--:|--:|---|")
    alarms = {}
    for name, diagnosis in sounds.items():
        for finding in diagnosis["findings"]:
            alarms.setdefault((finding["id"], finding["severity"]), []).append(name)
    for (finding, severity), names in sorted(alarms.items()):
        counts = " | ".join(str(sum(name.startswith(group) for name in names)) for group in "ab")
        print(f"| `{finding}` ({severity}) | {counts} | {', '.join(names)} |")
    cells = {}
    for name, diagnosis in diagnoses(f"{folder}/fault"):
        base, fault = name.split("-", 1)
        findings = [finding["id"] for finding in diagnosis["findings"] if finding["severity"] in SERIOUS]
        notes = [finding["id"] for finding in diagnosis["findings"]]
        good = right(fault)
        if findings and findings[0] in good:
            cell = "named"
        elif good & set(findings):
            cell = f"named after `{findings[0]}`"
        elif good & set(notes):
            cell = "noted"
        else:
            cell = f"`{findings[0]}`" if findings else "missed"
        cells.setdefault(fault, {})[base] = cell
    bases = sorted({base for row in cells.values() for base in row})
    print(f"\n| Fault | {' | '.join(bases)} |\n|---|{'---|' * len(bases)}")
    for fault in sorted(cells, key=lambda fault: (list(RIGHT).index(next(n for n in RIGHT if fault == n or fault.startswith(n + '-'))), fault)):
        print(f"| {fault} | {' | '.join(cells[fault].get(base, '') for base in bases)} |")
    print()
    for group in "ab":
        found = [cell for row in cells.values() for base, cell in row.items() if base.startswith(group)]
        named = sum(cell.startswith("named") for cell in found)
        print(f"Group {group.upper()}: {named} of {len(found)} faults named, {sum(cell == 'named' for cell in found)} of them as the first finding.\n")


if __name__ == "__main__":
    {"select": select, "edit": edit, "tables": tables}[sys.argv[1]](*sys.argv[2:])
