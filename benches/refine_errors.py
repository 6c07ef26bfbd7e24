"""Prints the median error in degrees of the poses of a STAR file, modulo a point group, and that of its defoci in angstrom, if any.

python refine_errors.py PARTICLES.star TRUTH.csv GROUP COLUMN. TRUTH.csv is the table of `simulate`; its COLUMN, `particle` or `row`, is the
number of an image in the stack of the STAR file.
"""

import csv
import subprocess
import sys

import numpy as np


def rotations(angles):
    """W (docs/method.md, section 1) of RELION's angles rot, tilt, psi in degrees."""
    (cf, ct, cp), (sf, st, sp) = np.cos(np.radians(angles)).T, np.sin(np.radians(angles)).T
    rows = [
        [cp * ct * cf - sp * sf, cp * ct * sf + sp * cf, -cp * st],
        [-sp * ct * cf - cp * sf, -sp * ct * sf + cp * cf, sp * st],
        [st * cf, st * sf, ct],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def particles(path):
    """Number of the image in its stack, angles and first defocus of each particle."""
    columns, rows, inside = {}, [], False
    with open(path) as file:
        for line in file:
            words = line.split()
            if line.startswith("data_"):
                inside, columns = line.strip() != "data_optics", {}
            elif words and words[0].startswith("_rln"):
                columns[words[0]] = len(columns)
            elif inside and len(words) > 3 and len(words) == len(columns):
                rows.append(words)
                names = dict(columns)
    number = np.array([int(row[names["_rlnImageName"]].split("@")[0]) for row in rows])
    values = lambda *labels: np.array([[float(row[names[f"_rln{label}"]]) for label in labels] for row in rows])
    return number, values("AngleRot", "AngleTilt", "AnglePsi"), values("DefocusU")[:, 0]


def operators(group):
    """The operators of a group as relion_refine prints them."""
    if group.upper() == "C1":
        return np.eye(3)[None]
    command = ["relion_refine", "--print_symmetry_ops", "--sym", group]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, lines = [np.eye(3)], text.splitlines()
    for at, line in enumerate(lines):
        if line.strip().startswith("R("):
            found.append(np.array([[float(v) for v in row.split()] for row in lines[at + 1 : at + 4]]))
    return np.array(found)


star, truth, group, column = sys.argv[1:]
number, angles, defoci = particles(star)
with open(truth) as file:
    table = sorted(csv.DictReader(file), key=lambda line: int(line[column]))
right = np.array([[float(line[name]) for name in ("rot", "tilt", "psi", "defocus_u")] for line in table])[number - 1]
off = np.median(np.abs(defoci - right[:, 3]))
found, right = rotations(angles), rotations(right[:, :3])
traces = [np.einsum("nij,jk,nik->n", found, g, right) for g in operators(group)]
error = np.degrees(np.arccos(np.clip((np.max(traces, axis=0) - 1) / 2, -1, 1)))
print(f"{np.median(error):.2f}" + (f" (defocus {off:.0f} A)" if off > 1 else ""))
