//! Cross-validation of two half maps by the particles of the other half, without a ground truth.
//!
//! Half maps G1 and G2 of a model share the true signal and any bias of the model. The voxel maps V1 and V2 of the same halves are
//! linear in the images, so the noise of one is independent of any map made from the other half. With T the ground truth, the
//! expected correlations in a shell are
//!
//! > FSC(G1, V2) = FSC(G1, T) FSC(V2, T) and FSC(V1, V2) = FSC(V1, T) FSC(V2, T),
//!
//! and the same with the halves exchanged, so that
//!
//! > FSC_cv = FSC(G1, V2) FSC(G2, V1) / FSC(V1, V2) = FSC(G1, T) FSC(G2, T).
//!
//! FSC(G1, G2) equals FSC_cv if the errors of G1 and G2 are independent, and exceeds it if they are correlated. Up to the weights in a
//! shell, the product of G1 and V2 is that of the CTF-filtered projections of G1 and the particles of half 2 (compare the free FSC
//! of Falkner and Schröder, PNAS 110 (2013) 8930), expressed as a half-map FSC.

use serde_json::{Value, json};

use crate::error::Result;
use crate::evaluate::fsc::{Crossing, Fsc, GOLD_STANDARD};
use crate::evaluate::mask::Mask;
use crate::evaluate::shells;
use crate::imaging::mrc::Volume;

/// Smallest FSC of the voxel maps to divide by...
const MIN_VOXEL_FSC: f64 = 0.05;
/// ...and in standard errors.
const MIN_VOXEL_ERRORS: f64 = 4.0;
/// The curve ends before this many unusable shells in a row; a shorter gap takes the value of the next usable shell.
const GAP: usize = 3;
/// Shells over which an excess is averaged.
const WINDOW: usize = 3;
/// Smallest excess of the half maps' FSC for a warning...
const EXCESS: f64 = 0.1;
/// ...and in standard errors.
const EXCESS_ERRORS: f64 = 4.0;

/// The half maps may claim this many shells more than is confirmed: single shells scatter.
const SLACK: f64 = 2.0;
/// Smallest excess of the half maps' FSC in these shells to call them unconfirmed, in standard errors.
const UNCONFIRMED_ERRORS: f64 = 2.0;

/// Label of the curve.
pub const LABEL: &str = "cross-validated";

/// The cross-validated FSC of two half maps.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossValidation {
    /// FSC_cv up to the last shell in which the voxel maps correlate: it may have fewer shells than the box.
    pub curve: Fsc,
    /// Standard error of each shell.
    pub errors: Vec<f64>,
    /// FSC of the half maps under the same mask.
    pub half_maps: Fsc,
}

/// A range of shells in which the half maps' FSC exceeds FSC_cv.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Excess {
    /// Resolution at the middle of the range, in angstrom.
    pub resolution: f64,
    /// Mean FSC of the half maps.
    pub half_maps: f64,
    /// Mean FSC_cv.
    pub cross_validated: f64,
}

impl CrossValidation {
    /// Cross-validates the half maps of a model, whose FSC is `agreement`, with the voxel half maps `voxels`, all under `mask` if
    /// given.
    ///
    /// # Errors
    /// As [`Fsc::between_masked`].
    pub fn compute(
        half_maps: [&Volume; 2],
        voxels: [&Volume; 2],
        mask: Option<&Mask>,
        agreement: Fsc,
    ) -> Result<Self> {
        let fsc = |first, second| match mask {
            Some(mask) => Fsc::between_masked(first, second, mask),
            None => Fsc::between(first, second),
        };
        let [g1, g2] = half_maps;
        let [v1, v2] = voxels;
        let (crossed, voxels) = ([fsc(g1, v2)?, fsc(g2, v1)?], fsc(v1, v2)?);
        // Under a mask, only a fraction of the values of a shell is independent.
        let independent = mask.map_or(1.0, independent_fraction);
        let sizes = shells::sizes(voxels.box_size);
        let error = |fsc: f64, shell: usize| (1.0 - fsc * fsc) / (independent * sizes[shell]).max(1.0).sqrt();
        let usable = |shell: &usize| {
            let below = voxels.shells[*shell];
            below >= MIN_VOXEL_FSC.max(MIN_VOXEL_ERRORS * error(below, *shell))
        };
        let (mut curve, mut errors) = (vec![1.0], vec![0.0]);
        let mut shell = 1;
        while let Some(next) = (shell..voxels.shells.len().min(shell + GAP)).find(usable) {
            let below = voxels.shells[next];
            let [a, b] = [0, 1].map(|i| crossed[i].shells[next]);
            let [of_a, of_b] = [a, b].map(|fsc| error(fsc, next));
            let value = a * b / below;
            let of_value = ((of_a * b).hypot(of_b * a) / below).hypot(value * error(below, next) / below);
            curve.resize(next + 1, value);
            errors.resize(next + 1, of_value);
            shell = next + 1;
        }
        Ok(Self { curve: Fsc { shells: curve, ..voxels }, errors, half_maps: agreement })
    }

