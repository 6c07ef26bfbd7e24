//! What a training run logs.

use std::time::Duration;

use super::plan::Plan;
use crate::files::shell_word;
use crate::gmm::symmetric::described;
use crate::loader::shard::Traffic;
use crate::parallel::{Assignment, World};
use crate::particles::Subset;
use crate::particles::selection;
use crate::particles::store::Store;
use crate::recipe::Settings;
use crate::render::Device;
use crate::resources::all_reduce::AllReduce;
use crate::run_folder::metrics::EpochSummary;

/// Logs, on rank 0, what is trained, on what, and from where a resumed run continues.
pub(super) fn introduce(
    world: &World,
    store: &Store,
    plan: &Plan,
    assignment: &Assignment,
    device: &dyn Device,
    reduction: &AllReduce,
) {
    if world.rank() > 0 {
        return;
    }
    let (subsets, ranks) = (plan.subsets(), assignment.size);
    let settings = &plan.models[assignment.models[0]].settings;
    selection::log(store, &subsets);
    let mixtures = match settings.mixtures {
        1 => String::new(),
        several => format!("{several} mixtures of "),
    };
    tracing::info!(
        "{mixtures}{}{}, {} epochs, batch {} per half, learning rate {:.2e} ({}), seed {}",
        described(settings.gaussians, settings.symmetry),
        settings.densification(),
        settings.epochs,
        settings.batch,
        settings.learning_rate,
        settings.schedule,
        settings.seed
    );
    if !settings.likelihood.is_default() {
        tracing::info!("the loss takes into account: {}", settings.likelihood.describe());
    }
    let collective = reduction.name();
    tracing::info!(
        "{} {}, {ranks} in the group of {}; each: {}{}",
        world.size(),
        if world.size() == 1 { "rank" } else { "ranks" },
        subsets[0].name(),
        device.name(),
        if ranks > 1 || collective == "NCCL" {
            format!("; all-reduce over {collective}")
        } else {
            String::new()
        }
    );
    if world.size() % 2 == 1 && world.size() > 1 && subsets.len() == 2 {
        tracing::warn!(
            "{} ranks cannot be shared evenly: {ranks} train half1, {} half2",
            world.size(),
            world.size() - ranks
        );
    }
    if plan.resumed_ranks > 0 {
        let steps = plan.models.iter().map(|model| format!("step {} of {}", model.steps_done, model.name()));
        tracing::info!("resuming after {}", steps.collect::<Vec<_>>().join(" and "));
        if plan.resumed_ranks != ranks {
            tracing::warn!(
                "this run used {} ranks for {} before and now uses {ranks}: sums are in a different order, so the result will \
                 differ by rounding from an uninterrupted run",
                plan.resumed_ranks,
                subsets[0].name()
            );
        }
    }
}

/// Logs that each Gaussian of a mixture of `subset` became two before the epoch after `epoch`.
pub(super) fn densified(subset: Subset, epoch: usize, [from, to]: [usize; 2]) {
    tracing::info!("{subset} densified after epoch {epoch}: {from} -> {to} Gaussians");
}

/// Logs the end of an epoch.
pub(super) fn epoch(subset: Subset, settings: &Settings, summary: &EpochSummary, traffic: &Traffic) {
    let number = settings.mixture_in(summary.epoch - 1);
    let mixture = match (number.checked_sub(settings.refining_mixtures()), settings.mixtures) {
        (None, _) => " (refining)".into(),
        (_, 1) => String::new(),
        (Some(number), all) => format!(" (mixture {} of {all})", number + 1),
    };
    let read = if traffic.bytes == 0 {
        String::new()
    } else {
        format!(", {}", traffic.describe(Duration::from_secs_f64(summary.seconds)))
    };
    tracing::info!(
        "{subset} epoch {} of {}{mixture}: loss {:.6}, {:.0} images/s{read}",
        summary.epoch,
        settings.epochs,
        summary.loss,
        summary.images as f64 / summary.seconds.max(1e-9),
    );
}

/// Logs how to use all `gpus` GPUs of this machine, where one rank was started by `command`.
pub(super) fn advise_more_ranks(gpus: usize, command: &[String]) {
    tracing::warn!(
        "1 of {gpus} GPUs is used; to use all: mpirun -n {gpus} --bind-to none {}",
        command.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
    );
}

/// The command line that resumes a run of `ranks` ranks, which `command` has started.
pub(super) fn resuming(command: &[String], ranks: usize) -> String {
    let mut words: Vec<String> =
        command.iter().filter(|word| *word != "--overwrite").map(|word| shell_word(word)).collect();
    if !words.iter().any(|word| word == "--resume" || word.starts_with("--resume=")) {
        words.extend(["--resume".into(), "auto".into()]);
    }
    let launcher = match ranks {
        1 => String::new(),
        _ if std::env::var_os("SLURM_JOB_ID").is_some() => "srun ".into(),
        _ => format!("mpirun -n {ranks} --bind-to none "),
    };
    launcher + &words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_pasted() {
        for (word, typed) in
            [("a/b.h5", "a/b.h5"), ("", "''"), ("my set.h5", "'my set.h5'"), ("it's", "'it'\\''s'")]
        {
            assert_eq!(shell_word(word), typed);
        }
    }
}
