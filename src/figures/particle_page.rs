//! particles.html: what the images of a particle set look like, for the eye: random images, averages of like views, the mean power
//! spectrum with the rings of the CTF, viewing directions, defoci and shifts.

use std::path::Path;

use ndarray::Array2;
use rand::seq::index;
use rustfft::num_complex::Complex;

use super::axis::Axis;
use super::chart::{Chart, Curve};
use super::colours::Colours;
use super::distributions::ParticleCounts;
use super::panels::{GreyScale, PanelRow, Sheet};
use super::particles::value_histogram;
use super::report::{Part, ReportData, write_report};
use crate::error::Result;
use crate::imaging::fourier::{Fft2, frequency, low_passed};
use crate::imaging::pose::Rotation;
use crate::particles::store::{Block, Particle, Reader, Store};
use crate::random::{Purpose, stream};

/// Random images that are shown.
const RANDOM: usize = 6;
/// Views whose particles are averaged, and particles of an average.
const VIEWS: usize = 5;
const AVERAGED: usize = 100;
/// Images of the mean power spectrum.
const SPECTRA: usize = 300;
/// Particles whose poses, defoci and shifts are read, at most; evenly spread where there are more.
const READ: usize = 10_000;
/// The low-pass filter is one half at this many pixels, or at this resolution in angstrom if that is coarser.
const LOW_PASS: (f64, f64) = (4.0, 15.0);

/// Writes the page of the particles in `store` to `path`, under the `name` of their file.
///
/// # Errors
/// When the file cannot be read, or the page cannot be written.
pub fn write(path: &Path, store: &Store, name: &str) -> Result<()> {
    let page = Page::read(store)?;
    let header = store.header();
    let guided = |part: Part, text: &str| Part::Guided(Box::new(part), text.to_owned());
    let mut parts = vec![
        guided(
            page.random()?,
            "The specimen must be brighter than the background in the low-passed images. If it is darker, import with --invert.",
        ),
        guided(
            page.averages()?,
            "Images of nearly the same viewing direction, turned into the same orientation by their poses. Sharp averages with the \
             CTF's signs corrected mean that poses, shifts and CTFs fit the images. If the corrected average is not stronger than \
             the plain one, check the CTF.",
        ),
        guided(
            page.spectra()?,
            "The bright rings of the images must lie on the bright rings of the CTF. If they do not, check defocus, voltage and \
             pixel size.",
        ),
    ];
    parts.extend(page.radial()?);
    parts.push(Part::Svg(page.counts.directions_svg(&Colours::css_variables())));
    let mut charts = vec![page.counts.defocus_chart()];
    charts.extend(page.shift_chart());
    parts.push(Part::Charts(charts));
    let record = store.import_record().iter().filter_map(|line| line.split_once(": "));
    let rows: Vec<_> = record.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if !rows.is_empty() {
        parts.push(Part::Pairs { heading: "What the import did".into(), rows });
    }
    let data = ReportData {
        title: format!("Particles of {name}"),
        headline: vec![
            ("Particles".into(), store.len().to_string()),
            ("Halves".into(), format!("{} + {}", header.halves[0], header.halves[1])),
            ("Box".into(), format!("{} px", header.box_size)),
            ("Pixel size".into(), format!("{:.4} Å", header.pixel_size)),
            ("Limit (Nyquist)".into(), format!("{:.2} Å", 2.0 * header.pixel_size)),
        ],
        parts,
        ..ReportData::default()
    };
    write_report(path, &data)
}

/// What the page shows, read from a particle file.
struct Page {
    reader: Reader,
    rows: usize,
    /// Rows whose metadata were read, and the metadata.
    sampled: Vec<(usize, Particle)>,
    counts: ParticleCounts,
}

impl Page {
    fn read(store: &Store) -> Result<Self> {
        let reader = store.reader();
        let step = store.len().div_ceil(READ);
        let mut counts = ParticleCounts::default();
        let mut sampled = Vec::with_capacity(store.len() / step + 1);
        store.inspect(|row, particle| {
            counts.add(particle);
            if row % step == 0 {
                sampled.push((row, *particle));
            }
            Ok(())
        })?;
        Ok(Self { reader, rows: store.len(), sampled, counts })
    }

