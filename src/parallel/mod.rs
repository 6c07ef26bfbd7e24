//! MPI and NCCL: the world communicator, one group per half, collectives. Knows nothing of Gaussians.

mod collective;
mod groups;
mod host;
mod launcher;
pub mod nccl;
mod progress_evidence;
mod sign_of_life;
mod signals;
mod watch;
mod watchdog;
mod watched;
mod world;

pub use collective::Collective;
pub use groups::{Assignment, HalfGroup, assign, first_rank, group_size};
pub(crate) use launcher::{Launcher, library as mpi_library};
pub use signals::{EndSignal, end_is_asked, training_is_over};
pub use watch::Watch;
pub use watched::Stage;
pub use world::{Failure, World};
