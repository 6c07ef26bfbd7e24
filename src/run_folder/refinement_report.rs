//! What the report shows of a refinement: the changes of the particles, and the rounds.

use crate::figures::chart::Chart;
use crate::figures::particles::value_histogram;
use crate::figures::report::Part;
use crate::particles::Subset;
use crate::particles::refinement::Refinement;
use crate::particles::store::Store;
use crate::run_folder::refinement::RoundSummary;
use crate::run_folder::refinement_file::RunRefinement;

/// Fraction of the values that a histogram spreads over its bars; the others count in the first or last one.
const SPREAD: f64 = 0.99;

/// A change of a particle: title and label of its histogram, its value in this unit for a pixel size, and whether it has a sign.
type Change = (&'static str, &'static str, fn(&Refinement, f64) -> f64, bool);

const CHANGES: [Change; 4] = [
    ("Refined rotation in the image plane", "Degrees", |refined, _| refined.angles().in_plane, true),
    ("Refined tilt of the view axis", "Degrees", |refined, _| refined.angles().tilt, false),
    (
        "Refined shift",
        "Length (Å)",
        |refined, pixel| pixel * refined.offset[0].hypot(refined.offset[1]),
        false,
    ),
    ("Refined defocus", "Change (Å)", |refined, _| refined.defocus, true),
];

/// Histograms of the changes of the particles of `store`, those that are not all 0, and the table of the rounds.
pub fn parts(refinement: &RunRefinement, store: &Store) -> Vec<Part> {
    let charts: Vec<Chart> =
        CHANGES.iter().filter_map(|change| histogram(change, refinement, store)).collect();
    let mut parts = if charts.is_empty() { Vec::new() } else { vec![Part::Charts(charts)] };
    parts.extend(rounds(refinement, store));
    parts
}