    fn box_size(&self) -> usize {
        self.reader.header().box_size
    }

    fn pixel_size(&self) -> f64 {
        self.reader.header().pixel_size
    }

    /// Resolution in pixels at which the low-pass filter is one half.
    fn smoothing(&self) -> f64 {
        LOW_PASS.0.max(LOW_PASS.1 / self.pixel_size())
    }

    fn image(&self, row: usize) -> Result<Vec<f32>> {
        let mut block = Block::default();
        self.reader.read(row..row + 1, &mut block)?;
        Ok(block.images.to_vec())
    }

    fn panel(&self, pixels: Vec<f32>) -> (Array2<f32>, GreyScale) {
        let n = self.box_size();
        let image = Array2::from_shape_vec((n, n), pixels).expect("an image has box x box pixels");
        let scale = GreyScale::for_images(std::iter::once(&image));
        (image, scale)
    }

    fn edge(&self) -> f64 {
        self.box_size() as f64 * self.pixel_size()
    }

    /// Random images, as they are and low-passed.
    fn random(&self) -> Result<Part> {
        let random = &mut stream(0, Purpose::Selection, 0, 1);
        let mut rows = index::sample(random, self.rows, RANDOM.min(self.rows)).into_vec();
        rows.sort_unstable();
        let images = rows.iter().map(|&row| self.image(row)).collect::<Result<Vec<_>>>()?;
        let smooth: Vec<Vec<f32>> =
            images.iter().map(|image| low_passed(image, self.box_size(), self.smoothing())).collect();
        let row = |name: &str, images: Vec<Vec<f32>>| {
            PanelRow::new(name, images.into_iter().map(|image| self.panel(image)).collect())
        };
        let sheet = Sheet {
            columns: rows.iter().map(|row| format!("particle {}", row + 1)).collect(),
            rows: vec![row("as stored", images), row("low-pass", smooth)],
            edge: self.edge(),
            remark: format!(
                "low-pass: Gaussian, 0.5 at {:.1} Å; separate grey scale for each image",
                self.smoothing() * self.pixel_size()
            ),
        };
        picture("Random particles", "Random particle images, as they are stored and low-passed", &sheet)
    }

    /// Averages of the particles of some views, plain and with the CTF's signs corrected.
    fn averages(&self) -> Result<Part> {
        let views = self.views();
        let mut columns = Vec::new();
        let mut rows = ["plain", "CTF signs corrected"].map(|name| PanelRow::new(name, Vec::new()));
        for (centre, members) in &views {
            let [plain, corrected] = self.average(centre, members)?;
            rows[0].panels.push(self.panel(plain));
            rows[1].panels.push(self.panel(corrected));
            columns.push(format!("{} particles", members.len()));
        }
        let widest = views.iter().flat_map(|(centre, members)| {
            members.iter().map(|&place| tilt_between(centre, &self.sampled[place].1.rotation))
        });
        let widest = widest.fold(0.0, f64::max).to_degrees();
        let sheet = Sheet {
            columns,
            rows: rows.to_vec(),
            edge: self.edge(),
            remark: format!(
                "views within {widest:.0} degrees of each other; separate grey scale for each image"
            ),
        };
        let about = "Averages of about 100 particles of nearly the same view";
        picture("Averages of like views", about, &sheet)
    }

    /// The particles nearest to some random ones by viewing direction: the rotation of the centre, and places in `sampled`.
    fn views(&self) -> Vec<(Rotation, Vec<usize>)> {
        let random = &mut stream(0, Purpose::Selection, 0, 2);
        let centres = index::sample(random, self.sampled.len(), VIEWS.min(self.sampled.len()));
        let near = |centre: usize| {
            let rotation = self.sampled[centre].1.rotation;
            let mut all: Vec<(f64, usize)> = self
                .sampled
                .iter()
                .enumerate()
                .map(|(place, (_, particle))| (tilt_between(&rotation, &particle.rotation), place))
                .collect();
            let count = AVERAGED.min(all.len());
            if count < all.len() {
                all.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                all.truncate(count);
            }
            all.sort_unstable_by_key(|&(_, place)| place);
            (rotation, all.into_iter().map(|(_, place)| place).collect())
        };
        centres.into_iter().map(near).collect()
    }

