//! The spectrum of a model on a fine Fourier grid, which images are compared with at any pose, and the result of the comparison
//! (docs/method.md, section 15).

/// Grid points per cycle per box.
pub const REFERENCE_PADDING: usize = 2;
/// Points of the grid beyond the highest frequency on each side, for the taps of the spline.
pub const REFERENCE_MARGIN: usize = 3;

/// Coefficients of a cubic B-spline whose values are the Fourier transform of a density about its origin, in the scale of an unnormalised
/// transform of its projections. The spectrum is Hermitian: only points with x >= -[`REFERENCE_MARGIN`] are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Images are compared at the frequencies k, in cycles per box, with 0 < |k| < `limit`. At most half the box size.
    pub limit: usize,
    /// The limit of searches, at most `limit`.
    pub search_limit: usize,
    /// `[z][y][x]`: x from -[`REFERENCE_MARGIN`] to `reach`, y and z from -`reach` to `reach`, in points of which
    /// [`REFERENCE_PADDING`] are one cycle per box. Real and imaginary part in turn.
    pub values: Vec<f32>,
}

impl Reference {
    /// The largest coordinate of a grid for frequencies below `limit`, in points.
    pub fn reach_for(limit: usize) -> usize {
        REFERENCE_PADDING * limit + REFERENCE_MARGIN
    }

    /// The largest coordinate, in points.
    pub fn reach(&self) -> usize {
        Self::reach_for(self.limit)
    }

    /// Points along x.
    pub fn width(&self) -> usize {
        self.reach() + REFERENCE_MARGIN + 1
    }

    /// Points along y, and along z.
    pub fn side(&self) -> usize {
        2 * self.reach() + 1
    }
}

/// One frequency (kx, ky) of each Friedel pair with 0 < |k| < `limit`, in cycles per box: by kx from 0, then ky.
pub(super) fn frequencies_below(limit: usize) -> Vec<[i32; 2]> {
    let limit = limit as i32;
    let of_line = |kx: i32| (if kx == 0 { 1 } else { 1 - limit }..limit).map(move |ky| [kx, ky]);
    (0..limit).flat_map(of_line).filter(|[x, y]| x * x + y * y < limit * limit).collect()
}

/// Numbers that an image is fitted by, in this order: rotation vector eta in volume coordinates in radians (the pose becomes
/// `W exp([eta]x)`), offset (x, y) in pixels, defocus in [`DEFOCUS_UNIT`] angstrom, contrast.
pub const PARAMETERS: usize = 7;
/// Index of the first offset.
pub const OFFSET: usize = 3;
/// Index of the defocus.
pub const DEFOCUS: usize = 5;
/// Index of the contrast.
pub const CONTRAST: usize = 6;
/// Unit of the defocus in angstrom.
pub const DEFOCUS_UNIT: f64 = 1000.0;
/// Entries of a symmetric matrix of [`PARAMETERS`] rows.
pub const ENTRIES: usize = PARAMETERS * (PARAMETERS + 1) / 2;

/// How the model fits an image at its view and contrast, X = a H S, with the derivatives of X with respect to [`PARAMETERS`]
/// ([`Device::fit`](crate::render::Device::fit)). S is the slice of the [`Reference`]. Sums over the frequencies of the reference, with
/// the noise weights w of the image's group, in the unit of [`energy`](crate::render::energy). For images that were multiplied by
/// their CTF, derivatives with respect to the defocus are 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageFit {
    /// <X, X>_w.
    pub power: f64,
    /// <X, Y>_w.
    pub overlap: f64,
    /// <dX/dp, Y - X>_w for each parameter p.
    pub gradient: [f64; PARAMETERS],
    /// <dX/dp, dX/dq>_w for q <= p: row by row of the lower triangle.
    pub curvature: [f64; ENTRIES],
}

/// Offsets that a search tries: a square grid about that of the view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OffsetGrid {
    /// Distance of two offsets in pixels.
    pub step: f64,
    /// Steps from the centre to the edge.
    pub radius: usize,
}

/// The best candidate of a search ([`Device::search`](crate::render::Device::search)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Index of the rotation.
    pub rotation: usize,
    /// Steps of the offset along x and y.
    pub offset: [i32; 2],
    /// Gain of the candidate over all others' 0: <X, Y>_w - <X, X>_w / 2 - its penalty.
    pub gain: f64,
}

impl ImageFit {
    /// Index in [`ImageFit::curvature`] of the entry of two parameters.
    pub fn entry(p: usize, q: usize) -> usize {
        let (row, column) = (p.max(q), p.min(q));
        row * (row + 1) / 2 + column
    }
}
