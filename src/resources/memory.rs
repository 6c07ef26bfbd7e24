//! How much host memory there is to take (what the system has, or what the job's control group leaves where that is less), and
//! how much this process has.

use std::path::{Path, PathBuf};

/// Where the kernel tells.
const MEMORY: &str = "/proc/meminfo";
const PROCESS: &str = "/proc/self/status";
const MEMBERSHIP: &str = "/proc/self/cgroup";
const GROUPS: &str = "/sys/fs/cgroup";

/// Memory that this process and those beside it can take now, in bytes; nothing where the system does not say.
pub fn available() -> u64 {
    let system = std::fs::read_to_string(MEMORY).map_or(0, |text| field(&text, "MemAvailable:") * 1024);
    let membership = std::fs::read_to_string(MEMBERSHIP).unwrap_or_default();
    room(Path::new(GROUPS), &membership).map_or(system, |room| room.min(system))
}

/// Resident memory of this process, in bytes; 0 where the system does not say.
pub fn resident() -> u64 {
    process("VmRSS:")
}

/// The most that it was at any time.
pub fn peak() -> u64 {
    process("VmHWM:")
}

fn process(name: &str) -> u64 {
    std::fs::read_to_string(PROCESS).map_or(0, |text| field(&text, name) * 1024)
}

/// The number behind `name` in a file of lines; 0 where there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// The names of a control group's files, which differ between the two versions of them.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// Of the memory in use, what holds files, and is given back when it is wanted: fields of memory.stat.
    files: [&'static str; 2],
}

const FIRST: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files: ["total_inactive_file ", "total_active_file "],
};
const SECOND: Names =
    Names { limit: "memory.max", used: "memory.current", files: ["inactive_file ", "active_file "] };

/// The least that a control group of this process leaves, of all that limit its memory; `membership` is /proc/self/cgroup.
fn room(root: &Path, membership: &str) -> Option<u64> {
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some((root.to_path_buf(), PathBuf::from(path), SECOND)),
            _ if controllers.split(',').any(|c| c == "memory") => {
                Some((root.join("memory"), PathBuf::from(path), FIRST))
            }
            _ => None,
        }
    };
    // A group is bound by those above it too; in a container the path may be the host's, and only its top is to be seen.
    membership
        .lines()
        .filter_map(group)
        .flat_map(|(top, path, names)| {
            let left =
                path.ancestors().filter_map(|group| left(&top.join(group), &names)).collect::<Vec<_>>();
            left.into_iter()
        })
        .min()
}

/// What one group leaves; `None` where it sets no limit.
fn left(group: &Path, names: &Names) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max", or a number that no machine has, is no limit.
    let limit = number(names.limit).filter(|&limit| limit < 1 << 60)?;
    let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files: u64 = names.files.iter().map(|name| field(&statistics, name)).sum();
    Some(limit.saturating_sub(number(names.used).unwrap_or(0).saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use crate::resources::memory::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join(path);
        std::fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn the_machine_has_some() {
        assert!(available() > 1 << 20);
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:    7 kB\n", "MemAvailable:"), 7);
        assert_eq!(field("MemTotal: 5 kB\n", "MemAvailable:"), 0);
    }

    #[test]
    fn the_tightest_group_above_the_process_counts() {
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
        // A path that is the host's, seen from a container: only the top is there.
        group(root, "", &[("memory.max", "400\n"), ("memory.current", "100\n")]);
        assert_eq!(room(root, "0::/elsewhere/entirely\n"), Some(300));
    }

    #[test]
    fn the_first_version_of_groups_counts_too() {
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
