//! Conclusions from the records of all ranks, and the page that shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::finding::{Finding, Level};
use super::folder::FolderRecord;
use super::particles::ParticlesRecord;
use super::{RankRecord, job};
use crate::progress::gib;

/// Memory below which a warning is given, in bytes.
const LITTLE_MEMORY: u64 = 1 << 30;
/// Free space below which a warning is given, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The ranks, in order.
    pub ranks: Vec<RankRecord>,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Page {
    /// The page of these ranks, which are all of the job, in order.
    pub fn of(ranks: Vec<RankRecord>) -> Self {
        let mut by_host: BTreeMap<&str, Vec<&RankRecord>> = BTreeMap::new();
        ranks.iter().for_each(|rank| by_host.entry(&rank.host).or_default().push(rank));
        let mut findings = of_job(&ranks);
        for (host, of_host) in &by_host {
            let mut found = of_node(of_host);
            if by_host.len() > 1 {
                found.iter_mut().for_each(|finding| finding.text = format!("{host}: {}", finding.text));
            }
            findings.extend(found);
        }
        Self { ranks, findings }
    }

    /// The page where MPI does not start, with the reason.
    pub fn without_mpi(rank: RankRecord, reason: String) -> Self {
        let mut page = Self::of(vec![rank]);
        page.findings.insert(0, Finding::new(Level::Problem, "MPI", reason, ""));
        page
    }

    /// Number of findings of this level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl Display for Page {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let nodes = self.ranks.iter().map(|rank| &rank.host).collect::<BTreeSet<_>>().len();
        if let Some(first) = self.ranks.first() {
            let launcher = first
                .launcher
                .as_ref()
                .map_or("without a launcher".into(), |name| format!("started by {name}"));
            writeln!(formatter, "cryosplat-mpi {}, {}, {launcher}", first.version, first.library)?;
        }
        let plural =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        writeln!(formatter, "{} on {}\n", plural(self.ranks.len(), "rank"), plural(nodes, "node"))?;
        let host = self.ranks.iter().map(|rank| rank.host.len()).max().unwrap_or(0).max(4);
        writeln!(formatter, "rank  {:host$}  local  cores  instructions             memory  device", "host")?;
        for rank in &self.ranks {
            writeln!(
                formatter,
                "{:4}  {:host$}  {:5}  {:5}  {:22} {:4.0} GiB  {}",
                rank.rank,
                rank.host,
                rank.local_rank,
                rank.cores.0,
                rank.instructions,
                gib(rank.memory),
                rank.device()
            )?;
        }
        writeln!(formatter)?;
        self.findings.iter().try_for_each(|finding| writeln!(formatter, "{finding}"))?;
        let (problems, warnings) = (self.count(Level::Problem), self.count(Level::Warning));
        writeln!(formatter, "\n{}, {}", plural(problems, "problem"), plural(warnings, "warning"))
    }
}

/// Findings about all ranks together.
fn of_job(ranks: &[RankRecord]) -> Vec<Finding> {
    let Some(first) = ranks.first() else { return Vec::new() };
    let mut all = Vec::new();
    let differ = |of: fn(&RankRecord) -> &str| {
        let found: BTreeSet<&str> = ranks.iter().map(of).collect();
        (found.len() > 1).then(|| found.into_iter().collect::<Vec<_>>().join("; "))
    };
    match differ(|rank| &rank.version).or_else(|| differ(|rank| &rank.library)) {
        Some(found) => {
            let text = format!("ranks run unlike programs: {found}");
            all.push(Finding::new(Level::Problem, "MPI", text, "start the same program on all nodes"));
        }
        None => {
            let text = if ranks.len() == 1 {
                "starts".to_owned()
            } else {
                format!("all {} ranks see each other", ranks.len())
            };
            all.push(Finding::ok("MPI", text));
        }
    }
    if let Some(found) = differ(|rank| &rank.instructions) {
        let text = format!("ranks have unlike vector instructions: {found}");
        let remedy = "set CRYOSPLAT_SIMD to those that all have, for results that repeat to the bit";
        all.push(Finding::new(Level::Warning, "CPU", text, remedy));
    }
    let with_gpu =
        ranks.iter().filter(|rank| rank.gpus.as_ref().is_ok_and(|gpus| gpus.device_of(0).is_some())).count();
    if with_gpu > 0 && with_gpu < ranks.len() {
        let text = format!("{with_gpu} of {} ranks see a GPU: all would use the CPU device", ranks.len());
        all.push(Finding::new(
            Level::Warning,
            "GPUs",
            text,
            "request a GPU for each rank, or start fewer ranks per node",
        ));
    }
    all.extend(job::finding(first.job.as_ref()));
    all
}

