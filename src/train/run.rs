//! A whole run, on every rank: plan, open devices, load shards, train epochs, write outputs.

use std::time::Instant;

use super::options::RunOptions;
use super::planner;
use super::session::{Ending, Session, Trained};
use super::writes;
use crate::parallel::{Failure, Stage, World};
use crate::run_folder::trial;

/// Trains the models of a run and writes its folder. Every rank calls it.
///
/// # Errors
/// What is wrong for all, or on this rank.
pub fn run(world: &World, options: &RunOptions) -> Result<Ending, Failure> {
    let started = Instant::now();
    let watch = world.watch();
    let unchanged = "no checkpoint is written, and those in the run folder are unchanged; run the same command with --resume auto";
    watch.enter(Stage::Preparing(unchanged.into()));
    watch.task("the run is planned");
    let Some(decided) = planner::decide_on_all_ranks(world, options, watch.signal())? else {
        if world.rank() == 0 {
            let folder = options.output.display();
            tracing::info!("the run in {folder} is done: nothing is left to do (--overwrite repeats it)");
        }
        return Ok(Ending::Done);
    };
    watch.task("the run folder is tried");
    let writes = writes::of_rank(world, options, &decided.plan, decided.store.header());
    trial::prove(world, writes.as_ref().map(|writes| (&decided.claim, writes)))?;
    let mut session = Session::new(world, options, (&decided.store, &decided.plan, &decided.claim), started);
    let outcome = (|| {
        watch.task("devices are opened");
        session.open_devices(decided.guess)?;
        watch.task("particles are loaded");
        session.load_shards()?;
        watch.enter(Stage::Training);
        watch.task("models are trained");
        let trained = session.train_epochs(watch.signal())?;
        watch.task("outputs are written");
        match trained {
            Trained::Stopped => session.stop(),
            Trained::ToTheEnd => session.write_outputs(),
        }
    })();
    let outcome = session.close(outcome);
    if matches!(outcome, Err(Failure::Local(_))) && world.size() > 1 {
        // The other ranks may be writing until the job is aborted: the folder stays held by this process, which ends now.
        std::mem::forget(decided.owner);
    }
    outcome
}