    /// The average of the members, turned like `centre`: plain, and with the signs of their CTFs corrected.
    fn average(&self, centre: &Rotation, members: &[usize]) -> Result<[Vec<f32>; 2]> {
        let n = self.box_size();
        let fft = Fft2::<f32>::new(n);
        let mut scratch = fft.scratch();
        let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
        let mut sums = [vec![0.0f32; n * n], vec![0.0f32; n * n]];
        for &place in members {
            let (row, particle) = &self.sampled[place];
            let mut image = self.image(*row)?;
            let angle = in_plane(centre, &particle.rotation);
            add_turned(&image, n, angle, &mut sums[0]);
            let ctf = self.reader.ctf(particle);
            fft.forward(&image, n, &mut spectrum, &mut scratch);
            for (i, value) in spectrum.iter_mut().enumerate() {
                let at = [(i / n) as f64, frequency(i % n, n) as f64].map(|k| k / self.edge());
                *value *= ctf.at(at[0], at[1]).signum() as f32;
            }
            fft.inverse(&mut spectrum, &mut image, n, &mut scratch);
            add_turned(&image, n, angle, &mut sums[1]);
        }
        Ok(sums.map(|sum| low_passed(&sum, n, 3.0)))
    }

    /// Rows of the particles with a defocus nearest to the median.
    fn near_median_defocus(&self) -> Vec<usize> {
        let defocus = |place: &usize| {
            let ctf = &self.sampled[*place].1.ctf;
            0.5 * (ctf.defocus_u + ctf.defocus_v)
        };
        let mut places: Vec<usize> = (0..self.sampled.len()).collect();
        places.sort_by(|a, b| defocus(a).total_cmp(&defocus(b)));
        let count = SPECTRA.min(places.len());
        let first = (places.len() - count) / 2;
        places[first..first + count].to_vec()
    }

    /// The mean power of the images of nearly the same defocus, and of their CTFs, by frequency: `[ky][kx]` with the origin at the
    /// centre, the image's divided by its mean over each shell.
    fn mean_powers(&self) -> Result<[Vec<f64>; 2]> {
        let n = self.box_size();
        let fft = Fft2::<f32>::new(n);
        let mut scratch = fft.scratch();
        let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
        let mut powers = [vec![0.0f64; n * n], vec![0.0f64; n * n]];
        for place in self.near_median_defocus() {
            let (row, particle) = &self.sampled[place];
            let image = self.image(*row)?;
            let ctf = self.reader.ctf(particle);
            fft.forward(&image, n, &mut spectrum, &mut scratch);
            for (i, value) in spectrum.iter().enumerate() {
                let (kx, ky) = ((i / n) as isize, frequency(i % n, n));
                let power = [
                    f64::from(value.norm_sqr()),
                    ctf.at(kx as f64 / self.edge(), ky as f64 / self.edge()).powi(2),
                ];
                for (sums, power) in powers.iter_mut().zip(power) {
                    sums[place_of(kx, ky, n)] += power;
                    if kx > 0 && 2 * kx < n as isize {
                        sums[place_of(-kx, -ky, n)] += power;
                    }
                }
            }
        }
        let count = SPECTRA.min(self.sampled.len()).max(1) as f64;
        powers.iter_mut().flatten().for_each(|power| *power /= count);
        Ok(powers)
    }

    /// The mean power spectrum beside that of the CTF.
    fn spectra(&self) -> Result<Part> {
        let n = self.box_size();
        let [image, ctf] = self.mean_powers()?;
        let shells = shell_means(&image, n);
        // Divided by a smooth curve through the shells, what is left are the rings.
        let smooth = smoothed(&shells, (n / 16).max(2));
        let flat: Vec<f32> = (0..n * n)
            .map(|i| {
                let shell = shell_of(i, n).min(smooth.len() - 1);
                (image[i] / smooth[shell].max(f64::MIN_POSITIVE)) as f32
            })
            .collect();
        let flat = low_passed(&flat, n, 3.0);
        let ctf = ctf.iter().map(|&power| power as f32).collect();
        let sheet = Sheet {
            columns: vec!["images".into(), "CTF squared".into()],
            rows: vec![PanelRow::new("power", vec![self.panel(flat), self.panel(ctf)])],
            edge: 0.0,
            remark: format!(
                "near the median defocus; edge at {:.2} Å; divided by a smooth curve",
                2.0 * self.pixel_size()
            ),
        };
        picture("Power spectrum and rings of the CTF", "Mean power spectrum of images and CTFs", &sheet)
    }