/// Findings about a node, from its ranks.
fn of_node(ranks: &[&RankRecord]) -> Vec<Finding> {
    let first = ranks[0];
    let mut all = of_cores(ranks);
    let text = format!("{:.1} GiB free for the ranks of this node", gib(first.memory));
    all.push(if first.memory < LITTLE_MEMORY {
        Finding::new(Level::Warning, "memory", text, "request more memory for the job")
    } else {
        Finding::ok("memory", text)
    });
    all.extend(of_gpus(ranks));
    for (name, path, folder) in &first.folders {
        match folder {
            Ok(folder) => all.push(of_folder(name, folder, first.hdf5_locking.as_deref())),
            Err(reason) => {
                let text = format!("{path}: {reason}");
                all.push(Finding::new(
                    Level::Problem,
                    name,
                    text,
                    "choose another folder, or ask the administrator",
                ));
            }
        }
    }
    if let Some((path, particles)) = &first.particles {
        let problem = |text: String| Finding::new(Level::Problem, "particles", text, "");
        all.push(match particles {
            Ok(ParticlesRecord { problem: Some(reason), .. }) => problem(reason.clone()),
            Ok(particles) => of_particles(particles, ranks),
            Err(reason) => problem(format!("{path}: {reason}")),
        });
    }
    all
}

fn of_cores(ranks: &[&RankRecord]) -> Vec<Finding> {
    let mut all = Vec::new();
    let (cores, of_machine) = ranks[0].cores;
    let crowded = ranks.iter().find(|rank| rank.sharing > rank.cores.0);
    if let Some(rank) = crowded {
        let text = format!("{} ranks share {} cores ({})", rank.sharing, rank.cores.0, rank.core_list);
        all.push(Finding::new(Level::Warning, "cores", text, "start fewer ranks per node"));
    } else if cores == 1 && of_machine >= 2 * ranks.len() {
        let text = format!("each rank may use 1 core of {of_machine}");
        let remedy = "use `mpirun --bind-to none` or `srun --cpus-per-task=N`";
        all.push(Finding::new(Level::Warning, "cores", text, remedy));
    } else {
        let each = (cores / ranks[0].sharing.max(1)).max(1);
        all.push(Finding::ok(
            "cores",
            format!("{each} threads per rank; the machine has {of_machine} cores"),
        ));
    }
    all
}