/// The median change of the pose and the shift for the headline, such as "2.1°, 3.0 Å"; `None` without refined particles.
pub fn median_change(refinement: &RunRefinement, pixel_size: f64) -> Option<String> {
    let median = |value: &dyn Fn(&Refinement) -> f64| {
        let mut values: Vec<f64> = refinement.rows.iter().map(value).collect();
        let middle = values.len() / 2;
        (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
    };
    let rotation = median(&|refined| refined.angles().total)?;
    let shift = median(&|refined| pixel_size * refined.offset[0].hypot(refined.offset[1]))?;
    Some(format!("{rotation:.2}°, {shift:.2} Å"))
}

/// The histogram of a change, by half; `None` if it is 0 for all particles.
fn histogram(
    &(title, label, value, signed): &Change,
    refinement: &RunRefinement,
    store: &Store,
) -> Option<Chart> {
    let pixel = store.header().pixel_size;
    let of_half = |half: Subset| -> (String, Vec<f64>) {
        let rows = refinement.rows.get(store.rows(half)).unwrap_or_default();
        (half.name().to_owned(), rows.iter().map(|refined| value(refined, pixel)).collect())
    };
    let sets = Subset::HALVES.map(of_half);
    let mut sizes: Vec<f64> = sets.iter().flat_map(|(_, values)| values).map(|value| value.abs()).collect();
    if sizes.iter().all(|&size| size == 0.0) {
        return None;
    }
    let last = ((sizes.len() as f64 * SPREAD) as usize).min(sizes.len() - 1);
    let (_, &mut spread, rest) = sizes.select_nth_unstable_by(last, f64::total_cmp);
    // Where nearly all are 0, the others decide.
    let high = if spread > 0.0 { spread } else { rest.iter().copied().fold(0.0, f64::max) };
    let low = if signed { -high } else { 0.0 };
    Some(value_histogram(title, label, [low, high], &sets))
}

/// The table of the rounds of all models; `None` without one.
fn rounds(refinement: &RunRefinement, store: &Store) -> Option<Part> {
    let header = store.header();
    let edge = header.box_size as f64 * header.pixel_size;
    let row = |(subset, (number, round)): (Subset, (usize, &RoundSummary))| -> Vec<String> {
        let degrees = |radians: f64| format!("{:.2}", radians.to_degrees());
        let angstrom = |pixels: f64| format!("{:.2}", pixels * header.pixel_size);
        vec![
            subset.name().to_owned(),
            number.to_string(),
            (round.epoch + 1).to_string(),
            if round.limit > 0 { format!("{:.1}", edge / round.limit as f64) } else { "-".into() },
            round.accepted.to_string(),
            round.searched.to_string(),
            degrees(round.mean_rotation_step),
            angstrom(round.mean_offset_step),
            degrees(round.rotation_width),
            angstrom(round.offset_width),
            format!("{:.0}", round.defocus_width),
        ]
    };
    let of_models = refinement.rounds.iter();
    let all = of_models.flat_map(|(subset, rounds)| (1..).zip(rounds).map(|round| (*subset, round)));
    let rows: Vec<Vec<String>> = all.map(row).collect();
    let head = [
        "Model",
        "Round",
        "Before epoch",
        "Limit (Å)",
        "Steps taken",
        "Poses searched",
        "Mean rotation (°)",
        "Mean move (Å)",
        "Prior: rotation (°)",
        "Prior: offset (Å)",
        "Prior: defocus (Å)",
    ];
    (!rows.is_empty()).then(|| Part::Table {
        heading: "Rounds of refinement".into(),
        head: head.map(str::to_owned).into(),
        rows,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A set of three and two particles in 8 pixels of 2 A.
    pub fn store(folder: &std::path::Path) -> Store {
        use crate::imaging::ctf::{CtfParameters, Optics};
        use crate::particles::store::{Dtype, Header, Particle, Writer};
        let header = Header {
            box_size: 8,
            pixel_size: 2.0,
            normalized: false,
            inverted: false,
            optics: vec![Optics::new(300.0, 2.7, 0.1)],
            halves: [3, 2],
            source_files: vec![],
            imported_from: None,
        };
        let path = folder.join("p.h5");
        let mut writer = Writer::create(&path, &header, Dtype::F32).unwrap();
        let particle = Particle {
            rotation: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            shift: [0.0; 2],
            ctf: CtfParameters::default(),
            optics_group: 0,
            source: None,
        };
        writer.append(Subset::Half1, &[particle; 3], &[0.5; 3 * 64]).unwrap();
        writer.append(Subset::Half2, &[particle; 2], &[0.5; 2 * 64]).unwrap();
        writer.finish().unwrap();
        Store::open(&path).unwrap()
    }

    #[test]
    fn changes_that_took_place_are_drawn_and_rounds_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let moved = Refinement { rotation: [0.0, 0.1, 0.02], offset: [0.6, -0.8], defocus: 0.0 };
        let round =
            RoundSummary { epoch: 4, limit: 4, accepted: 3, rotation_width: 0.1, ..Default::default() };
        let refinement = RunRefinement {
            rows: vec![moved, Refinement::default(), moved, moved, Refinement::default()],
            rounds: vec![(Subset::Half1, vec![round, round]), (Subset::Half2, vec![])],
        };
        let found = parts(&refinement, &store);
        let [Part::Charts(charts), Part::Table { head, rows, .. }] = &found[..] else { panic!("{found:?}") };
        // Without the defocus, which has not changed.
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, [CHANGES[0].0, CHANGES[1].0, CHANGES[2].0]);
        for chart in charts {
            let counts = |curve: usize| -> f64 {
                chart.curves[curve].points.iter().skip(1).step_by(2).map(|point| point[1]).sum()
            };
            assert_eq!((counts(0), counts(1)), (3.0, 2.0), "{}", chart.title);
        }
        assert!((charts[2].x.high - 2.0).abs() < 1e-12 && charts[2].x.low == 0.0, "{:?}", charts[2].x);
        assert_eq!((rows.len(), rows[1].len()), (2, head.len()));
        let expected = ["half1", "2", "5", "4.0", "3", "0", "0.00", "0.00", "5.73", "0.00", "0"];
        assert_eq!(rows[1], expected);
        let total = (0.1f64.powi(2) + 0.02f64.powi(2)).sqrt().to_degrees();
        assert_eq!(median_change(&refinement, 2.0), Some(format!("{total:.2}°, 2.00 Å")));
        // A run that refined nothing shows nothing.
        let still = RunRefinement { rows: vec![Refinement::default(); 5], rounds: vec![] };
        assert!(parts(&still, &store).is_empty());
        assert_eq!(median_change(&RunRefinement::default(), 2.0), None);
    }
}
