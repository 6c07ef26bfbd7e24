//! The GPUs, and whether the versions of their libraries fit each other.

use serde::{Deserialize, Serialize};

use super::finding::{Finding, Level};
use crate::parallel::nccl;
use crate::progress::gib;
use crate::render::cuda::inventory::{Compiler, GpuRecord, Inventory};
use crate::render::cuda::libraries;

/// First version of NCCL that can be used.
const OLDEST_NCCL: i32 = 21_400;
const CUDA_REMEDY: &str =
    "load a CUDA module that fits the driver, put its folders into LD_LIBRARY_PATH, or use --device cpu";

/// GPUs and libraries of a rank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuLibraries {
    /// Driver, NVRTC, cuFFT and GPUs.
    pub inventory: Inventory,
    /// Version of NCCL, as 10000 times the major plus 100 times the minor number and the patch; `None` without the library.
    pub nccl: Option<i32>,
    /// Why compiled kernels are not cached.
    pub cache_problem: Option<String>,
}

impl GpuLibraries {
    /// Asks the libraries of this process.
    pub fn find() -> Self {
        libraries::link_versioned();
        let cache_problem = libraries::cache_problem().map(|error| error.to_string());
        Self { inventory: Inventory::take(), nccl: nccl::version(), cache_problem }
    }

    /// The device of rank `local_rank` of a node.
    pub fn device_of(&self, local_rank: usize) -> Option<(usize, &GpuRecord)> {
        let gpus = &self.inventory.gpus;
        let ordinal = local_rank.checked_rem(gpus.len())?;
        Some((ordinal, &gpus[ordinal]))
    }

    /// What the libraries can do. Nothing is a problem on a node without a driver: the CPU device is used.
    pub fn findings(&self) -> Vec<Finding> {
        let Inventory { driver, problem, gpus, nvrtc, cufft } = &self.inventory;
        let Some(driver) = *driver else {
            return vec![Finding::ok("GPUs", "no NVIDIA driver: the CPU device is used")];
        };
        let cuda = cuda(driver);
        if let Some(problem) = problem {
            let text = format!("the driver (CUDA {cuda}) lists no GPUs: {problem}");
            let remedy = "check `nvidia-smi`, CUDA_VISIBLE_DEVICES and the job's request for GPUs";
            return vec![Finding::new(Level::Warning, "GPUs", text, remedy)];
        }
        if gpus.is_empty() {
            let text = format!("the driver (CUDA {cuda}) shows no GPU to this job");
            return vec![Finding::new(
                Level::Warning,
                "GPUs",
                text,
                "request GPUs for the job (--gpus-per-task=1)",
            )];
        }
        let mut all = vec![Finding::ok("driver", format!("supports CUDA {cuda}"))];
        all.extend(gpus.iter().enumerate().map(|(ordinal, gpu)| gpu_finding(ordinal, gpu)));
        all.push(nvrtc_finding(driver, nvrtc.as_ref(), gpus));
        all.push(cufft_finding(driver, *cufft));
        all.push(nccl_finding(self.nccl));
        all.extend(peers(gpus));
        if let Some(problem) = &self.cache_problem {
            let text = format!("kernels are compiled at every start: {problem}");
            all.push(Finding::new(Level::Warning, "cache", text, ""));
        }
        all
    }
}

