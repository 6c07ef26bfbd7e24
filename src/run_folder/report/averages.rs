//! Class averages: means of particles of near views beside those of the model.

use ndarray::Array2;
use rustfft::num_complex::Complex;

use super::views::{Pair, Viewer, shells, square};
use crate::error::Result;
use crate::figures::panels::{GreyScale, PanelRow, Sheet};
use crate::figures::report::Part;
use crate::gmm::files::GmmFile;
use crate::imaging::pose::Rotation;
use crate::particles::Subset;
use crate::particles::refinement::Refinement;
use crate::particles::store::Store;

/// Views shown.
const VIEWS: usize = 3;
/// Largest angle between a particle's view and that of its class, in degrees.
const ANGLE: f64 = 10.0;
/// Least angle between two classes, in degrees.
const APART: f64 = 40.0;
/// Particles of a class: the fewest, and the most.
const MEMBERS: (usize, usize) = (15, 100);
/// Pixels rendered for a class.
const PIXELS: usize = 4_000_000;
/// Particles among which classes are looked for, and views tried.
const SEARCHED: usize = 50_000;
const TRIED: usize = 200;
/// Constant of the Wiener filter, over the mean of the summed squared CTF.
const WIENER: f64 = 0.2;

const READ: &str = "The mean of particles whose views lie within 10 degrees, turned to the same angle in the plane and corrected for their \
    CTFs, and the same of the model's projections, in one grey scale. Both should show the same shape. A mean that is blurred where the \
    model is sharp: wrong poses or shifts. Inverted: the contrast. Rings around the specimen: wrong defoci. Density in the mean that the \
    model lacks: neighbours, or a model that is too small.";

/// Class averages of the first model; `None` where too few particles share a view.
pub(super) fn averages(
    (name, file): &(&str, GmmFile),
    store: &Store,
    refined: &[Refinement],
) -> Result<Option<Part>> {
    let header = store.header();
    let n = header.box_size;
    let rows = store.rows(Subset::from_name(name).unwrap_or(Subset::All));
    let first = rows.start;
    let rotations: Vec<Rotation> = (store.reader().particles(first..rows.end.min(first + SEARCHED))?.iter())
        .enumerate()
        .map(|(i, particle)| refined.get(first + i).copied().unwrap_or_default().of(particle).rotation)
        .collect();
    let most = (PIXELS / (n * n)).clamp(MEMBERS.0, MEMBERS.1);
    let mut viewer = Viewer::new(file, store, refined);
    let mut sheet_rows = Vec::new();
    for class in classes(&rotations, most) {
        let mut sums = ClassSums::new(n);
        for &member in &class {
            let pair = viewer.pair(first + member)?;
            sums.add(&mut viewer, &pair, &rotations[member], &rotations[class[0]], header.pixel_size);
        }
        let [observed, expected] = sums.finish(&mut viewer).map(|image| square(image, n));
        let scale = GreyScale::for_images([&observed, &expected].into_iter());
        let label = format!("view {}: {} particles", sheet_rows.len() + 1, class.len());
        sheet_rows.push(PanelRow::new(label, vec![(observed, scale), (expected, scale)]));
    }
    if sheet_rows.is_empty() {
        return Ok(None);
    }
    let sheet = Sheet {
        columns: ["mean of particles", "mean of the model"].map(str::to_owned).to_vec(),
        rows: sheet_rows,
        edge: n as f64 * header.pixel_size,
        remark: format!("{name}; one grey scale per row"),
    };
    let picture = Part::Picture {
        heading: "Class averages".into(),
        description: "Means of particles of near views, beside those of the model's projections".into(),
        png: sheet.to_png()?,
    };
    Ok(Some(picture.with_guide(READ)))
}

/// Cosine of the angle between the views of two particles.
fn cosine(a: &Rotation, b: &Rotation) -> f64 {
    a[2].iter().zip(&b[2]).map(|(a, b)| a * b).sum()
}

/// Classes of particles with near views, those of most particles first; the first member is the one that the others are near to. Each
/// has at most `most` members.
fn classes(rotations: &[Rotation], most: usize) -> Vec<Vec<usize>> {
    let (near, apart) = (ANGLE.to_radians().cos(), APART.to_radians().cos());
    let tried = TRIED.min(rotations.len());
    let mut seeds: Vec<(usize, usize)> = (0..tried)
        .map(|k| k * rotations.len() / tried)
        .map(|seed| (rotations.iter().filter(|r| cosine(r, &rotations[seed]) >= near).count(), seed))
        .collect();
    seeds.sort_by_key(|&(count, seed)| (std::cmp::Reverse(count), seed));
    let mut chosen: Vec<usize> = Vec::new();
    for (count, seed) in seeds {
        let free = chosen.iter().all(|&other| cosine(&rotations[other], &rotations[seed]).abs() < apart);
        if free && count >= MEMBERS.0 && chosen.len() < VIEWS {
            chosen.push(seed);
        }
    }
    let members = |seed: usize| {
        let mut members: Vec<(f64, usize)> = rotations
            .iter()
            .enumerate()
            .map(|(i, rotation)| (cosine(rotation, &rotations[seed]), i))
            .filter(|&(cosine, i)| cosine >= near && i != seed)
            .collect();
        members.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        std::iter::once(seed).chain(members.into_iter().map(|(_, i)| i)).take(most).collect()
    };
    chosen.into_iter().map(members).collect()
}

