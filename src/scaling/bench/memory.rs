//! Memory that a bench has taken.

use crate::error::Result;
use crate::parallel::Collective;
use crate::render::cuda::card::Card;
use crate::scaling::record::Spread;
use crate::train::devices::Choice;

/// Free memory of the GPU in bytes, where there is one.
pub fn device_free(choice: Choice) -> Result<Option<usize>> {
    match choice {
        Choice::Cpu => Ok(None),
        Choice::Gpu(ordinal) => Ok(Some(Card::open(ordinal)?.memory()?.0)),
    }
}

/// By how much the free memory went down since it was `before`, over the ranks.
pub fn device_used(choice: Choice, before: Option<usize>, collective: &Collective) -> Result<Option<Spread>> {
    let Some(before) = before else { return Ok(None) };
    let now = device_free(choice)?.unwrap_or(before);
    let all = collective.gather(before.saturating_sub(now) as u64);
    Ok(Some(Spread::of(&all.iter().map(|&bytes| bytes as f64).collect::<Vec<_>>())))
}

/// The most memory of the host that this process and each of the others had at any time, in bytes; `None` where the system
/// does not say.
pub fn host_peak(collective: &Collective) -> Option<Spread> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let all = collective.gather(kib.unwrap_or(0) * 1024);
    (!all.contains(&0)).then(|| Spread::of(&all.iter().map(|&bytes| bytes as f64).collect::<Vec<_>>()))
}
