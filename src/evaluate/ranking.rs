//! The ranking of runs by their cross-validated curves.

use std::fmt::Write as _;

use serde::Serialize;

use crate::evaluate::fsc::{Fsc, GOLD_STANDARD};

/// A cross-validated curve and the standard errors of its shells.
pub(super) type Validated = (Fsc, Vec<f64>);

/// Runs in the order of the mean of their cross-validated FSC over a range of shells that all of them have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// Last shell of the range, which begins at shell 1.
    pub last_shell: usize,
    /// Resolution of that shell in angstrom.
    pub resolution: f64,
    /// The run whose curve ends there, if those of others go on.
    pub limited_by: Option<String>,
    /// The runs, the best first.
    pub runs: Vec<Ranked>,
}

/// A run in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// Index of the run, from 0.
    pub run: usize,
    /// Its name.
    pub name: String,
    /// Mean of the cross-validated FSC over the range.
    pub mean: f64,
    /// Standard error of the mean.
    pub error: f64,
    /// Where the curve falls below 0.143, in words.
    pub crossing: String,
}

impl Ranking {
    /// Ranks the runs that have a cross-validated curve; `None` if fewer than two do. All curves have the same field of view.
    pub(super) fn of(names: &[String], validated: &[Option<Validated>]) -> Option<Self> {
        let known = || validated.iter().enumerate().filter_map(|(run, found)| Some((run, found.as_ref()?)));
        let last_shell =
            known().map(|(_, (fsc, _))| fsc.last_shell()).min().filter(|_| known().count() > 1)?;
        let rank = |(run, (fsc, errors)): (usize, &(Fsc, Vec<f64>))| Ranked {
            run,
            name: names[run].clone(),
            mean: fsc.mean_to(last_shell),
            error: errors[1..=last_shell].iter().map(|e| e * e).sum::<f64>().sqrt() / last_shell as f64,
            crossing: fsc.crossing(GOLD_STANDARD).to_string(),
        };
        let mut runs: Vec<Ranked> = known().map(rank).collect();
        runs.sort_by(|a, b| b.mean.total_cmp(&a.mean).then(a.run.cmp(&b.run)));
        let (_, (fsc, _)) = known().next()?;
        let shortest = known().find(|(_, (fsc, _))| fsc.last_shell() == last_shell);
        let limited_by = shortest
            .filter(|_| known().any(|(_, (fsc, _))| fsc.last_shell() > last_shell))
            .map(|(run, _)| names[run].clone());
        Some(Self { last_shell, resolution: 1.0 / fsc.frequency(last_shell as f64), limited_by, runs })
    }

    /// The ranking for people.
    pub(super) fn to_text(&self) -> String {
        let width = self.runs.iter().map(|run| run.name.chars().count()).max().unwrap_or(0);
        let limit = self.limited_by.as_ref();
        let mut text = format!(
            "ranking by the mean cross-validated FSC of shells 1 to {} (to {:.2} A), which all runs have{}:\n",
            self.last_shell,
            self.resolution,
            limit.map_or(String::new(), |name| format!("; the curve of {name} ends there"))
        );
        for (place, Ranked { name, mean, error, crossing, .. }) in self.runs.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "  {}. {name:width$}  {mean:.4} +- {error:.4}  FSC {GOLD_STANDARD}: {crossing}",
                place + 1
            );
        }
        text
    }
}

/// A remark that names the runs without a cross-validated curve; `None` if all have one.
pub(super) fn missing(names: &[String], validated: &[Option<Validated>]) -> Option<String> {
    let missing: Vec<&str> =
        names.iter().zip(validated).filter(|(_, found)| found.is_none()).map(|(name, _)| &**name).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "not ranked, without cross-validation: {} (--voxels names a `backproject` run of their particles)",
            missing.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_ranked_over_the_shells_that_all_have() {
        let curve = |shells: &[f64]| {
            let fsc = Fsc { pixel_size: 2.0, box_size: 16, shells: shells.to_vec() };
            Some((fsc, vec![0.01; shells.len()]))
        };
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        // Beyond shell 3 the first would win.
        let validated = [curve(&[1.0, 0.9, 0.8, 0.4, 0.9, 0.9]), None, curve(&[1.0, 0.9, 0.8, 0.6])];
        let ranking = Ranking::of(&names, &validated).unwrap();
        assert_eq!((ranking.last_shell, ranking.resolution), (3, 32.0 / 3.0));
        assert_eq!(ranking.runs.iter().map(|run| run.run).collect::<Vec<_>>(), [2, 0]);
        assert!((ranking.runs[0].mean - 2.3 / 3.0).abs() < 1e-12, "{ranking:?}");
        assert!(ranking.to_text().contains("; the curve of c ends there:"), "{}", ranking.to_text());
        assert!(ranking.to_text().contains("  1. c  0.7667 +- 0.0058"), "{}", ranking.to_text());
        assert_eq!(Ranking::of(&names, &[None, validated[0].clone(), None]), None);
        assert!(missing(&names, &validated).unwrap().contains("cross-validation: b ("));
    }
}
