//! Free host memory (the smallest of what the system has, what the job's control group allows and what the limits of the process
//! leave), and the memory of this process.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::progress::gib;

const MEMORY: &str = "/proc/meminfo";
const PROCESS: &str = "/proc/self/status";
const LIMITS: &str = "/proc/self/limits";
const MEMBERSHIP: &str = "/proc/self/cgroup";
const GROUPS: &str = "/sys/fs/cgroup";

/// Free memory of this node or job, in bytes; 0 if the system does not report it.
pub(crate) fn available() -> u64 {
    let system = std::fs::read_to_string(MEMORY).map_or(0, |text| field(&text, "MemAvailable:") * 1024);
    let membership = std::fs::read_to_string(MEMBERSHIP).unwrap_or_default();
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let limits = [room(Path::new(GROUPS), &membership), left(&read(LIMITS), &read(PROCESS))];
    limits.into_iter().flatten().fold(system, u64::min)
}

/// Checks that `bytes` are free on this node, before they are allocated: an allocation that fails ends the program without an error
/// that names its cause, and one that succeeds may end it later. `what` is the subject of the message: "100 mixtures of 5 Gaussians".
///
/// # Errors
/// When they are not free; names the memory needed, the free memory, and `remedy`.
pub(crate) fn require(bytes: u128, what: impl FnOnce() -> String, remedy: &str) -> Result<()> {
    let free = available();
    if free == 0 || bytes <= u128::from(free) {
        return Ok(());
    }
    let needed = u64::try_from(bytes).unwrap_or(u64::MAX);
    let problem = format!(
        "{} would take {:.1} GiB of memory, but only {:.1} GiB are free here",
        what(),
        gib(needed),
        gib(free)
    );
    Err(Error::request(problem, remedy))
}

/// Memory that the limits on address space and data (`ulimit -v`, `ulimit -d`) leave to this process, in bytes; `None` without a limit.
/// `limits` and `status` are the contents of its files in /proc.
fn left(limits: &str, status: &str) -> Option<u64> {
    [("Max address space", "VmSize:"), ("Max data size", "VmData:")]
        .into_iter()
        .filter_map(|(limit, used)| match field(limits, limit) {
            0 => None,
            limit => Some(limit.saturating_sub(1024 * field(status, used))),
        })
        .min()
}

/// Resident memory of this process, in bytes; 0 if the system does not report it.
pub(crate) fn resident() -> u64 {
    of_process("VmRSS:")
}

/// Peak of the resident memory of this process, in bytes; 0 if the system does not report it.
pub(crate) fn peak() -> u64 {
    of_process("VmHWM:")
}

fn of_process(name: &str) -> u64 {
    std::fs::read_to_string(PROCESS).map_or(0, |text| field(&text, name) * 1024)
}

/// The number after `name` at the start of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// Names of a control group's files, which differ between cgroup v1 and v2.
struct GroupFiles {
    limit: &'static str,
    used: &'static str,
    /// Fields of memory.stat: the page cache, which is counted as used but can be reclaimed.
    page_cache: [&'static str; 2],
}

const V1: GroupFiles = GroupFiles {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    page_cache: ["total_inactive_file ", "total_active_file "],
};
const V2: GroupFiles = GroupFiles {
    limit: "memory.max",
    used: "memory.current",
    page_cache: ["inactive_file ", "active_file "],
};

/// Free memory under the tightest limit of this process' control groups, in bytes; `None` without a limit. `root` is the folder of
/// the groups, `membership` the content of /proc/self/cgroup.
fn room(root: &Path, membership: &str) -> Option<u64> {
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some((root.to_path_buf(), PathBuf::from(path), V2)),
            _ if controllers.split(',').any(|c| c == "memory") => {
                Some((root.join("memory"), PathBuf::from(path), V1))
            }
            _ => None,
        }
    };
    // The limits of parent groups apply too. In a container the path may be the host's, and only the top is visible.
    membership
        .lines()
        .filter_map(group)
        .flat_map(|(top, path, names)| {
            path.ancestors().filter_map(|group| free_in(&top.join(group), &names)).collect::<Vec<_>>()
        })
        .min()
}

/// Free memory under the limit of one group, in bytes; `None` if it has no limit.
fn free_in(group: &Path, names: &GroupFiles) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max", or a number larger than any memory, is no limit.
    let limit = number(names.limit).filter(|&limit| limit < 1 << 60)?;
    let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let page_cache: u64 = names.page_cache.iter().map(|name| field(&statistics, name)).sum();
    Some(limit.saturating_sub(number(names.used).unwrap_or(0).saturating_sub(page_cache)))
}

#[cfg(test)]
mod tests {
    use crate::memory::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join(path);
        std::fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn the_system_reports_free_memory() {
        assert!(available() > 1 << 20);
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:    7 kB\n", "MemAvailable:"), 7);
        assert_eq!(field("MemTotal: 5 kB\n", "MemAvailable:"), 0);
    }

    #[test]
    fn more_than_the_free_memory_is_refused_with_both_numbers() {
        assert!(require(1, || "a byte".into(), "").is_ok());
        let message = require(1 << 60, || "a cathedral".into(), "build a chapel").unwrap_err().to_string();
        assert!(
            message.starts_with("a cathedral would take 1073741824.0 GiB of memory, but only "),
            "{message}"
        );
        assert!(message.ends_with("GiB are free here; build a chapel"), "{message}");
    }

    #[test]
    fn limits_of_the_process_apply() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             unlimited            unlimited            bytes     \n\
                      Max address space         8192                 unlimited            bytes     \n";
        assert_eq!(left(limits, "VmSize:\t       3 kB\nVmData:\t 1 kB\n"), Some(8192 - 3 * 1024));
        assert_eq!(left(limits, "VmSize:\t      30 kB\n"), Some(0));
        assert_eq!(left(&limits.replace("8192     ", "unlimited"), "VmSize: 3 kB\n"), None);
    }

    #[test]
    fn the_tightest_limit_of_parent_groups_applies() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(room(root, "0::/job/step\n"), None);
        group(root, "job/step", &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        assert_eq!(room(root, "0::/job/step\n"), None);
        group(
            root,
            "job",
            &[
                ("memory.max", "1000\n"),
                ("memory.current", "700\n"),
                ("memory.stat", "anon 300\ninactive_file 250\nactive_file 150\n"),
            ],
        );
        assert_eq!(room(root, "0::/job/step\n"), Some(700));
        // The host's path, seen from a container: only the top exists.
        group(root, "", &[("memory.max", "400\n"), ("memory.current", "100\n")]);
        assert_eq!(room(root, "0::/elsewhere/entirely\n"), Some(300));
    }

    #[test]
    fn limits_of_cgroup_v1_apply() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let membership = "5:devices:/\n4:cpu,memory:/slurm/job_7\n0::/\n";
        group(root, "memory", &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(room(root, membership), None);
        group(
            root,
            "memory/slurm/job_7",
            &[
                ("memory.limit_in_bytes", "5000\n"),
                ("memory.usage_in_bytes", "6000\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 1500\ntotal_active_file 0\n"),
            ],
        );
        assert_eq!(room(root, membership), Some(500));
    }
}
