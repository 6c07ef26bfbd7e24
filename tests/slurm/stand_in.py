"""Stand-ins for entries of EMPIAR: small files with the layout, the names and the metadata of the archive's, of a phantom
whose projections are known. Nothing here is shared with the program under test.

    stand_in.py ENTRY FOLDER --box BOX [--ctf empiar10028_ctf.pkl]

writes FOLDER/data (what the entry holds), FOLDER/inputs (what cryoDRGN has published) and
FOLDER/truth.mrc, in a box of BOX pixels.
"""

import argparse
import pathlib
import pickle

import mrcfile
import numpy as np

# Box and pixel size (angstrom) of the particles: an eighth or a sixth of the pixels, over the same field of view.
ENTRIES = {"10028": (60, 6 * 1.34), "10049": (32, 6 * 1.23), "10076": (40, 8 * 1.31), "10180": (40, 8 * 1.699)}
PARTICLES = 800
NOISE = 1.0
random = np.random.default_rng(7)


def ctf_rows(path, box, pixel_size):
    """cryoDRGN's nine columns: box, pixel size, defoci (A), angle (degrees), kV, mm, amplitude contrast, phase shift."""
    if path:
        with open(path, "rb") as file:
            rows = np.array(pickle.load(file), dtype=np.float64)
        rows = rows[np.linspace(0, len(rows) - 1, PARTICLES).astype(int)]
    else:
        defocus = random.uniform(8e3, 2.5e4, PARTICLES)
        rows = np.zeros((PARTICLES, 9))
        rows[:, 2], rows[:, 3] = defocus, defocus - random.uniform(0, 500, PARTICLES)
        rows[:, 4] = random.uniform(0, 180, PARTICLES)
        rows[:, 5:8] = 300, 2.0, 0.1
    rows[:, 0], rows[:, 1] = box, pixel_size
    return rows


def transfer(rows, box, pixel_size):
    """The CTF of each row on the grid of an FFT, about +amplitude contrast at zero frequency."""
    k = np.fft.fftfreq(box, pixel_size)
    ky, kx = np.meshgrid(k, k, indexing="ij")
    k2, azimuth = kx**2 + ky**2, np.arctan2(ky, kx)
    for _, _, u, v, angle, kilovolt, millimetre, w, shift in rows:
        volt = kilovolt * 1e3
        wavelength = 12.2643 / np.sqrt(volt + 0.978466e-6 * volt**2)
        defocus = 0.5 * (u + v + (u - v) * np.cos(2 * (azimuth - np.radians(angle))))
        phase = np.pi * wavelength * defocus * k2 - np.pi / 2 * millimetre * 1e7 * wavelength**3 * k2**2
        phase = phase + np.radians(shift)
        yield np.sqrt(1 - w**2) * np.sin(phase) + w * np.cos(phase)


def rotations():
    """World to view."""
    q = random.normal(size=(PARTICLES, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    return np.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
         2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
         2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1).reshape(-1, 3, 3)


def angles(rotation):
    """RELION's rot, tilt and psi, in degrees."""
    tilt = np.arccos(np.clip(rotation[:, 2, 2], -1, 1))
    rot = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 0])
    psi = np.arctan2(rotation[:, 1, 2], -rotation[:, 0, 2])
    return np.degrees(np.stack([rot, tilt, psi], axis=1))


