//! Structures that the host shares with the kernels: records in device memory, and the arguments of each kernel.
//!
//! kernels/interface.cuh declares the same structures, with the shapes of all arrays. Sizes are asserted on both sides when they
//! compile; the test below compares names, offsets and sizes of all fields.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

use crate::imaging::ctf::Coefficients;
use crate::render::reference::DEFOCUS_UNIT;
use crate::render::{Observation, RateFactors, Step};

/// A device address, as kernels and cuFFT take it.
pub(super) type Address = u64;

/// Bytes of a `Splat`, which only kernels use.
pub(super) const SPLAT_BYTES: usize = 48;

/// Declares structures in C's layout, each with its size in bytes, and lists their fields for the test.
macro_rules! shared {
    ($list:ident: $($(#[$meta:meta])* struct $name:ident($bytes:literal) { $($field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            // Pod proves that there is no padding, whose bytes would be undefined on the device.
            #[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
            pub(super) struct $name {
                $(pub $field: $type,)+
            }
            const _: () = assert!(size_of::<$name>() == $bytes);
            // SAFETY: numbers and device addresses, in the layout that kernels/interface.cuh declares.
            unsafe impl DeviceRepr for $name {}
        )+

        #[cfg(test)]
        const $list: &[tests::Layout] = &[$(tests::Layout {
            name: stringify!($name),
            bytes: $bytes,
            fields: &[$((stringify!($field), std::mem::offset_of!($name, $field), size_of::<$type>()),)+],
        },)+];
    };
}

shared! { RECORDS:
    /// One image of a pass.
    struct ImageRecord(256) {
        view: [f64; 9],
        offset: [f64; 2],
        phase: f64,
        xx: f64,
        xy: f64,
        yy: f64,
        quartic: f64,
        x3y: f64,
        x2y2: f64,
        xy3: f64,
        y4: f64,
        b_factor: f64,
        b_xy: f64,
        b_yy: f64,
        scale: f64,
        limit2: f64,
        slope: [f64; 3],
        energy: f64,
        place: i64,
        contrast: f32,
        weight: f32,
        noise_group: u32,
        premultiplied: u32,
    }
    /// A pass over some images, and the numbers of its step.
    struct PassRecord(64) {
        images: u32,
        first: u32,
        last: u32,
        outcome: u32,
        rate: f32,
        beta1: f32,
        beta2: f32,
        fresh1: f32,
        fresh2: f32,
        epsilon: f32,
        scale: f32,
        factors: [f32; 4],
        reserved: u32,
    }
    /// Header of the ring of passes.
    struct RingRecord(16) {
        next: u32,
        current: u32,
        pitch: u32,
        reserved: u32,
    }
    /// Outcome of a step.
    struct OutcomeRecord(16) {
        norm: f64,
        loss: f32,
        applied: u32,
    }
    /// The best offset of an image at a rotation.
    struct FoundRecord(16) {
        gain: f64,
        x: i32,
        y: i32,
    }
}

shared! { ARGUMENTS:
    struct ActivateArguments(24) {
        parameters: Address,
        activated: Address,
        count: i32,
        padded: i32,
    }
    struct ProjectArguments(64) {
        ring: Address,
        activated: Address,
        operators: Address,
        views: Address,
        splats: Address,
        whitening: Address,
        bits: Address,
        count: i32,
        padded: i32,
    }
    struct DrawArguments(56) {
        ring: Address,
        splats: Address,
        bits: Address,
        projections: Address,
        slices: Address,
        tickets: Address,
        splats_per_image: i32,
        reserved: i32,
    }
    struct PrepareArguments(24) {
        ring: Address,
        spectra: Address,
        targets: Address,
    }
    struct StoreHalfArguments(24) {
        targets: Address,
        resident: Address,
        length: u64,
    }
    struct ResidualArguments(80) {
        ring: Address,
        spectra: Address,
        transfer: Address,
        weights: Address,
        noise: Address,
        resident: Address,
        staged: Address,
        partial_losses: Address,
        comparisons: Address,
        frequency_step: f64,
    }
    struct FitArguments(72) {
        ring: Address,
        reference: Address,
        places: Address,
        noise: Address,
        resident: Address,
        staged: Address,
        sums: Address,
        frequency_step: f64,
        limit: i32,
        frequencies: i32,
    }
    struct SearchArguments(120) {
        ring: Address,
        reference: Address,
        places: Address,
        lines: Address,
        noise: Address,
        resident: Address,
        staged: Address,
        images: Address,
        rotations: Address,
        phases: Address,
        found: Address,
        frequency_step: f64,
        offset_penalty: f64,
        limit: i32,
        frequencies: i32,
        radius: i32,
        reference_limit: i32,
    }
    struct MomentsArguments(40) {
        ring: Address,
        splats: Address,
        gradient: Address,
        moments: Address,
        splats_per_image: i32,
        reserved: i32,
    }
    struct ChainArguments(88) {
        ring: Address,
        activated: Address,
        views: Address,
        whitening: Address,
        moments: Address,
        parameters: Address,
        sums: Address,
        partial_losses: Address,
        loss: Address,
        gradient: Address,
        count: i32,
        padded: i32,
    }
    struct OutcomeArguments(56) {
        ring: Address,
        gradient: Address,
        partial_norms: Address,
        ticket: Address,
        outcomes: Address,
        stopped: Address,
        length: u64,
    }
    struct AdamArguments(64) {
        ring: Address,
        gradient: Address,
        parameters: Address,
        first: Address,
        second: Address,
        activated: Address,
        stopped: Address,
        count: i32,
        padded: i32,
    }
    struct ChecksumArguments(24) {
        values: Address,
        sum: Address,
        length: u64,
    }
}

impl ImageRecord {
    /// An image of a pass; `place` as in the kernels' record.
    pub fn new(image: &Observation, place: i64) -> Self {
        let Coefficients { gamma, envelope, scale, limit, premultiplied, slope } =
            image.view.ctf.coefficients();
        let [phase, xx, xy, yy, quartic, x3y, x2y2, xy3, y4] = gamma.0;
        let [b_factor, b_xy, b_yy] = envelope;
        Self {
            view: bytemuck::cast(image.view.rotation),
            offset: image.view.offset,
            phase,
            xx,
            xy,
            yy,
            quartic,
            x3y,
            // Differences to an isotropic quartic term and an isotropic B, exactly 0 without aberrations.
            x2y2: x2y2 - 2.0 * quartic,
            xy3,
            y4: y4 - quartic,
            b_factor,
            b_xy,
            b_yy: b_yy - b_factor,
            scale,
            limit2: limit * limit,
            slope: slope.map(|v| v * DEFOCUS_UNIT),
            energy: image.energy,
            place,
            contrast: image.contrast as f32,
            weight: image.weight as f32,
            noise_group: image.noise_group as u32,
            premultiplied: u32::from(premultiplied),
        }
    }
}

impl PassRecord {
    /// A pass of a step whose outcome goes to place `outcome`; its images are to be filled in.
    pub fn of_step(step: &Step, outcome: u32) -> Self {
        let adam = &step.adam;
        // rate m/c1 / (sqrt(v/c2) + eps) = rate sqrt(c2)/c1 m / (sqrt(v) + eps sqrt(c2))
        let root = adam.correction2.sqrt();
        let RateFactors { mean, scale, quaternion, amplitude } = adam.factors;
        Self {
            outcome,
            rate: (adam.rate * root / adam.correction1) as f32,
            beta1: adam.beta1 as f32,
            beta2: adam.beta2 as f32,
            // From f64: for beta2 = 0.999 the difference in f32 loses four digits.
            fresh1: (1.0 - adam.beta1) as f32,
            fresh2: (1.0 - adam.beta2) as f32,
            epsilon: (adam.epsilon * root) as f32,
            scale: (1.0 / step.images as f64) as f32,
            factors: [mean, scale, quaternion, amplitude].map(|factor| factor as f32),
            ..Self::default()
        }
    }
}

/// Bytes of a pass of up to `images` images.
pub(super) const fn pass_bytes(images: usize) -> usize {
    size_of::<PassRecord>() + images * size_of::<ImageRecord>()
}

/// Writes a pass and its images to the start of `to`.
///
/// # Panics
/// If `to` is too short.
pub(super) fn write_pass(pass: &PassRecord, images: &[ImageRecord], to: &mut [u8]) {
    let (head, tail) = to[..pass_bytes(images.len())].split_at_mut(size_of::<PassRecord>());
    head.copy_from_slice(bytemuck::bytes_of(pass));
    tail.copy_from_slice(bytemuck::cast_slice(images));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A structure, and each of its fields: name, offset and size in bytes.
    #[derive(Debug, PartialEq)]
    pub struct Layout {
        pub name: &'static str,
        pub bytes: usize,
        pub fields: &'static [(&'static str, usize, usize)],
    }

    const HEADER: &str = include_str!("../../../kernels/interface.cuh");

    /// Bytes of a scalar type of the header.
    fn size_of_type(name: &str) -> usize {
        match name {
            "double" | "long long" | "unsigned long long" => 8,
            "float" | "int" | "unsigned" => 4,
            _ => panic!("the type {name} of kernels/interface.cuh is unknown here"),
        }
    }

    /// The fields of a structure's body, by C's rules: name, offset and size; and the bytes of the structure.
    fn layout_of(body: &str) -> (Vec<(String, usize, usize)>, usize) {
        let code: String = body.lines().map(|line| line.split("//").next().unwrap()).collect();
        let (mut fields, mut end, mut alignment) = (Vec::new(), 0usize, 1);
        for declaration in code.split(';').map(str::trim).filter(|text| !text.is_empty()) {
            let (head, others) = declaration.split_once(',').map_or((declaration, ""), |(a, b)| (a, b));
            let (kind, first) = match head.rsplit_once('*') {
                Some((_, name)) => (8, name),
                None => {
                    let (kind, name) = head.trim().rsplit_once(' ').unwrap();
                    (size_of_type(kind.trim()), name)
                }
            };
            for name in
                std::iter::once(first).chain(others.split(',')).map(str::trim).filter(|n| !n.is_empty())
            {
                let (name, count) = match name.split_once('[') {
                    Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap()),
                    None => (name, 1),
                };
                let offset = end.next_multiple_of(kind);
                fields.push((name.to_owned(), offset, count * kind));
                end = offset + count * kind;
                alignment = alignment.max(kind);
            }
        }
        (fields, end.next_multiple_of(alignment))
    }

    #[test]
    fn the_header_of_the_kernels_declares_the_same_structures() {
        let mut all: Vec<&Layout> = RECORDS.iter().chain(ARGUMENTS).collect();
        for part in HEADER.split("\nstruct ").skip(1) {
            let (name, rest) = part.split_once(" {").unwrap();
            let (body, rest) = rest.split_once("\n};").unwrap();
            let (fields, bytes) = layout_of(body);
            if name.ends_with("Splat") {
                assert_eq!(bytes, SPLAT_BYTES);
                continue;
            }
            let place = all.iter().position(|layout| layout.name == name);
            let layout = all.swap_remove(place.unwrap_or_else(|| panic!("{name} is not declared here")));
            let found: Vec<_> = fields.iter().map(|(name, at, size)| (name.as_str(), *at, *size)).collect();
            assert_eq!((found.as_slice(), bytes), (layout.fields, layout.bytes), "{name}");
            let assertion = format!("static_assert(sizeof({name}) == {bytes},");
            assert!(rest.trim_start().starts_with(&assertion), "{name} without {assertion}");
        }
        assert_eq!(all, Vec::<&Layout>::new(), "not in kernels/interface.cuh");
    }

    #[test]
    fn passes_are_aligned_for_their_images() {
        assert!(size_of::<RingRecord>().is_multiple_of(align_of::<ImageRecord>()));
        assert!(pass_bytes(1).is_multiple_of(8) && pass_bytes(0).is_multiple_of(8));
    }
}
