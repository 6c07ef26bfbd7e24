//! A whole run, on every rank: plan, open devices, load shards, train epochs, write outputs.

use std::time::Instant;

use super::options::RunOptions;
use super::planner;
use super::session::{Ending, Session, Trained};
use crate::parallel::{EndSignal, Failure, World};

/// Trains the models of a run and writes its folder. Every rank calls it.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &RunOptions) -> Result<Ending, Failure> {
    let started = Instant::now();
    let signal = EndSignal::watch()?;
    let Some(decided) = planner::decide_on_all_ranks(world, options)? else {
        if world.rank() == 0 {
            let folder = options.output.display();
            tracing::info!("the run in {folder} is done: nothing is left to do (--overwrite repeats it)");
        }
        return Ok(Ending::Done);
    };
    let mut session = Session::new(world, options, &decided.store, &decided.plan, started);
    let outcome = (|| {
        session.open_devices(decided.guess)?;
        session.load_shards()?;
        match session.train_epochs(&signal)? {
            Trained::Stopped => session.stop(),
            Trained::ToTheEnd => session.write_outputs(),
        }
    })();
    session.close(outcome)
}