    /// The mean power by shell, with the squared CTF on the same axes.
    fn radial(&self) -> Result<Option<Part>> {
        let n = self.box_size();
        let [image, ctf] = self.mean_powers()?;
        let [image, ctf] = [shell_means(&image, n), shell_means(&ctf, n)];
        let positive = image.iter().copied().filter(|power| *power > 0.0);
        let (low, high) =
            positive.fold((f64::INFINITY, 0.0f64), |(low, high), power| (low.min(power), high.max(power)));
        if low >= high {
            return Ok(None);
        }
        let at = |shell: usize| shell as f64 / self.edge();
        let curve = |legend: &str, points: Vec<[f64; 2]>, dashed| Curve {
            legend: legend.into(),
            points,
            dashed,
            ..Curve::default()
        };
        // The CTF's curve spans the axis, from zero at its lower end.
        let scaled = |power: f64| low * (high / low).powf(0.5 * power);
        let measured = image.iter().enumerate().skip(1).map(|(shell, &power)| [at(shell), power.max(low)]);
        let rings = ctf.iter().enumerate().skip(1).map(|(shell, &power)| [at(shell), scaled(power)]);
        let axis = |label: &str, low, high, logarithmic| Axis {
            label: label.into(),
            low,
            high,
            logarithmic,
            marks: Vec::new(),
        };
        Ok(Some(Part::Chart(Chart {
            title: "Mean power by frequency".into(),
            x: axis("Spatial frequency (1/Å)", 0.0, at(image.len() - 1), false),
            y: axis("Power", low, 1.1 * high, true),
            resolution_on_top: true,
            curves: vec![
                curve("images", measured.collect(), false),
                curve("squared CTF (any unit)", rings.collect(), true),
            ],
            thresholds: Vec::new(),
        })))
    }

    /// The histogram of the shifts that the import has applied.
    fn shift_chart(&self) -> Option<Chart> {
        let shift = |&(row, _): &(usize, Particle)| {
            let [x, y] = *self.reader.applied_shifts(row..row + 1).ok()??.first()?;
            Some([x, y].map(|shift| f64::from(shift) * self.pixel_size()))
        };
        let shifts: Option<Vec<[f64; 2]>> = self.sampled.iter().map(shift).collect();
        let shifts = shifts?;
        let most = shifts.as_flattened().iter().fold(0.0f64, |most, shift| most.max(shift.abs()));
        let of_axis = |axis: usize| shifts.iter().map(|shift| shift[axis]).collect();
        let range = if most > 0.0 { 1.05 * most } else { 1.0 };
        Some(value_histogram(
            "Shifts that the import applied",
            "Shift (Å)",
            [-range, range],
            &[("x".into(), of_axis(0)), ("y".into(), of_axis(1))],
        ))
    }
}

fn picture(heading: &str, description: &str, sheet: &Sheet) -> Result<Part> {
    let png = sheet.to_png()?;
    Ok(Part::Picture { heading: heading.into(), description: description.into(), png })
}

/// Angle between two viewing directions in radians.
fn tilt_between(a: &Rotation, b: &Rotation) -> f64 {
    (0..3).map(|axis| a[2][axis] * b[2][axis]).sum::<f64>().clamp(-1.0, 1.0).acos()
}

/// Angle in radians by which the image of pose `b` is turned against that of pose `a`, of nearly the same viewing direction.
fn in_plane(a: &Rotation, b: &Rotation) -> f64 {
    // M = W_b W_a^T.
    let m = |i: usize, j: usize| (0..3).map(|axis| b[i][axis] * a[j][axis]).sum::<f64>();
    (m(1, 0) - m(0, 1)).atan2(m(0, 0) + m(1, 1))
}

