//! The compiled kernels of a mixture, and how they are launched.

use cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

use super::compile::{self, Constants};
use super::gpu::Gpu;
use super::interface::{
    ActivateArguments, AdamArguments, ChainArguments, ChecksumArguments, DrawArguments, FitArguments,
    MomentsArguments, OutcomeArguments, PrepareArguments, ProjectArguments, ResidualArguments,
    SearchArguments, StoreHalfArguments,
};
use crate::error::Result;

/// A kernel that takes `$arguments` by value.
macro_rules! kernels {
    ($($name:ident($arguments:ident)),+ $(,)?) => {
        /// All kernels, loaded.
        pub(super) struct Kernels {
            $($name: CudaFunction,)+
        }

        impl Kernels {
            /// Compiles the kernels for these constants, or reads them from the cache, and loads them.
            ///
            /// # Errors
            /// When NVRTC or the driver refuses.
            pub fn load(gpu: &Gpu, constants: &Constants) -> Result<Self> {
                let load = |image: Vec<u8>| gpu.context.load_module(Ptx::from_binary(image));
                let image = compile::kernels(constants, gpu.capability, false)?;
                let module = match load(image) {
                    Ok(module) => module,
                    // The driver refuses cached code, for example after a downgrade.
                    Err(_) => load(compile::kernels(constants, gpu.capability, true)?)
                        .map_err(gpu.failed("load the kernels"))?,
                };
                Ok(Self {
                    $($name: module.load_function(stringify!($name)).map_err(gpu.failed("find a kernel"))?,)+
                })
            }

            $(
                /// Enqueues this kernel over `grid` (x, y) blocks of `threads` threads.
                ///
                /// # Errors
                /// When the driver refuses.
                ///
                /// # Safety
                /// The arguments' arrays have the shapes that kernels/interface.cuh gives, for this grid.
                pub unsafe fn $name(
                    &self,
                    gpu: &Gpu,
                    grid: (usize, usize),
                    threads: usize,
                    arguments: &$arguments,
                ) -> Result<()> {
                    let configuration = LaunchConfig {
                        grid_dim: (grid.0 as u32, grid.1 as u32, 1),
                        block_dim: (threads as u32, 1, 1),
                        shared_mem_bytes: 0,
                    };
                    let mut launch = gpu.stream.launch_builder(&self.$name);
                    // SAFETY: the kernel takes this one structure; its arrays are guaranteed by the caller (see `# Safety`).
                    unsafe { launch.arg(arguments).launch(configuration) }
                        .map(|_| ())
                        .map_err(gpu.failed("start a kernel"))
                }
            )+
        }
    };
}

kernels! {
    activate(ActivateArguments),
    project(ProjectArguments),
    draw(DrawArguments),
    prepare(PrepareArguments),
    store_half(StoreHalfArguments),
    residual(ResidualArguments),
    compare(ResidualArguments),
    fit(FitArguments),
    observe(SearchArguments),
    search(SearchArguments),
    moments(MomentsArguments),
    chain(ChainArguments),
    outcome(OutcomeArguments),
    adam(AdamArguments),
    checksum(ChecksumArguments),
}
