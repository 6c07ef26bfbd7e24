#!/usr/bin/env python3
"""Splits each Gaussian of a mixture into two: split.py IN.ply OUT.ply.

Amplitudes are halved. The means move by half a standard deviation in both directions along the longest axis, which shrinks so
that the pair has the second moments of the original.
"""

import sys

import numpy as np

STEP = 0.5


def softplus(raw):
    return np.logaddexp(raw, 0)


def raw_of(value):
    return value + np.log(-np.expm1(-value))


def axes(q):
    """Rotation matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]).transpose(2, 0, 1)


def main():
    source, target = sys.argv[1:]
    data = open(source, "rb").read()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    header = data[:end].decode()
    names = [line.split()[2] for line in header.splitlines() if line.startswith("property float")]
    vertices = np.frombuffer(data[end:], "<f4").reshape(-1, len(names)).astype(np.float64)
    column = {name: names.index(name) for name in names}
    places, scales, turns = ([column[f"{stem}{k}"] for k in keys] for stem, keys in
                             (("", "xyz"), ("scale_", range(3)), ("rot_", range(4))))
    deviations = softplus(vertices[:, scales])
    longest = deviations.argmax(axis=1)
    every = np.arange(len(vertices))
    along = axes(vertices[:, turns])[every, :, longest]
    step = STEP * deviations[every, longest, None] * along
    deviations[every, longest] *= np.sqrt(1 - STEP**2)
    vertices[:, column["amplitude"]] = raw_of(0.5 * softplus(vertices[:, column["amplitude"]]))
    vertices[:, scales] = raw_of(deviations)
    both = np.concatenate([vertices, vertices])
    both[:, places] += np.concatenate([step, -step])
    header = header.replace(f"element vertex {len(vertices)}\n", f"element vertex {len(both)}\n")
    with open(target, "wb") as file:
        file.write(header.encode())
        file.write(both.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
