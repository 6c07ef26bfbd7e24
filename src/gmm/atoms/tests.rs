//! Round trips through both formats, and errors.

use super::*;
use crate::gmm::mixture;
use crate::gmm::voxelize::{Grid, voxelize};
use crate::imaging::Symmetry;
use crate::random::{Purpose, stream};
use rand_distr::{Distribution, StandardNormal};

const BOX: usize = 24;
const PIXEL_SIZE: f64 = 4.5;

/// Gaussians with varied widths, orientations and amplitudes.
fn varied(shape: Shape, count: usize) -> GmmFile {
    let random = &mut stream(3, Purpose::Start, 1, 0);
    let mut gmm = Gmm::random(count, shape, random);
    let planes = shape.planes();
    for (i, value) in gmm.values_mut().iter_mut().enumerate() {
        let normal: f64 = StandardNormal.sample(random);
        *value += (match i / count {
            0..3 => 0.0,
            6..10 if planes == 11 => normal,
            _ => 0.5 * normal,
        }) as f32;
    }
    GmmFile { gmm, symmetry: Symmetry::T, box_size: BOX, pixel_size: PIXEL_SIZE }
}

fn map(file: &GmmFile) -> ndarray::Array3<f32> {
    voxelize(&file.gmm, &Grid::of_box(file.box_size))
}

#[test]
fn both_formats_preserve_the_density() {
    let folder = tempfile::tempdir().unwrap();
    for shape in [Shape::Anisotropic, Shape::Isotropic] {
        let file = varied(shape, 300);
        let (want, model) = (map(&file), PseudoAtomModel::new(&file, Some([3.0, -70.0, 1234.5])));
        let peak = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        // PDB rounds occupancies to three decimals, positions to 0.001 A and isotropic B factors to 0.01 A^2.
        for (name, tolerance) in [("m.pdb", 3e-3), ("m.cif", 1e-5)] {
            let path = folder.path().join(name);
            if name == "m.pdb" { pdb::write(&model, &path) } else { cif::write(&model, &path) }.unwrap();
            let back = read(&path).unwrap();
            assert_eq!((back.box_size, back.pixel_size, back.gmm.len()), (BOX, PIXEL_SIZE, 300));
            assert_eq!((back.gmm.shape(), back.symmetry), (shape, Symmetry::T));
            let worst = map(&back).iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / peak;
            assert!(worst < tolerance, "{name} {shape:?}: {worst}");
            assert_eq!(mixture::read(&path).unwrap().grid, Some((BOX, PIXEL_SIZE)));
        }
    }
}

