//! Memory of the host that a bench has taken.

use crate::parallel::Collective;
use crate::train::metrics::Spread;

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
