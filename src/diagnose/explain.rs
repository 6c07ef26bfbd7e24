//! Trials of several explanations of the same images, and the one that is right.

use super::trial::{Agreement, Change, Sample};

/// What another explanation must add to the information of the metadata as given: a part of it, and nats. Measured on sound sets, the
/// best other scale of the CTF adds up to 0.4%, and the best other convention shares half of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Margin {
    part: f64,
    nats: f64,
}

/// For another convention or treatment of the images.
pub(super) const WIDE: Margin = Margin { part: 0.05, nats: 30.0 };
/// For another scale of the CTF.
pub(super) const NARROW: Margin = Margin { part: 0.02, nats: 15.0 };
/// FSC between the halves of the sample at which a resolution is read.
const THRESHOLD: f64 = 0.143;

/// A change of the metadata, and the agreement of the halves with it.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub change: Change,
    /// The change in words, as in "the images fit ... better".
    pub name: String,
    pub agreement: Agreement,
}

/// Tries `changes`; the first of the best is returned.
pub(super) fn best(sample: &Sample, changes: Vec<(Change, String)>) -> Option<Trial> {
    let mut best: Option<Trial> = None;
    for (change, name) in changes {
        let agreement = sample.agreement(change);
        tracing::debug!("{name}: {:.0} nats", agreement.information);
        if best.as_ref().is_none_or(|best| agreement.information > best.agreement.information) {
            best = Some(Trial { change, name, agreement });
        }
    }
    best
}

/// Whether `other` is better than `given` beyond chance and interpolation.
pub(super) fn is_better(other: &Agreement, given: &Agreement, margin: Margin) -> bool {
    other.information > given.information + margin.nats.max(margin.part * given.information)
}

impl Sample {
    /// The comparison of two agreements in words: information, and resolutions.
    pub fn compared(&self, other: &Agreement, given: &Agreement) -> String {
        let of = |agreement: &Agreement| {
            let resolution =
                self.resolution(agreement).map_or("no shell".to_owned(), |at| format!("{at:.1} A"));
            format!("{:.0} nats of information, FSC {THRESHOLD} at {resolution}", agreement.information)
        };
        format!("two halves of {} particles share {}; as given {}", self.particles(), of(other), of(given))
    }

    /// The resolution in angstrom of the last shell before the FSC falls below the threshold; `None` if there is none.
    pub fn resolution(&self, agreement: &Agreement) -> Option<f64> {
        let last = agreement.fsc.iter().skip(1).position(|&fsc| fsc < THRESHOLD);
        let last = last.unwrap_or(agreement.fsc.len() - 1);
        (last > 0).then(|| self.box_size as f64 * self.pixel_size / last as f64)
    }
}