    /// Resolution of the last shell of the curve in angstrom; `None` if the voxel maps correlate in no shell.
    pub fn resolution_limit(&self) -> Option<f64> {
        let last = self.curve.last_shell();
        (last > 0).then(|| 1.0 / self.curve.frequency(last as f64))
    }

    /// The largest significant excess of the half maps' FSC over FSC_cv.
    pub fn excess(&self) -> Option<Excess> {
        let last = self.curve.last_shell();
        let width = WINDOW.min(last);
        if width == 0 {
            return None;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let excess = |from: usize| {
            let shells = from..from + width;
            let (claimed, cross_validated) =
                (mean(&self.half_maps.shells[shells.clone()]), mean(&self.curve.shells[shells.clone()]));
            let error = self.errors[shells].iter().map(|e| e * e).sum::<f64>().sqrt() / width as f64;
            let middle = from as f64 + (width - 1) as f64 / 2.0;
            let far = claimed - cross_validated > EXCESS.max(EXCESS_ERRORS * error);
            let resolution = 1.0 / self.curve.frequency(middle);
            far.then_some(Excess { resolution, half_maps: claimed, cross_validated })
        };
        let all = (1..=last + 1 - width).filter_map(excess);
        all.max_by(|a, b| (a.half_maps - a.cross_validated).total_cmp(&(b.half_maps - b.cross_validated)))
    }

    /// The (fractional) shell up to which the particles confirm the half maps: where the curve falls below 0.143, or its last shell.
    pub(crate) fn confirmed_shell(&self) -> f64 {
        self.curve.shell_of(self.curve.crossing(GOLD_STANDARD))
    }

    /// Whether half maps whose FSC falls below 0.143 at the (fractional) shell `claimed` claim more than is confirmed.
    pub(crate) fn is_unconfirmed(&self, claimed: f64) -> bool {
        let (confirmed, last) = (self.confirmed_shell(), self.curve.last_shell());
        if claimed <= confirmed + SLACK {
            return false;
        }
        // Beyond the last shell there is no evidence; before it, the difference must exceed its error.
        let shells = confirmed.ceil() as usize..(claimed as usize + 1).min(last + 1);
        let beyond = claimed > last as f64 + SLACK;
        let (mut excess, mut variance) = (0.0, 0.0);
        for shell in shells {
            excess += self.half_maps.shells.get(shell).copied().unwrap_or(0.0) - self.curve.shells[shell];
            variance += self.errors[shell].powi(2);
        }
        beyond || excess > UNCONFIRMED_ERRORS * variance.sqrt()
    }

    /// The result in one sentence. It names what was tested.
    pub fn verdict(&self) -> String {
        let Some(known_to) = self.resolution_limit() else {
            return "the half maps cannot be cross-validated: the voxel maps of these particles do not correlate in any shell".to_owned();
        };
        let claims = self.half_maps.crossing(GOLD_STANDARD);
        let confirms = match self.curve.crossing(GOLD_STANDARD) {
            Crossing::NeverBelow(_) => format!("at least to {known_to:.2} A, the limit of the voxel maps"),
            crossing => crossing.to_string(),
        };
        let figures = format!("FSC {GOLD_STANDARD}: half maps {claims}, cross-validated {confirms}");
        if let Some(Excess { resolution, half_maps, cross_validated }) = self.excess() {
            return format!(
                "the half maps share a bias that the particles do not support: at {resolution:.2} A (mean of {WINDOW} shells) their \
                 FSC is {half_maps:.2}, and {cross_validated:.2} cross-validated ({figures}); quote the cross-validated curve"
            );
        }
        if self.is_unconfirmed(self.half_maps.shell_of(claims)) {
            return format!(
                "the half maps are unconfirmed beyond {:.2} A ({figures})",
                1.0 / self.curve.frequency(self.confirmed_shell().max(1.0))
            );
        }
        format!(
            "cross-validation finds no bias shared by the half maps ({figures}); it tests the model, not poses, CTF, pixel size or \
             symmetry"
        )
    }

    /// The result as JSON. `confirms` is null if there is no result.
    pub fn to_json(&self) -> Value {
        let excess = self.excess();
        let claimed = self.half_maps.shell_of(self.half_maps.crossing(GOLD_STANDARD));
        let confirms = excess.is_none() && !self.is_unconfirmed(claimed);
        json!({
            "verdict": self.verdict(),
            "known_to": self.resolution_limit(),
            "confirms": self.resolution_limit().map(|_| confirms),
            "excess": excess,
        })
    }
}

/// Fraction of Fourier values that are independent under a mask with weights w: (sum of w^2)^2 / (N sum of w^4).
fn independent_fraction(mask: &Mask) -> f64 {
    let (mut squares, mut fourths) = (0.0, 0.0);
    for weight in mask.weights() {
        squares += weight.powi(2);
        fourths += weight.powi(4);
    }
    if fourths > 0.0 { squares * squares / (mask.weights().len() as f64 * fourths) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use rand_distr::{Distribution, StandardNormal};

    use crate::random::{Purpose, stream};

    const BOX: usize = 32;

    /// White noise of the given standard deviation.
    fn noise(seed: u64, deviation: f32) -> Array3<f32> {
        let mut random = stream(seed, Purpose::Start, 0, 0);
        Array3::from_shape_simple_fn((BOX, BOX, BOX), || {
            let value: f32 = StandardNormal.sample(&mut random);
            deviation * value
        })
    }

    fn volume(data: Array3<f32>) -> Volume {
        Volume::new(data, 2.0)
    }

    /// Half maps with a common bias and independent noise, voxel maps with independent noise, and the ground truth.
    fn case(bias: f32, noise_of_voxels: f32) -> ([Volume; 2], [Volume; 2], Volume) {
        let truth = noise(1, 1.0);
        let shared = &truth + noise(2, bias);
        let models = [3, 4].map(|seed| volume(&shared + noise(seed, 0.3)));
        let voxels = [5, 6].map(|seed| volume(&truth + noise(seed, noise_of_voxels)));
        (models, voxels, volume(truth))
    }

    fn validate([g1, g2]: &[Volume; 2], [v1, v2]: &[Volume; 2], mask: Option<&Mask>) -> CrossValidation {
        let agreement = match mask {
            Some(mask) => Fsc::between_masked(g1, g2, mask),
            None => Fsc::between(g1, g2),
        };
        CrossValidation::compute([g1, g2], [v1, v2], mask, agreement.unwrap()).unwrap()
    }

    #[test]
    fn curve_equals_product_of_fsc_against_truth() {
        let sphere = Mask::sphere(BOX, 12.0, 3.0).unwrap();
        for (bias, mask) in [(0.0, None), (0.0, Some(&sphere)), (0.7, None), (0.7, Some(&sphere))] {
            let (models, voxels, truth) = case(bias, 0.6);
            let found = validate(&models, &voxels, mask);
            let against = |map| match mask {
                Some(mask) => Fsc::between_masked(map, &truth, mask).unwrap(),
                None => Fsc::between(map, &truth).unwrap(),
            };
            let [first, second] = [against(&models[0]), against(&models[1])];
            let (mut off, mut outside) = (0.0, 0);
            for shell in 3..found.curve.shells.len() {
                let difference = found.curve.shells[shell] - first.shells[shell] * second.shells[shell];
                off += difference;
                outside += usize::from(difference.abs() > 2.5 * found.errors[shell]);
            }
            assert_eq!(found.curve.shells.len(), BOX / 2);
            let mean = off / (BOX / 2 - 3) as f64;
            assert!(mean.abs() < 0.02, "bias {bias}: off by {mean} in the mean");
            assert!(outside <= 1, "bias {bias}: {outside} shells lie outside of the errors");
        }
    }

    #[test]
    fn common_bias_is_found_and_noise_is_not() {
        let (models, voxels, _) = case(0.7, 0.8);
        let found = validate(&models, &voxels, None);
        let excess = found.excess().unwrap();
        // FSC of the half maps 1.49 / 1.58, with the truth its square root squared 1 / 1.58.
        assert!(
            (excess.half_maps - 0.94).abs() < 0.04 && (excess.cross_validated - 0.63).abs() < 0.15,
            "{excess:?}"
        );
        assert!(found.verdict().contains("share a bias that the particles do not support"));
        for noise_of_voxels in [0.3, 0.8, 1.5] {
            let (models, voxels, _) = case(0.0, noise_of_voxels);
            let found = validate(&models, &voxels, None);
            assert_eq!(found.excess(), None, "{noise_of_voxels}");
            assert!(found.verdict().contains("finds no bias"), "{}", found.verdict());
        }
    }

    #[test]
    fn curve_ends_where_voxel_maps_do_not_correlate() {
        let (models, mut voxels, _) = case(0.7, 0.8);
        voxels.iter_mut().zip([7, 8]).for_each(|(map, seed)| map.data = noise(seed, 1.0));
        let found = validate(&models, &voxels, None);
        assert!(found.curve.last_shell() < 3, "{:?}", found.curve.shells);
        if found.curve.last_shell() == 0 {
            assert_eq!((found.resolution_limit(), found.excess()), (None, None));
            assert!(found.verdict().contains("cannot be cross-validated"));
        }
        let empty = [(); 2].map(|()| volume(Array3::zeros((BOX, BOX, BOX))));
        let found = validate(&models, &empty, None);
        assert_eq!((found.curve.shells.len(), found.resolution_limit(), found.excess()), (1, None, None));
        assert_eq!(found.curve.mean(), 0.0);
        // Empty half maps have no excess.
        let found = validate(&empty, &case(0.0, 0.5).1, None);
        assert_eq!(found.excess(), None);
        assert!(found.curve.shells[1..].iter().all(|&value| value == 0.0));
    }
}