class Phantom:
    """Round blobs, in units of the box."""

    def __init__(self):
        self.centres = random.normal(scale=0.09, size=(40, 3))
        self.weights = random.uniform(0.5, 1.5, 40)
        self.width = 0.028

    def image(self, rotation, origin, box):
        """Its projection, off centre: moved by `origin` pixels it is centred."""
        centres = self.centres @ rotation.T - np.append(origin / box, 0)
        grid = (np.arange(box) - box // 2) / box
        x = np.exp(-0.5 * ((grid[:, None] - centres[:, 0]) / self.width) ** 2)
        y = np.exp(-0.5 * ((grid[:, None] - centres[:, 1]) / self.width) ** 2)
        return (y * self.weights) @ x.T

    def volume(self, box):
        grid = (np.arange(box) - box // 2) / box
        x, y, z = (np.exp(-0.5 * ((grid[:, None] - c) / self.width) ** 2) for c in self.centres.T)
        return np.einsum("zn,yn,xn,n->zyx", z, y, x, self.weights)


def write_mrc(path, values, pixel_size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(values.astype(np.float32))
        file.voxel_size = pixel_size
        if path.suffix == ".mrcs":
            file.set_image_stack()


def write_star(path, name, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as file:
        print(f"\ndata_{name}\n\nloop_", file=file)
        for number, label in enumerate(columns, 1):
            print(f"_rln{label} #{number}", file=file)
        for row in zip(*columns.values()):
            print(" ".join(str(value) for value in row), file=file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("entry", choices=ENTRIES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--box", type=int, required=True)
    parser.add_argument("--ctf")
    arguments = parser.parse_args()
    entry, folder = arguments.entry, arguments.folder
    data, inputs = folder / "data", folder / "inputs"
    box, pixel_size = ENTRIES[entry]

    rows, phantom, rotation = ctf_rows(arguments.ctf, box, pixel_size), Phantom(), rotations()
    origin = random.uniform(-1.5, 1.5, (PARTICLES, 2))
    images = np.array([phantom.image(r, o, box) for r, o in zip(rotation, origin)])
    images = np.array([np.fft.ifft2(np.fft.fft2(i) * h).real for i, h in zip(images, transfer(rows, box, pixel_size))])
    images = images / images.std() + NOISE * random.normal(size=images.shape)
    if entry == "10076":
        images = -images

    first = PARTICLES // 3
    stacks = {
        "10028": ["Particles/MRC_0601/001_particles.mrcs", "Particles/MRC_1901/001_particles.mrcs"],
        "10049": ["ragSEC_150309.mrcs", "ragSEC_150311.mrcs"],
        "10076": ["L17Combine_weight_local.mrc"],
        "10180": ["Micrographs_A/001.mrcs", "Micrographs_B/001.mrcs"],
    }[entry]
    parts = [images] if len(stacks) == 1 else [images[:first], images[first:]]
    names = []
    for stack, part in zip(stacks, parts):
        write_mrc(data / stack, part, pixel_size)
        names += [f"{number:06d}@{stack}" for number in range(1, len(part) + 1)]

    turns = angles(rotation)
    defocus = {"DefocusU": rows[:, 2], "DefocusV": rows[:, 3], "DefocusAngle": rows[:, 4]}
    microscope = {"Voltage": rows[:, 5], "SphericalAberration": rows[:, 6], "AmplitudeContrast": rows[:, 7]}
    # Before RELION 3.1, the pixel size was a detector's pixel and a magnification.
    detector = {"Magnification": [1e4] * PARTICLES, "DetectorPixelSize": [pixel_size] * PARTICLES}
    pose = {"AngleRot": turns[:, 0], "AngleTilt": turns[:, 1], "AnglePsi": turns[:, 2]}
    pose |= {"OriginX": origin[:, 0], "OriginY": origin[:, 1]}
    plain = {"ImageName": names, "MicrographName": range(1, PARTICLES + 1)} | defocus | microscope | detector
    if entry == "10180":
        halves = {"RandomSubset": [1 + i % 2 for i in range(PARTICLES)]}
        write_star(data / "Example/consensus_data.star", "", plain | pose | halves)
    else:
        star = {"10028": "shiny_2sets.star", "10049": "allimg.star", "10076": "Parameters.star"}[entry]
        write_star(inputs / star, "images" if entry == "10028" else "", plain)
        for name, value in [("poses.pkl", (rotation, origin / box)), ("ctf.pkl", rows.astype(np.float32))]:
            with open(inputs / name, "wb") as file:
                pickle.dump(value, file)
    write_mrc(folder / "truth.mrc", phantom.volume(arguments.box), pixel_size * box / arguments.box)


main()
