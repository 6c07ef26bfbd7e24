//! All-reduce: the bench starts itself again as two MPI ranks.

use std::time::{Duration, Instant};

use cryosplat_mpi::parallel::World;
use cryosplat_mpi::parallel::{Collective, EndSignal};

use super::common;

/// Environment variable of the ranks: length of the buffer and number of all-reduces.
const VARIABLE: &str = "CRYOSPLAT_BENCH_ALL_REDUCE";

/// Whether this process is one of the ranks.
pub fn is_rank() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Time of `iterations` all-reduces of `length` numbers over two ranks on this machine.
pub fn measure(length: usize, iterations: u64) -> Duration {
    let program = std::env::current_exe().expect("this program is a file").display().to_string();
    let order = format!("{length} {iterations}");
    let output = common::over_mpi_with(2, &program, &[], &[(VARIABLE, &order)]);
    let printed = common::text(&output);
    let seconds = printed.lines().find_map(|line| line.strip_prefix("seconds ")?.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("the ranks failed: {printed}")))
}

/// Main function of a rank.
pub fn run() {
    let order = std::env::var(VARIABLE).expect("it was there");
    let (length, iterations) = order.split_once(' ').expect("two numbers");
    let (length, iterations): (usize, u64) =
        (length.parse().expect("a number"), iterations.parse().expect("a number"));
    let world = World::start(Duration::from_secs(600), EndSignal::default()).expect("MPI");
    let mut collective = Collective::new(world.duplicate(), world.watch().clone());
    let mut buffer = vec![0.0f32; length];
    collective.all_reduce_sum(&mut buffer);
    collective.barrier();
    let start = Instant::now();
    for _ in 0..iterations {
        collective.all_reduce_sum(&mut buffer);
    }
    let elapsed = start.elapsed();
    if world.rank() == 0 {
        println!("seconds {}", elapsed.as_secs_f64());
    }
}