#[test]
fn an_atom_is_at_the_voxel_of_its_density() {
    for box_size in [24usize, 25] {
        let n = box_size as f64;
        // Voxel (x, y, z) = (5, 15, 9) of the map.
        let mean = [5.0, 15.0, 9.0].map(|voxel| ((voxel - (box_size / 2) as f64) / n) as f32);
        let raw = [softplus_inverse(1.5 / n) as f32, softplus_inverse(0.7) as f32];
        let gmm = Gmm::from_values(Shape::Isotropic, 1, [&mean[..], &raw].concat());
        let file = GmmFile { gmm, symmetry: Symmetry::C1, box_size, pixel_size: 2.0 };
        let atom = PseudoAtomModel::new(&file, None).atoms[0];
        let voxel = atom.position.map(|a| a / 2.0);
        assert!(voxel.iter().zip([5.0, 15.0, 9.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{voxel:?}");
        let highest = map(&file)
            .indexed_iter()
            .fold(((0, 0, 0), 0.0), |best, (at, &value)| if value > best.1 { (at, value) } else { best });
        assert_eq!(highest.0, (9, 15, 5));
        // 1.5 voxels of 2 A.
        assert!((atom.b_factor() / (8.0 * PI * PI * 9.0) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn records_follow_the_columns_of_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pdb");
    let atom = PseudoAtom {
        position: [1.5, -20.25, 300.0],
        occupancy: 0.5,
        displacement: [4.0, 9.0, 16.0, -1.0, 0.5, 0.0],
    };
    let model = PseudoAtomModel {
        shape: Shape::Anisotropic,
        symmetry: Symmetry::C1,
        box_size: BOX,
        pixel_size: PIXEL_SIZE,
        centre: [54.0; 3],
        amplitude: 1e-3,
        atoms: vec![atom; 10_001],
    };
    pdb::write(&model, &path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|l| l.starts_with("HETATM") || l.starts_with("ANISOU")).collect();
    assert_eq!(lines[0], "HETATM    1 UNK  UNX A   1       1.500 -20.250 300.000 0.500763.25           X  ");
    assert_eq!(lines[1], "ANISOU    1 UNK  UNX A   1    40000  90000 160000 -10000   5000      0       X  ");
    assert!(lines[20_000].starts_with("HETATM10001 UNK  UNX B   2 "), "{}", lines[20_000]);
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[test]
fn what_exceeds_the_limits_of_pdb_is_refused_and_mmcif_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (pdb, cif) = (folder.path().join("m.pdb"), folder.path().join("m.cif"));
    let valid = PseudoAtomModel::new(&varied(Shape::Anisotropic, 4), None);
    let refuse = |change: &dyn Fn(&mut PseudoAtomModel), fragment: &str| {
        let mut model = valid.clone();
        change(&mut model);
        let message = pdb::write(&model, &pdb).unwrap_err().to_string();
        assert!(message.contains(fragment) && message.contains(".cif"), "{message}");
        assert!(!pdb.exists());
        cif::write(&model, &cif).unwrap();
        assert_eq!(read(&cif).unwrap().gmm.len(), model.atoms.len());
    };
    refuse(&|model| model.atoms = vec![model.atoms[0]; 100_000], "99999 atoms, but the mixture has 100000");
    refuse(&|model| model.atoms[2].position[1] = -1000.0, "atom 3");
    refuse(&|model| model.atoms[1].displacement[0] = 1000.0, "atom 2");
}

#[test]
fn errors_name_what_is_wrong_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = PseudoAtomModel::new(&varied(Shape::Anisotropic, 3), None);
    for name in ["m.pdb", "m.cif"] {
        let path = folder.path().join(name);
        if name == "m.pdb" { pdb::write(&model, &path) } else { cif::write(&model, &path) }.unwrap();
        let valid = std::fs::read_to_string(&path).unwrap();
        let refuse = |text: String, fragments: &[&str]| {
            assert_ne!(text, valid);
            std::fs::write(&path, text).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(fragments.iter().all(|f| message.contains(f)), "{fragments:?} in {message}");
            assert!(message.contains(name) && !message.contains('\n'), "{message}");
        };
        refuse(valid.replace("gaussians 3", "gaussians 4"), &["holds 3 atoms", "promises 4"]);
        refuse(valid.replace("box_size 24", "box_size 0"), &["line ", "cryosplat.box_size", "\"0\""]);
        refuse(valid.replace("pixel_size 4.5", "pixel_size -4.5"), &["cryosplat.pixel_size", "\"-4.5\""]);
        refuse(valid.replace("cryosplat.amplitude ", "cryosplat.other "), &["no cryosplat.amplitude"]);
        refuse(valid.replace("symmetry T", "symmetry Q"), &["line ", "cryosplat.symmetry", "\"Q\""]);
        refuse(valid.replace("shape anisotropic", "shape round"), &["cryosplat.shape", "\"round\""]);
        refuse(valid.replace("version 1", "version 2"), &["cryosplat.version", "\"2\""]);
        let position = format!("{:.3}", model.atoms[1].position[0]);
        refuse(valid.replacen(&position, &"x".repeat(position.len()), 1), &["line ", "the x of an atom"]);
        let cut = valid.len() - if name == "m.pdb" { 90 } else { 40 };
        refuse(valid[..cut].to_owned(), &[";"]);
    }
    let path = folder.path().join("model.pdb");
    std::fs::write(&path, "HETATM    1 UNK  UNX A   1       1.500 -20.250 300.000  1.00 20.00           X\n")
        .unwrap();
    assert!(!is_pseudo_atoms(&std::fs::read(&path).unwrap()));
    assert!(read(&path).unwrap_err().to_string().contains("no cryosplat.shape"));
}

#[test]
fn a_second_atom_table_has_its_own_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.cif");
    cif::write(&PseudoAtomModel::new(&varied(Shape::Isotropic, 3), None), &path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap() + "loop_\n_atom_site.id\n4\n";
    std::fs::write(&path, text).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("no column `Cartn_x`"));
}
