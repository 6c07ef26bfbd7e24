//! Detection of the MPI launcher. Launchers put the number of tasks into the environment, and the MPI world must have as many
//! ranks: an MPI library that does not support the launcher makes each task a world of one rank, or fails to initialise.

use mpi::environment::library_version;

use crate::error::Error;

const SRUN: &str = "`srun`";
const OPEN_MPI: &str = "`mpirun` of Open MPI";

/// A launcher, and the minimum number of tasks that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    name: &'static str,
    tasks: usize,
}

impl Launcher {
    /// Detects the launcher from the environment; `None` without one. Must be called before MPI is initialised, which sets some of
    /// these variables itself.
    pub fn detect() -> Option<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The innermost of several launchers: `mpirun` in a SLURM job may start its daemons with `srun`, and their children inherit the
    /// variables of both.
    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        // Outside a job step, as in a batch script, the number of tasks is that of the allocation.
        let step = || variable("SLURM_STEP_ID").and_then(|_| number("SLURM_STEP_NUM_TASKS"));
        let launcher = |name, tasks: Option<usize>| tasks.map(|tasks| Self { name, tasks });
        launcher(OPEN_MPI, number("OMPI_COMM_WORLD_SIZE"))
            .or_else(|| launcher("`mpiexec` of MPICH or Intel MPI", number("PMI_SIZE")))
            .or_else(|| launcher(SRUN, step()))
            .or_else(|| launcher("a launcher with PMIx", number("PMIX_RANK").map(|rank| rank + 1)))
    }

    /// Whether it is Open MPI's own.
    pub fn is_open_mpi(self) -> bool {
        self.name == OPEN_MPI
    }

    /// The number of this task, for a command of one process that a launcher has started as several; `None` if it runs once. The
    /// tasks would write the same outputs.
    pub(crate) fn copy() -> Option<usize> {
        let variable = |name: &str| std::env::var(name).ok();
        let copies = Self::from_variables(variable).is_some_and(|launcher| launcher.tasks > 1);
        let numbers = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", "PMIX_RANK"];
        let number = |name: &&str| variable(name)?.trim().parse().ok();
        copies.then(|| numbers.iter().find_map(number).unwrap_or(0))
    }

    /// Its name, for messages.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The error if the launcher started several tasks; to be called when the MPI world has one rank.
    pub fn mismatch(self) -> Option<Error> {
        (self.tasks > 1).then(|| {
            Error::request(
                format!(
                    "{} started {} tasks, but MPI sees only one: each task would train alone",
                    self.name, self.tasks
                ),
                remedy(),
            )
        })
    }
}

/// Name and version of the MPI library. May be called before MPI is initialised.
pub fn library() -> String {
    let library = library_version().unwrap_or_default();
    // "Open MPI v4.1.4, package: ..."; "MPICH Version:\t4.0.2\n...".
    let library = library.lines().next().unwrap_or_default().split(',').next().unwrap_or_default();
    library.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Advice on how to launch the program, with the name of its MPI library.
fn remedy() -> String {
    format!(
        "launch with `srun --mpi=pmix`, or with the `mpirun` of the MPI library that the program was built with ({})",
        library()
    )
}

/// Prints a warning before MPI is initialised: Open MPI under `srun` without PMIx usually ends the process during initialisation,
/// with a long message about how it was built.
pub fn warn_of_srun_without_pmix() {
    let is_open_mpi = library_version().is_ok_and(|version| version.starts_with("Open MPI"));
    if is_open_mpi && lacks_pmix(|name| std::env::var(name).ok()) {
        eprintln!("warning: `srun` did not provide PMIx; if MPI does not start, {}", remedy());
    }
}

fn lacks_pmix(variable: impl Fn(&str) -> Option<String>) -> bool {
    let srun = Launcher::from_variables(&variable)
        .is_some_and(|launcher| launcher.name == SRUN && launcher.tasks > 1);
    srun && variable("PMIX_RANK").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(variables: &[(&str, &str)]) -> Option<(&'static str, usize)> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Launcher::from_variables(variable).map(|launcher| (launcher.name, launcher.tasks))
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let step = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2")];
        assert_eq!(detected(&step), Some((SRUN, 2)));
        // One task of mpirun whose daemons were started by srun on two nodes.
        assert_eq!(detected(&[&step[..], &[("OMPI_COMM_WORLD_SIZE", "1")]].concat()).unwrap().1, 1);
        assert_eq!(detected(&[&step[..], &[("PMI_SIZE", "8")]].concat()).unwrap().1, 8);
    }

    #[test]
    fn a_job_step_without_pmix_is_detected() {
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
    fn other_environments_give_no_launcher() {
        assert_eq!(detected(&[]), None);
        assert_eq!(detected(&[("SLURM_NTASKS", "4"), ("SLURM_STEP_NUM_TASKS", "4")]), None, "a batch script");
        assert_eq!(detected(&[("PMI_SIZE", "many")]), None);
        assert!(Launcher { name: "", tasks: 1 }.mismatch().is_none());
        // PMIX_RANK gives rank 0 only the minimum.
        assert_eq!(detected(&[("PMIX_RANK", "0")]).unwrap().1, 1);
    }
}
