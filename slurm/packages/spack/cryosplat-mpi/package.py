"""Spack: `spack repo add`, or copy this folder to the packages of a repository of your own."""

from spack.package import *


class CryosplatMpi(Package):
    """Single-particle cryo-EM reconstruction by Gaussian splatting, data-parallel over MPI."""

    # A placeholder, as in Cargo.toml: the project has no public address yet.
    homepage = "https://example.org/cryosplat-mpi"
    git = "https://example.org/cryosplat-mpi.git"

    license("MIT OR Apache-2.0")

    version("main", branch="main")
    version("0.1.0", tag="v0.1.0")

    variant("cuda", default=False, description="Load NVRTC, cuFFT and NCCL beside the program, for NVIDIA GPUs")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("rust@1.89:", type="build")
    depends_on("llvm+clang", type="build")
    depends_on("cmake@3.26:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    # Files are not opened by several ranks through MPI-IO.
    depends_on("hdf5@1.10:1.14~mpi")
    # Opened at run time.
    depends_on("cuda@12.2:", type="run", when="+cuda")
    depends_on("nccl", type="run", when="+cuda")

    def setup_build_environment(self, env):
        env.set("MPICC", self.spec["mpi"].mpicc)
        env.set("HDF5_DIR", self.spec["hdf5"].prefix)
        env.set("LIBCLANG_PATH", self.spec["llvm"].prefix.lib)

    def setup_run_environment(self, env):
        if self.spec.satisfies("+cuda"):
            for name in ("cuda", "nccl"):
                for directory in self.spec[name].libs.directories:
                    env.prepend_path("LD_LIBRARY_PATH", directory)

    def install(self, spec, prefix):
        cargo = which("cargo", required=True)
        cargo("install", "--locked", "--bin", "cryosplat-mpi", "--root", prefix, "--path", ".")
        program = Executable(prefix.bin.join("cryosplat-mpi"))
        mkdirp(prefix.share.man.man1)
        with open(prefix.share.man.man1.join("cryosplat-mpi.1"), "w") as page:
            page.write(program("man", output=str))

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def check_install(self):
        program = Executable(self.prefix.bin.join("cryosplat-mpi"))
        program("simulate", "--phantom", "--box", "32", "--pixel-size", "6", "--particles", "16", "-o", "p.h5")
        program("train", "p.h5", "-o", "run", "--device", "cpu", "--gaussians", "24", "--epochs", "1")
