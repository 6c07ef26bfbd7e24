"""Expands the particles of a STAR file of RELION 3.1 by a point group, with the operators that relion_refine prints.

expand.py IN.star GROUP OUT.star      each row once per operator g, with the angles of the pose W g
"""

import subprocess
import sys

import numpy as np

ANGLES = ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"]


def operators(group):
    """The operators as relion_refine --print_symmetry_ops prints them: a line "R(n)=", then three rows."""
    command = ["relion_refine", "--print_symmetry_ops", "--sym", group]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip().startswith("R(")]
    return [np.array([[float(v) for v in lines[i + k].split()] for k in (1, 2, 3)]) for i in starts]


def rotation(rot, tilt, psi):
    """W from RELION's angles in degrees."""
    (sf, st, sp), (cf, ct, cp) = np.sin(np.radians([rot, tilt, psi])), np.cos(np.radians([rot, tilt, psi]))
    return np.array(
        [
            [cp * ct * cf - sp * sf, cp * ct * sf + sp * cf, -cp * st],
            [-sp * ct * cf - cp * sf, -sp * ct * sf + cp * cf, sp * st],
            [st * cf, st * sf, ct],
        ]
    )


def angles(w):
    """RELION's angles of W."""
    tilt = np.hypot(w[2, 0], w[2, 1])
    if tilt < 1e-9:
        return np.degrees([0, 0 if w[2, 2] > 0 else np.pi, np.arctan2(w[0, 1], w[1, 1])])
    rot, psi = np.arctan2(w[2, 1], w[2, 0]), np.arctan2(w[1, 2], -w[0, 2])
    return np.degrees([rot, np.arctan2(tilt, w[2, 2]), psi])


def main(source, group, target):
    group = operators(group)
    names = []
    with open(source) as lines, open(target, "w") as out:
        for line in lines:
            fields = line.split()
            if line.startswith("data_"):
                names = []
            elif line.startswith("_rln"):
                names.append(fields[0])
            elif ANGLES[0] in names and len(fields) == len(names):
                columns = [names.index(name) for name in ANGLES]
                w = rotation(*(float(fields[column]) for column in columns))
                for g in group:
                    for column, angle in zip(columns, angles(w @ g)):
                        fields[column] = f"{angle:.8f}"
                    out.write(" ".join(fields) + "\n")
                continue
            out.write(line)


main(*sys.argv[1:])