/// "12.4" of 12040.
fn cuda(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn gpu_finding(ordinal: usize, gpu: &GpuRecord) -> Finding {
    let GpuRecord { name, uuid, bus, capability, memory: (free, total), problem, .. } = gpu;
    let topic = format!("GPU {ordinal}");
    if let Some(problem) = problem {
        let text = format!("{name} {uuid} at {bus}: {problem}");
        return Finding::new(
            Level::Problem,
            topic,
            text,
            "check `nvidia-smi`: another job may use it, or it needs a reset",
        );
    }
    let text = format!(
        "{name}, compute capability {}.{}, {:.1} of {:.1} GiB free, {uuid}, {bus}",
        capability / 10,
        capability % 10,
        gib(*free),
        gib(*total)
    );
    if *free < total / 2 {
        return Finding::new(
            Level::Warning,
            topic,
            text,
            "another process uses its memory: see `nvidia-smi`",
        );
    }
    Finding::ok(topic, text)
}

fn nvrtc_finding(driver: i32, nvrtc: Option<&Result<Compiler, String>>, gpus: &[GpuRecord]) -> Finding {
    let problem = |text: String| Finding::new(Level::Problem, "NVRTC", text, CUDA_REMEDY);
    let Compiler { version: (major, minor), capabilities: known } = match nvrtc {
        None => return problem("libnvrtc.so is not found: kernels cannot be compiled".into()),
        Some(Err(reason)) => return problem(reason.clone()),
        Some(Ok(found)) => found,
    };
    if *major > driver / 1000 {
        let supported = cuda(driver);
        return problem(format!(
            "version {major}.{minor} is newer than the driver, which supports CUDA {supported}"
        ));
    }
    let unknown = |gpu: &&GpuRecord| gpu.problem.is_none() && !known.contains(&gpu.capability);
    let Some(GpuRecord { name, capability, .. }) = gpus.iter().find(unknown) else {
        return Finding::ok("NVRTC", format!("version {major}.{minor} knows these GPUs"));
    };
    if known.iter().all(|one| one > capability) {
        return problem(format!("version {major}.{minor} does not support the {name} (sm_{capability})"));
    }
    // Code for an older architecture, which the driver translates if it knows the version.
    let text = format!("version {major}.{minor} is older than the {name} (sm_{capability})");
    if 1000 * major + 10 * minor > driver {
        return problem(format!("{text}, and newer than the driver"));
    }
    Finding::new(Level::Warning, "NVRTC", text, "load a newer CUDA module: kernels are then faster")
}

fn cufft_finding(driver: i32, cufft: Option<i32>) -> Finding {
    let Some(version) = cufft else {
        return Finding::new(Level::Problem, "cuFFT", "libcufft.so is not found", CUDA_REMEDY);
    };
    // cuFFT 11 belongs to CUDA 12, and 12 to CUDA 13.
    let (major, minor, of_cuda) = (version / 1000, version % 1000 / 100, version / 1000 + 1);
    let text = format!("version {major}.{minor}");
    if of_cuda > driver / 1000 && version < 100_000 {
        let text = format!("{text} belongs to CUDA {of_cuda}, but the driver supports CUDA {}", cuda(driver));
        return Finding::new(Level::Problem, "cuFFT", text, CUDA_REMEDY);
    }
    Finding::ok("cuFFT", text)
}

fn nccl_finding(nccl: Option<i32>) -> Finding {
    let remedy = "load the NCCL module; without it, gradients are summed by MPI through host memory";
    match nccl {
        None => Finding::new(Level::Warning, "NCCL", "libnccl.so is not found", remedy),
        Some(version) => {
            let text = format!("version {}.{}.{}", version / 10_000, version % 10_000 / 100, version % 100);
            if version < OLDEST_NCCL {
                return Finding::new(Level::Warning, "NCCL", format!("{text} is older than 2.14"), remedy);
            }
            Finding::ok("NCCL", text)
        }
    }
}

fn peers(gpus: &[GpuRecord]) -> Option<Finding> {
    if gpus.len() < 2 {
        return None;
    }
    let pairs: usize = gpus.iter().map(|gpu| gpu.peers.len()).sum();
    let all = gpus.len() * (gpus.len() - 1);
    Some(match pairs {
        _ if pairs == all => Finding::ok("peers", "each GPU can access the memory of all others"),
        _ => Finding::new(
            Level::Warning,
            "peers",
            format!("{pairs} of {all} pairs of GPUs can access each other's memory"),
            "sums between the others go through host memory: `nvidia-smi topo -m` shows their links",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(driver: i32, nvrtc: (i32, i32), known: &[i32]) -> GpuLibraries {
        let gpu = GpuRecord {
            name: "H200".into(),
            capability: 90,
            memory: (100 << 30, 139 << 30),
            ..GpuRecord::default()
        };
        let inventory = Inventory {
            driver: Some(driver),
            problem: None,
            gpus: vec![GpuRecord { peers: vec![1], ..gpu.clone() }, GpuRecord { peers: vec![0], ..gpu }],
            nvrtc: Some(Ok(Compiler { version: nvrtc, capabilities: known.to_vec() })),
            cufft: Some(11_203),
        };
        GpuLibraries { inventory, nccl: Some(22_803), cache_problem: None }
    }

    /// Level and text of the first finding that is not ok.
    fn worst(node: &GpuLibraries) -> Option<(Level, String)> {
        let found = node.findings().into_iter().find(|finding| finding.level != Level::Ok)?;
        Some((found.level, format!("{}: {}", found.topic, found.text)))
    }

    #[test]
    fn versions_that_fit_are_ok() {
        assert_eq!(worst(&node(12_040, (12, 4), &[80, 90])), None);
        // A newer minor version of the same major version compiles machine code that the driver takes.
        assert_eq!(worst(&node(12_020, (12, 8), &[80, 90])), None);
        assert_eq!(worst(&GpuLibraries::default()), None, "a node without GPUs");
    }

    #[test]
    fn versions_that_do_not_fit_are_named() {
        let is = |node: &GpuLibraries, level, text: &str| {
            let (found, said) = worst(node).expect(text);
            assert!(found == level && said.contains(text), "{said}");
        };
        is(&node(12_040, (13, 0), &[80, 90]), Level::Problem, "NVRTC: version 13.0 is newer than the driver");
        is(&node(12_040, (11, 4), &[70, 80]), Level::Warning, "is older than the H200 (sm_90)");
        is(&node(12_020, (12, 8), &[70, 80]), Level::Problem, "and newer than the driver");
        is(&node(12_040, (12, 4), &[100]), Level::Problem, "does not support the H200");
        let good = node(12_040, (12, 4), &[90]);
        is(&GpuLibraries { nccl: None, ..good.clone() }, Level::Warning, "libnccl.so is not found");
        is(&GpuLibraries { nccl: Some(21_000), ..good.clone() }, Level::Warning, "2.10.0 is older than 2.14");
        let with = |change: fn(&mut Inventory)| {
            let mut changed = good.clone();
            change(&mut changed.inventory);
            changed
        };
        let uncached = GpuLibraries { cache_problem: Some("belongs to another user".into()), ..good.clone() };
        is(&uncached, Level::Warning, "cache: kernels are compiled at every start: belongs to another user");
        is(&with(|found| found.cufft = None), Level::Problem, "libcufft.so is not found");
        is(&with(|found| found.cufft = Some(12_000)), Level::Problem, "belongs to CUDA 13");
        is(&with(|found| found.nvrtc = None), Level::Problem, "libnvrtc.so is not found");
        is(&with(|found| found.gpus.clear()), Level::Warning, "shows no GPU");
        is(&with(|found| found.gpus[1].problem = Some("lost".into())), Level::Problem, "GPU 1: H200");
        is(&with(|found| found.gpus[0].peers.clear()), Level::Warning, "1 of 2 pairs");
        is(
            &with(|found| found.problem = Some("CUDA_ERROR_UNKNOWN".into())),
            Level::Warning,
            "CUDA_ERROR_UNKNOWN",
        );
    }
}
