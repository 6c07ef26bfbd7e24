"""Inputs of the cases: files that Python writes, and files that the base program makes of them.

Both programs read the same inputs, so that a difference in one command does not spread to all cases.
"""

import os
import pathlib
import shutil
import struct

import h5py
import numpy as np

# Particles of the small sets in the import formats, and their box size in pixels.
COUNT = 12
BOX = 16
PIXEL_SIZE = 2.0
STACKS = {"J1/a.mrcs": range(0, 7), "J1/b.mrcs": range(7, COUNT)}

# Atoms without symmetry; they reach about 25 A from their centre.
ATOMS = [("P", 118, 0, -40), ("ZN", 100, 12, -44), ("C", 92, -8, -30), ("O", 101, 3, -20), ("S", 96, -14, -52)]

TRAIN = ["--threads", "1", "--device", "cpu", "--metrics-every", "1", "--seed"]


def metadata():
    """Poses, shifts (pixels), CTF parameters and half of each particle, by name."""
    i = np.arange(COUNT)
    vectors = np.stack([np.sin(1.7 * i) * 1.8, np.cos(2.3 * i) * 1.4, np.sin(0.9 * i + 1.0) * 2.1], axis=1)
    vectors[3] = 0.0
    return {
        "vectors": vectors.astype("<f4"),
        "shifts": np.stack([np.sin(3.1 * i) * 2.0, np.cos(1.3 * i) * 1.5], axis=1).astype("<f4"),
        "defocus_u": (15000.0 + 100.0 * i).astype("<f4"),
        "defocus_v": (14000.0 + 90.0 * (i % 5)).astype("<f4"),
        "angle": (17.0 * i - 80.0).astype("<f4"),
        "voltage": np.where(i < 7, 300.0, 200.0).astype("<f4"),
        "half": i % 2,
    }


def rotations(vectors):
    """Rotation matrices W of rotation vectors: the transposes of Rodrigues' formula."""
    matrices = []
    for vector in vectors.astype(float):
        angle = np.linalg.norm(vector)
        k = vector / angle if angle > 0 else vector
        cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
        matrices.append(
            (np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(k, k)).T
        )
    return np.array(matrices)


def images(count, box, seed):
    """Images with noise, a disc and a mean; integers in steps of 1/8, so that all MRC modes hold them."""
    random = np.random.Generator(np.random.PCG64(seed))
    at = np.arange(box) - box // 2
    disc = (at[:, None] ** 2 + at[None, :] ** 2 < (box / 4) ** 2) * 24
    return (random.integers(-32, 33, (count, box, box)) + disc + 8).astype(np.float32) / 8


def write_mrc(path, data, mode=2, pixel_size=PIXEL_SIZE, order="<"):
    """Writes a stack in an MRC mode: 0 int8, 1 int16, 2 float32, 6 uint16, 12 float16."""
    kind = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[mode]
    count, rows, columns = data.shape
    header = bytearray(1024)
    cell = [pixel_size * n for n in (columns, rows, count)]
    struct.pack_into(order + "10i6f3i", header, 0, columns, rows, count, mode, 0, 0, 0, columns, rows, count,
                     *cell, 90.0, 90.0, 90.0, 1, 2, 3)
    struct.pack_into(order + "3f2i", header, 76, data.min(), data.max(), data.mean(), 0, 0)
    header[208:216] = b"MAP " + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(bytes(header) + data.astype(order + kind).tobytes())


