//! What started this process. Launchers say in the environment how many tasks there are, and MPI must find as many: a
//! library that does not understand the launcher takes each task for a world of its own, or does not start at all.

use mpi::environment::library_version;

use crate::error::Error;

const SRUN: &str = "`srun`";

/// A launcher, and how many tasks it has started at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    name: &'static str,
    tasks: usize,
}

impl Launcher {
    /// What the environment tells; `None` where no launcher is in sight. To be asked before MPI starts, which itself sets
    /// some of these variables.
    pub fn seen() -> Option<Self> {
        Self::told_by(|name| std::env::var(name).ok())
    }

    /// Of several, the one closest to this process: an `mpirun` in a SLURM job may start its own daemons by `srun`, and
    /// what those start inherits the words of both.
    fn told_by(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        // Without a step, as in a batch script, the number of tasks is the allocation's.
        let step = || variable("SLURM_STEP_ID").and_then(|_| number("SLURM_STEP_NUM_TASKS"));
        let launcher = |name, tasks: Option<usize>| tasks.map(|tasks| Self { name, tasks });
        launcher("`mpirun` of Open MPI", number("OMPI_COMM_WORLD_SIZE"))
            .or_else(|| launcher("`mpiexec` of MPICH or Intel MPI", number("PMI_SIZE")))
            .or_else(|| launcher(SRUN, step()))
            .or_else(|| launcher("a launcher with PMIx", number("PMIX_RANK").map(|rank| rank + 1)))
    }

    /// What is wrong where MPI found this task alone, if anything is.
    pub fn mismatch(self) -> Option<Error> {
        (self.tasks > 1).then(|| {
            Error::request(
                format!(
                    "{} started {} tasks, and MPI sees only one: each would train alone",
                    self.name, self.tasks
                ),
                remedy(),
            )
        })
    }
}

/// How to launch this program, with the name of its MPI library.
fn remedy() -> String {
    let library = library_version().unwrap_or_default();
    // "Open MPI v4.1.4, package: ..."; "MPICH Version:\t4.0.2\n...".
    let library = library.lines().next().unwrap_or_default().split(',').next().unwrap_or_default();
    format!(
        "launch with `srun --mpi=pmix`, or with the `mpirun` of the MPI library that the program was built with ({})",
        library.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}

/// Open MPI, started by `srun` without PMIx, mostly ends the process while MPI starts, with many words about how to build
/// itself. What to do is said before.
pub fn warn_of_srun_without_pmix() {
    let is_open_mpi = library_version().is_ok_and(|version| version.starts_with("Open MPI"));
    if is_open_mpi && lacks_pmix(|name| std::env::var(name).ok()) {
        eprintln!("warning: `srun` gave this task no PMIx; if MPI does not start, {}", remedy());
    }
}

fn lacks_pmix(variable: impl Fn(&str) -> Option<String>) -> bool {
    let srun = Launcher::told_by(&variable).is_some_and(|seen| seen.name == SRUN && seen.tasks > 1);
    srun && variable("PMIX_RANK").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Option<(&'static str, usize)> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Launcher::told_by(variable).map(|launcher| (launcher.name, launcher.tasks))
    }

    #[test]
    fn the_closest_launcher_counts() {
        let step = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert_eq!(told(&step), Some((SRUN, 2)));
        // One task of mpirun, whose daemons srun has started on two nodes.
        assert_eq!(told(&[&step[..], &[("OMPI_COMM_WORLD_SIZE", "1")]].concat()).unwrap().1, 1);
        assert_eq!(told(&[&step[..], &[("PMI_SIZE", "8")]].concat()).unwrap().1, 8);
    }

    #[test]
    fn a_step_without_pmix_is_told() {
        let lacking = |variables: &[(&str, &str)]| {
            lacks_pmix(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let step = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert!(lacking(&step));
        assert!(!lacking(&[&step[..], &[("PMIX_RANK", "0")]].concat()));
        assert!(!lacking(&[&step[..], &[("OMPI_COMM_WORLD_SIZE", "2")]].concat()));
        assert!(!lacking(&[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]));
    }

    #[test]
    fn words_that_tell_nothing() {
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("SLURM_NTASKS", "4"), ("SLURM_STEP_NUM_TASKS", "4")]), None, "a batch script");
        assert_eq!(told(&[("PMI_SIZE", "many")]), None);
        assert!(Launcher { name: "", tasks: 1 }.mismatch().is_none());
        // The first rank cannot know of the others.
        assert_eq!(told(&[("PMIX_RANK", "0")]).unwrap().1, 1);
    }
}
