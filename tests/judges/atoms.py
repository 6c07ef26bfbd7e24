"""Reads pseudo-atoms with gemmi and computes their density.

atoms.py MODEL MAP.mrc --above CC        the density of the model, in the frame of the map's header, correlates with the map

Only the definitions of the formats are used: positions, occupancies and anisotropic displacements. A shifted model must fit worse.
Prints a summary; exits with 1 and a message if a check fails.
"""

import argparse
import sys

import gemmi
import mrcfile
import numpy as np

# Half width of the density of an atom, in standard deviations.
REACH = 5
# Largest distance of the model from its best position, in voxels.
NEAR = 0.1


def wrong(message):
    print(f"wrong: {message}")
    sys.exit(1)


def atoms_of(path):
    """Positions (n, 3), occupancies (n) and displacements (n, 3, 3), in angstrom."""
    structure = gemmi.read_structure(path)
    atoms = [cra.atom for cra in structure[0].all()]
    positions = np.array([atom.pos.tolist() for atom in atoms])
    displacements = np.array([np.array(atom.aniso.as_mat33().tolist()) for atom in atoms])
    for atom, displacement in zip(atoms, displacements):
        isotropic = 8 * np.pi**2 / 3 * np.trace(displacement)
        if not abs(atom.b_iso / isotropic - 1) < 1e-3:
            wrong(f"{path}: a B factor of {atom.b_iso}, and {isotropic} by its displacement")
    return positions, np.array([atom.occ for atom in atoms]), displacements


def density(positions, occupancies, displacements, size, voxel):
    """Sum of normalised Gaussians [z][y][x]; the first voxel is at zero."""
    volume = np.zeros((size, size, size))
    for position, occupancy, displacement in zip(positions, occupancies, displacements):
        half = REACH * np.sqrt(np.diag(displacement)) + voxel
        low = np.maximum(np.ceil((position - half) / voxel), 0).astype(int)
        high = np.minimum(np.floor((position + half) / voxel) + 1, size).astype(int)
        if (low >= high).any():
            continue
        x, y, z = (np.arange(low[k], high[k]) * voxel - position[k] for k in range(3))
        d = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)
        exponent = np.einsum("...i,ij,...j", d, np.linalg.inv(displacement), d)
        height = occupancy / np.sqrt(np.linalg.det(2 * np.pi * displacement))
        volume[low[2] : high[2], low[1] : high[1], low[0] : high[0]] += height * np.exp(-exponent / 2)
    return volume


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("map")
    parser.add_argument("--above", type=float, required=True)
    arguments = parser.parse_args()
    with mrcfile.open(arguments.map) as file:
        data, voxel = file.data.astype(np.float64), float(file.voxel_size.x)
        corner = np.array([float(file.header.origin[axis]) for axis in "xyz"])
    positions, occupancies, displacements = atoms_of(arguments.model)
    if len(positions) < 100:
        wrong(f"{arguments.model} holds {len(positions)} atoms: too few to check")

    def correlation(moved):
        model = density(positions - corner + moved, occupancies, displacements, len(data), voxel)
        return np.corrcoef(model.ravel(), data.ravel())[0, 1]

    found = correlation(0.0)
    # Maximum along each axis of the parabola through the correlations at -1, 0 and 1 voxels.
    steps = [(correlation(-voxel * axis), correlation(voxel * axis)) for axis in np.eye(3)]
    off = max(abs(after - before) / (2 * (2 * found - before - after)) for before, after in steps)
    if not found > arguments.above or not off < NEAR or not max(map(max, steps)) < found:
        wrong(f"correlation {found:.4f} (above {arguments.above} wanted), best {off:.3f} voxels beside (below {NEAR} wanted)")
    print(f"{len(positions)} atoms, correlation {found:.4f} (above {arguments.above:g} wanted), {off:.3f} voxels beside the best")


main()