def pickled_array(values):
    """An array of float32 as NumPy 1 pickles it, without the start and the end of the pickle."""
    values = np.asarray(values, "<f4")
    data = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01("
    data += b"".join(b"J" + struct.pack("<i", size) for size in values.shape)
    data += b"tcnumpy\ndtype\n\x8c\x02f4K\x00K\x01\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B"
    return data + struct.pack("<I", values.nbytes) + values.tobytes() + b"tb"


def pickle_of(*arrays):
    """A pickle of one array, or of a tuple of two."""
    return b"\x80\x04" + b"".join(map(pickled_array, arrays)) + (b"\x86." if len(arrays) == 2 else b".")


def angles(matrix):
    """RELION's rot, tilt and psi in degrees of a rotation matrix W."""
    tilt = np.arccos(np.clip(matrix[2, 2], -1, 1))
    if np.sin(tilt) < 1e-9:
        return np.degrees([np.arctan2(matrix[0, 1], matrix[0, 0]), tilt, 0.0])
    rot, psi = np.arctan2(matrix[2, 1], matrix[2, 0]), np.arctan2(matrix[1, 2], -matrix[0, 2])
    return np.degrees([rot, tilt, psi])


def write_star(folder, particles):
    """The set as STAR files of RELION 3.1 (halves.star, drawn.star), 3.0 (old.star), and with image names alone."""
    optics = (
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n"
        "_rlnAmplitudeContrast #4\n_rlnImagePixelSize #5\n_rlnImageSize #6\n1 300 2.7 0.1 2 16\n2 200 2.7 0.1 2 16\n\n"
    )
    common = ["ImageName", "AngleRot", "AngleTilt", "AnglePsi", "DefocusU", "DefocusV", "DefocusAngle", "PhaseShift"]
    texts = {
        "halves": (optics + "data_particles", [*common, "OriginXAngst", "OriginYAngst", "OpticsGroup", "RandomSubset"]),
        "drawn": (optics + "data_particles", [*common, "OriginXAngst", "OriginYAngst", "OpticsGroup"]),
        "old": ("data_", [*common, "OriginX", "OriginY", "Voltage", "SphericalAberration", "AmplitudeContrast",
                          "Magnification", "DetectorPixelSize", "RandomSubset", "CtfBfactor", "CtfScalefactor"]),
        "names": ("data_", ["ImageName"]),
    }
    matrices = rotations(particles["vectors"])
    for name, (start, labels) in texts.items():
        lines = [start, "", "loop_", *(f"_rln{label} #{k + 1}" for k, label in enumerate(labels))]
        for i in range(COUNT):
            stack, rows = next((stack, rows) for stack, rows in STACKS.items() if i in rows)
            rot, tilt, psi = angles(matrices[i])
            x, y = particles["shifts"][i]
            values = {
                "ImageName": f"{i - rows[0] + 1}@{stack}", "AngleRot": f"{rot:.6f}", "AngleTilt": f"{tilt:.6f}",
                "AnglePsi": f"{psi:.6f}", "DefocusU": particles["defocus_u"][i], "DefocusV": particles["defocus_v"][i],
                "DefocusAngle": particles["angle"][i], "PhaseShift": 12.5, "OriginXAngst": x * PIXEL_SIZE,
                "OriginYAngst": y * PIXEL_SIZE, "OriginX": x, "OriginY": y, "OpticsGroup": 1 if i < 7 else 2,
                "RandomSubset": particles["half"][i] + 1, "Voltage": particles["voltage"][i],
                "SphericalAberration": 2.7, "AmplitudeContrast": 0.1, "Magnification": 50000,
                "DetectorPixelSize": 10.0, "CtfBfactor": 20.0 + i, "CtfScalefactor": 0.9,
            }
            lines.append(" ".join(str(values[label]) for label in labels))
        (folder / f"{name}.star").write_text("\n".join(lines) + "\n")


def write_cs(folder, particles):
    """The set as tables of cryoSPARC: whole in three versions, and in parts for --passthrough."""
    uid = (2**64 - 1 - 1000 * np.arange(COUNT, dtype=np.uint64)).astype("<u8")
    number, paths = np.zeros(COUNT, ">u4"), np.zeros(COUNT, "S24")
    for stack, rows in STACKS.items():
        for i in rows:
            number[i], paths[i] = i - rows[0], f">{stack}".encode()
    ones = np.ones(COUNT, "<f4")
    blob = {
        "blob/path": paths, "blob/idx": number, "blob/shape": np.full((COUNT, 2), BOX, "<u4"),
        "blob/psize_A": PIXEL_SIZE * ones, "blob/sign": ones,
    }
    ctf = {
        "ctf/accel_kv": particles["voltage"], "ctf/cs_mm": 2.7 * ones, "ctf/amp_contrast": 0.1 * ones,
        "ctf/df1_A": particles["defocus_u"], "ctf/df2_A": particles["defocus_v"],
        "ctf/df_angle_rad": np.radians(particles["angle"]).astype("<f4"), "ctf/phase_shift_rad": 0.5 * ones,
        "ctf/tilt_A": np.zeros((COUNT, 2), "<f4"), "ctf/anisomag": np.zeros((COUNT, 4), "<f4"),
    }
    alignments = {
        "alignments3D/pose": particles["vectors"], "alignments3D/shift": 0.5 * particles["shifts"],
        "alignments3D/psize_A": 2 * PIXEL_SIZE * ones, "alignments3D/split": particles["half"].astype(">u4"),
    }

    def write(name, parts, version=(1, 0), order=slice(None)):
        columns = {"uid": uid, **{key: value for part in parts for key, value in part.items()}}
        kind = np.dtype([(key, value.dtype, value.shape[1:]) for key, value in columns.items()])
        table = np.zeros(COUNT, kind)
        for key, value in columns.items():
            table[key] = value
        with open(folder / name, "wb") as file:
            np.lib.format.write_array(file, table[order], version=version)

    (folder / "J2").mkdir(exist_ok=True)
    for version in (1, 2, 3):
        write(f"J2/whole{version}.cs", [blob, ctf, alignments], (version, 0))
    write("J2/dark.cs", [{**blob, "blob/sign": -ones}, ctf, alignments])
    unsplit = {key: value for key, value in alignments.items() if key != "alignments3D/split"}
    write("J2/unsplit.cs", [blob, ctf, unsplit])
    write("J2/poses.cs", [alignments])
    write("J2/ctf.cs", [ctf], order=slice(None, None, -1))
    write("J2/blob.cs", [blob])


def write_formats(folder):
    """The small sets in all formats that `import` reads, and stacks in all MRC modes."""
    folder.mkdir()
    (folder / "J1").mkdir()
    particles, pixels = metadata(), images(COUNT, BOX, 1)
    for stack, rows in STACKS.items():
        write_mrc(folder / stack, pixels[list(rows)])
    for mode in (0, 1, 2, 6, 12):
        write_mrc(folder / f"mode{mode}.mrcs", pixels * 8 + 40, mode)
    write_mrc(folder / "big_endian.mrcs", pixels, order=">")
    write_mrc(folder / "large.mrcs", images(COUNT, 24, 2))
    write_star(folder, particles)
    write_cs(folder, particles)
    matrices = rotations(particles["vectors"])
    (folder / "poses.pkl").write_bytes(pickle_of(matrices, particles["shifts"] / BOX))
    (folder / "rotations.pkl").write_bytes(pickle_of(matrices))
    for name, box in (("ctf", BOX), ("ctf_large", 24)):
        columns = [box, PIXEL_SIZE, particles["defocus_u"], particles["defocus_v"], particles["angle"],
                   particles["voltage"], 2.7, 0.1, 28.0]
        table = np.stack([np.broadcast_to(np.float32(column), COUNT) for column in columns], axis=1)
        (folder / f"{name}.pkl").write_bytes(pickle_of(table))
    (folder / "ind.pkl").write_bytes(b"\x80\x03](K\x04K\x00K\x03K\x0bK\x06e.")
    (folder / "stacks.txt").write_text("J1/a.mrcs\n\nJ1/b.mrcs\n")
    (folder / "nan.star").write_text((folder / "halves.star").read_text().replace(" 15300.0 ", " nan "))


def write_models(folder):
    """The atomic model as mmCIF and PDB, and as mmCIF at the centre of the phantom's map."""
    labels = ["type_symbol", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy"]
    for name, (dx, dy, dz) in (("model", (0, 0, 0)), ("fitted", (-37, 65, 101))):
        cif = "data_five\nloop_\n" + "".join(f"_atom_site.{label}\n" for label in labels)
        cif += "".join(f"{symbol} {x + dx} {y + dy} {z + dz} 1\n" for symbol, x, y, z in ATOMS) + "#\n"
        (folder / f"{name}.cif").write_text(cif)
    pdb = "".join(
        f"ATOM  {k + 1:5d}  {symbol:<3s} ALA A{k + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00          {symbol:>2s}\n"
        for k, (symbol, x, y, z) in enumerate(ATOMS)
    )
    (folder / "model.pdb").write_text(pdb + "END\n")


def damage(source, target, change):
    """A copy of an HDF5 file with a change."""
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        change(file)


def overflow(file):
    """A CTF that overflows: the step of this particle is not finite."""
    file["ctf/b_factor"][12] = -1e9


def corrupt(file):
    """An image that does not match its checksum."""
    image = file["images"][20]
    image[3, 4] += 1.0
    file["images"][20] = image


def make(folder, run, shared):
    """Makes all inputs in `folder`; `run(arguments)` runs the base program there. `shared` is the extra data, or None."""
    folder = pathlib.Path(folder)
    write_formats(folder / "formats")
    write_models(folder)
    phantom = ["simulate", "--phantom", "--pixel-size", "4", "--seed", "3", "--threads", "2", "--snr"]
    run([*phantom, "1", "-o", "p.h5", "--box", "32", "-n", "160", "--star", "relion"])
    run([*phantom, "1", "-o", "odd.h5", "--box", "33", "-n", "64"])
    run([*phantom, "1", "-o", "half.h5", "--box", "32", "-n", "160", "--dtype", "f16"])
    run([*phantom, "1", "-o", "large.h5", "--box", "64", "-n", "400"])
    run([*phantom, "0.02", "-o", "noisy.h5", "--box", "32", "-n", "400"])
    # The emulator computes ten images a second.
    run([*phantom, "1", "-o", "few.h5", "--box", "24", "-n", "40"])
    run([*phantom, "1", "-o", "few_odd.h5", "--box", "25", "-n", "30"])
    run([*phantom, "1", "-o", "few_half.h5", "--box", "24", "-n", "40", "--dtype", "f16"])
    damage(folder / "few.h5", folder / "few_overflow.h5", overflow)
    damage(folder / "p.h5", folder / "overflow.h5", overflow)
    damage(folder / "p.h5", folder / "corrupt.h5", corrupt)
    for name, options in (("run", ["5"]), ("other", ["6", "--mixtures", "2"])):
        run(["train", "p.h5", "-o", name, *TRAIN, *options, "--gaussians", "200", "--epochs", "4",
             "--truth", "p_truth.mrc"])
    run(["train", "p.h5", "-o", "all", *TRAIN, "5", "--gaussians", "120", "--epochs", "3", "--half", "all", "--batch", "16"])
    run(["train", "corrupt.h5", "-o", "excluded", *TRAIN, "5", "--gaussians", "120", "--epochs", "3",
         "--skip-bad-particles", "2"])
    run(["backproject", "p.h5", "-o", "voxels", "--threads", "1"])
    for ranks in (1, 2, 4):
        run(["train", "large.h5", "-o", f"ranks{ranks}", *TRAIN, "5", "--gaussians", "100", "--epochs", "2", "--half", "all",
             "--batch", "8"], ranks)
    run(["export", "gmm", "run/gmm_half1.h5", "-o", "half1.cif"])
    run(["export", "gmm", "run/gmm_half1.h5", "-o", "half1.pdb"])
    run(["fsc", "run/half1.mrc", "run/half2.mrc", "--mask", "auto", "--mask-output", "mask.mrc"])
    run(["import", "relion/particles.star", "-o", "imported.h5"])
    if shared is not None and (shared / "data/real").is_dir():
        os.symlink(shared / "data/real", folder / "real")