/// Findings about the GPUs of a node. Where the launcher shows each rank a GPU of its own, they are listed by rank.
fn of_gpus(ranks: &[&RankRecord]) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for rank in ranks {
        let gpus = match &rank.gpus {
            Ok(gpus) => gpus,
            Err(reason) => {
                let text = format!("rank {}: the libraries of the GPU do not answer: {reason}", rank.rank);
                let remedy = "check `nvidia-smi` and the system's kernel log, or use --device cpu";
                all.push(Finding::new(Level::Problem, "GPUs", text, remedy));
                continue;
            }
        };
        if let Some((_, gpu)) = gpus.device_of(rank.local_rank).filter(|(_, gpu)| !gpu.uuid.is_empty()) {
            users.entry(&gpu.uuid).or_default().push(rank.rank.to_string());
        }
        let visible: Vec<&str> = gpus.inventory.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
        if !seen.insert(visible) {
            continue;
        }
        let several = seen.len() > 1;
        all.extend(gpus.findings().into_iter().map(|mut finding| {
            if several {
                finding.text = format!("rank {}: {}", rank.rank, finding.text);
            }
            finding
        }));
    }
    for (uuid, ranks) in users.iter().filter(|(_, ranks)| ranks.len() > 1) {
        let text = format!("ranks {} share {uuid}", ranks.join(", "));
        all.push(Finding::new(Level::Warning, "GPUs", text, "start one rank per GPU"));
    }
    let visible = seen.iter().map(Vec::len).max().unwrap_or(0);
    if seen.len() == 1 && users.len() < visible {
        let text = format!("{} of {visible} GPUs are used by the ranks of this node", users.len());
        all.push(Finding::new(
            Level::Warning,
            "GPUs",
            text,
            format!("start {visible} ranks per node (`mpirun -n {visible}`)"),
        ));
    }
    all
}

fn of_folder(name: &str, folder: &FolderRecord, hdf5_locking: Option<&str>) -> Finding {
    let FolderRecord { path, kind, free, unwritable, unlockable } = folder;
    let text = format!("{path}: {kind}, {:.1} GiB free", gib(*free));
    if let Some(reason) = unwritable {
        let remedy = if name == "scratch" {
            "name another folder with --scratch"
        } else {
            "name another folder with -o"
        };
        let text = format!("{path}: cannot be written: {reason}");
        return Finding::new(
            if name == "scratch" { Level::Warning } else { Level::Problem },
            name,
            text,
            remedy,
        );
    }
    if let Some(reason) = unlockable {
        let text = format!("{text}; files cannot be locked: {reason}");
        let remedy = match (name, hdf5_locking) {
            ("scratch", _) => "copies of particles need locks: name another folder with --scratch",
            (_, Some("FALSE")) => return Finding::ok(name, format!("{text}; HDF5 does not lock them")),
            _ => "set HDF5_USE_FILE_LOCKING=FALSE",
        };
        return Finding::new(Level::Warning, name, text, remedy);
    }
    if name == "scratch" && matches!(kind.as_str(), "tmpfs" | "ramfs") {
        return Finding::new(
            Level::Warning,
            name,
            format!("{text}; copies take memory"),
            "name a local disk with --scratch",
        );
    }
    if *free < LITTLE_SPACE {
        return Finding::new(Level::Warning, name, text, "free some space, or name another folder");
    }
    Finding::ok(name, format!("{text}, files can be locked"))
}

/// Where a training would keep the particles on this node, as `loader::cache` decides.
fn of_particles(particles: &ParticlesRecord, ranks: &[&RankRecord]) -> Finding {
    let ParticlesRecord { path, count, box_size, pixel_size, opening, speed, .. } = particles;
    // All ranks of the job share the images; those of other nodes are not known here, so this is the most.
    let needed = particles.image_bytes();
    let on_gpus: u64 = ranks
        .iter()
        .filter_map(|rank| Some(rank.gpus.as_ref().ok()?.device_of(rank.local_rank)?.1.memory.0))
        .sum();
    let place = if on_gpus > 0 && needed < on_gpus / 2 {
        "fit the memory of the GPUs"
    } else if needed < ranks[0].memory / 2 {
        "fit the memory of this node"
    } else {
        "do not fit the memory of this node: they are streamed in every epoch, or shared with other nodes"
    };
    let text = format!(
        "{path}: {count} of {box_size} pixels of {pixel_size:.3} A, {:.1} GiB, opened in {opening:.1} s, read at {:.0} MB/s (or from the page cache); they {place}",
        gib(needed),
        speed / 1e6
    );
    Finding::ok("particles", text)
}