/// Sums of aligned images times their CTFs, observed and expected, and of squared CTFs.
struct ClassSums {
    box_size: usize,
    shells: Vec<(usize, f64)>,
    images: [Array2<f32>; 2],
    squares: Vec<f64>,
    counts: Vec<f64>,
}

impl ClassSums {
    fn new(box_size: usize) -> Self {
        let shells = shells(box_size);
        let mut counts = vec![0.0; box_size];
        shells.iter().for_each(|&(shell, count)| counts[shell] += count);
        let images = [(); 2].map(|()| Array2::zeros((box_size, box_size)));
        Self { box_size, shells, images, squares: vec![0.0; box_size], counts }
    }

    /// Adds a particle with the pose `rotation`, turned in the plane to that of `reference`.
    fn add(
        &mut self,
        viewer: &mut Viewer,
        pair: &Pair,
        rotation: &Rotation,
        reference: &Rotation,
        pixel_size: f64,
    ) {
        let n = self.box_size;
        let mut ctf = vec![0.0; self.shells.len()];
        pair.view.ctf.half_plane(n, pixel_size, &mut ctf);
        for (&h, &(shell, count)) in ctf.iter().zip(&self.shells) {
            self.squares[shell] += count * f64::from(h * h) / self.counts[shell];
        }
        // The turn about z in r_view = M r_reference, M = W W_reference^T.
        let m = |i: usize, j: usize| -> f64 { (0..3).map(|k| rotation[i][k] * reference[j][k]).sum() };
        let turn = (m(1, 0) - m(0, 1)).atan2(m(0, 0) + m(1, 1));
        let [observed, expected] = [&pair.observed, &pair.expected].map(|image| {
            let mut spectrum: Vec<Complex<f32>> = viewer.spectrum(image);
            if !pair.premultiplied {
                spectrum.iter_mut().zip(&ctf).for_each(|(value, h)| *value *= h);
            }
            square(viewer.image(spectrum), n)
        });
        let offsets = [pair.view.offset, [0.0; 2]];
        for ((sum, image), offset) in self.images.iter_mut().zip([observed, expected]).zip(offsets) {
            *sum += &turned(&image, turn, offset);
        }
    }

    /// The two averages, corrected for the CTF by a Wiener filter.
    fn finish(self, viewer: &mut Viewer) -> [Vec<f32>; 2] {
        let within = self.box_size / 2;
        let constant = WIENER * self.squares[..within].iter().sum::<f64>() / within as f64;
        self.images.map(|sum| {
            let mut spectrum = viewer.spectrum(sum.as_slice().expect("a new array is contiguous"));
            for (value, &(shell, _)) in spectrum.iter_mut().zip(&self.shells) {
                let filter = if shell < within { 1.0 / (self.squares[shell] + constant) } else { 0.0 };
                *value *= filter as f32;
            }
            viewer.image(spectrum)
        })
    }
}

/// The image whose pixel r is `image` at R r + `offset`, with R the rotation by `angle`, from x to y, about pixel floor(D/2): bilinear,
/// 0 outside.
fn turned(image: &Array2<f32>, angle: f64, [dx, dy]: [f64; 2]) -> Array2<f32> {
    let (n, middle) = (image.dim().0, (image.dim().0 / 2) as f64);
    let (sin, cos) = angle.sin_cos();
    let at = |y: isize, x: isize| -> f64 {
        let inside = (0..n as isize).contains(&y) && (0..n as isize).contains(&x);
        if inside { f64::from(image[[y as usize, x as usize]]) } else { 0.0 }
    };
    Array2::from_shape_fn((n, n), |(y, x)| {
        let (x, y) = (x as f64 - middle, y as f64 - middle);
        let (x, y) = (cos * x - sin * y + middle + dx, sin * x + cos * y + middle + dy);
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let (left, top) = (left as isize, top as isize);
        let upper = (1.0 - fx) * at(top, left) + fx * at(top, left + 1);
        let lower = (1.0 - fx) * at(top + 1, left) + fx * at(top + 1, left + 1);
        ((1.0 - fy) * upper + fy * lower) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::rotation_from_relion;

    #[test]
    fn images_turn_about_the_middle_and_follow_their_offset() {
        let mut image = Array2::zeros((9, 9));
        image[[4, 6]] = 1.0;
        // Pixel (x, y) = (0, -2) reads (2, 0) after a quarter turn.
        let quarter = turned(&image, 0.5 * std::f64::consts::PI, [0.0; 2]);
        assert!((quarter[[2, 4]] - 1.0).abs() < 1e-6, "{quarter}");
        let moved = turned(&image, 0.0, [1.0, -1.0]);
        assert_eq!(moved[[5, 5]], 1.0);
    }

    #[test]
    fn classes_hold_near_views_of_any_turn_in_the_plane() {
        let mut rotations: Vec<Rotation> = (0..30)
            .map(|i| rotation_from_relion(10.0, 60.0 + 0.2 * f64::from(i), 11.0 * f64::from(i)))
            .collect();
        rotations.extend((0..20).map(|i| rotation_from_relion(190.0, 30.0, 17.0 * f64::from(i))));
        rotations.push(rotation_from_relion(90.0, 90.0, 0.0));
        let found = classes(&rotations, 25);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [25, 20], "{found:?}");
        assert!(found[0].iter().all(|&i| i < 30) && found[1].iter().all(|&i| (30..50).contains(&i)));
        assert!(classes(&rotations[..10], 25).is_empty());
    }
}