/// Adds an image to `sum`, turned back by `angle` about pixel floor(n/2), with bilinear interpolation.
fn add_turned(image: &[f32], n: usize, angle: f64, sum: &mut [f32]) {
    let (sin, cos) = angle.sin_cos();
    let centre = (n / 2) as f64;
    for (i, sum) in sum.iter_mut().enumerate() {
        let (x, y) = ((i % n) as f64 - centre, (i / n) as f64 - centre);
        let (x, y) = (cos * x - sin * y + centre, sin * x + cos * y + centre);
        let (left, top) = (x.floor(), y.floor());
        if left < 0.0 || top < 0.0 || left + 1.0 > (n - 1) as f64 || top + 1.0 > (n - 1) as f64 {
            continue;
        }
        let (u, v) = ((x - left) as f32, (y - top) as f32);
        let at = top as usize * n + left as usize;
        let upper = image[at] * (1.0 - u) + image[at + 1] * u;
        let lower = image[at + n] * (1.0 - u) + image[at + n + 1] * u;
        *sum += upper * (1.0 - v) + lower * v;
    }
}

/// Place of a frequency in a plane with its origin at pixel floor(n/2).
fn place_of(kx: isize, ky: isize, n: usize) -> usize {
    let along = |k: isize| (k + (n / 2) as isize).rem_euclid(n as isize) as usize;
    along(ky) * n + along(kx)
}

/// The shell of pixel `i` of a plane with its origin at pixel floor(n/2).
fn shell_of(i: usize, n: usize) -> usize {
    let along = |k: usize| k as f64 - (n / 2) as f64;
    along(i % n).hypot(along(i / n)).round() as usize
}

/// Mean of a plane over each shell up to the Nyquist frequency.
fn shell_means(plane: &[f64], n: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); n / 2 + 1];
    for (i, &value) in plane.iter().enumerate() {
        if let Some((sum, count)) = sums.get_mut(shell_of(i, n)) {
            *sum += value;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(sum, count)| sum / f64::max(count, 1.0)).collect()
}

/// Running geometric mean over `width` shells to either side.
fn smoothed(shells: &[f64], width: usize) -> Vec<f64> {
    let logarithm: Vec<f64> = shells.iter().map(|power| power.max(f64::MIN_POSITIVE).ln()).collect();
    (0..shells.len())
        .map(|shell| {
            let near = &logarithm
                [shell.saturating_sub(width).max(1).min(shell)..(shell + width + 1).min(shells.len())];
            (near.iter().sum::<f64>() / near.len() as f64).exp()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::rotation_from_relion;

    #[test]
    fn images_of_one_view_are_turned_onto_each_other() {
        // A blob at x of the volume, seen along z at two in-plane angles.
        let n = 32;
        let blob = |rotation: &Rotation| -> Vec<f32> {
            let (x, y) = (8.0 * rotation[0][0], 8.0 * rotation[1][0]);
            (0..n * n)
                .map(|i| {
                    let (dx, dy) = ((i % n) as f64 - 16.0 - x, (i / n) as f64 - 16.0 - y);
                    (-(dx * dx + dy * dy) / 8.0).exp() as f32
                })
                .collect()
        };
        let [a, b] = [20.0, 95.0].map(|psi| rotation_from_relion(0.0, 0.0, psi));
        assert!(tilt_between(&a, &b) < 1e-6);
        let (mut one, mut two) = (vec![0.0; n * n], vec![0.0; n * n]);
        add_turned(&blob(&a), n, in_plane(&a, &a), &mut one);
        add_turned(&blob(&b), n, in_plane(&a, &b), &mut two);
        let worst = one.iter().zip(&two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.05, "{worst}");
    }

    #[test]
    fn shells_and_places_have_the_origin_at_the_centre() {
        for n in [16, 17] {
            assert_eq!(shell_of(place_of(0, 0, n), n), 0);
            assert_eq!(shell_of(place_of(3, -4, n), n), 5);
            let plane: Vec<f64> = (0..n * n).map(|i| shell_of(i, n) as f64).collect();
            let means = shell_means(&plane, n);
            assert!(means.iter().enumerate().all(|(shell, mean)| (mean - shell as f64).abs() < 1e-12));
        }
        assert!(smoothed(&[2.0; 9], 3).iter().all(|value| (value - 2.0).abs() < 1e-12));
    }
}
