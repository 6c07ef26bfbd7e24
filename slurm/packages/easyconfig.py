#!/usr/bin/env python3
"""Prints an EasyBuild easyconfig for this version: crates and their checksums from Cargo.lock.

    slurm/packages/easyconfig.py [SOURCES.tar.gz] >cryosplat-mpi-VERSION-gompi-2025b.eb

SOURCES.tar.gz is what `git archive --prefix=cryosplat-mpi-VERSION/` makes; its checksum is then in the easyconfig.
"""
import hashlib
import pathlib
import sys
import tomllib

TOP = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = """easyblock = 'Cargo'

name = 'cryosplat-mpi'
version = '{version}'

homepage = '{homepage}'
description = '''{description}.
NVIDIA's driver, NVRTC, cuFFT and NCCL are opened at run time where they are found: load the modules CUDA and NCCL beside this one.'''

# The serial HDF5: files are not opened by several ranks through MPI-IO.
toolchain = {{'name': 'gompi', 'version': '2025b'}}

sources = ['%(name)s-%(version)s.tar.gz']
checksums = [
    {checksum},
{checksums}
]

builddependencies = [
    ('Rust', '1.91.1'),
    ('LLVM', '20.1.8'),
    ('CMake', '4.0.3'),
    ('pkgconf', '2.4.3'),
]
dependencies = [('HDF5', '1.14.6', '-serial')]

crates = [
{crates}
]

sanity_check_paths = {{'files': ['bin/cryosplat-mpi'], 'dirs': []}}
sanity_check_commands = [
    'cryosplat-mpi --version',
    'cryosplat-mpi simulate --phantom --box 32 --pixel-size 6 --particles 16 -o %(builddir)s/p.h5',
]

moduleclass = 'chem'
"""


def main():
    package = tomllib.loads((TOP / "Cargo.toml").read_text())["package"]
    locked = tomllib.loads((TOP / "Cargo.lock").read_text())["package"]
    crates = [crate for crate in locked if "checksum" in crate]
    checksum = "None"
    if len(sys.argv) > 1:
        checksum = repr(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest())
    print(
        TEMPLATE.format(
            version=package["version"],
            homepage=package["repository"],
            description=package["description"],
            checksum=checksum,
            checksums="\n".join(
                f"    {{'{crate['name']}-{crate['version']}.tar.gz': '{crate['checksum']}'}}," for crate in crates
            ),
            crates="\n".join(f"    ('{crate['name']}', '{crate['version']}')," for crate in crates),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
