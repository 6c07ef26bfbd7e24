//! Atomic models in mmCIF and PDB, and mixtures in PLY.

use std::path::Path;

use cryosplat_mpi::error::Result;
use cryosplat_mpi::gmm::atoms::{PseudoAtomModel, cif, pdb};
use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::gmm::{Gmm, Shape, mixture, ply};
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::simulate::atoms::ModelChoice;
use cryosplat_mpi::simulate::{atoms, density};

use crate::damage::Words;
use crate::target::{Sound, fuzz};

const CIF: Words = &[
    b"\nloop_\n",
    b"loop_",
    b"\ndata_X\n",
    b"save_",
    b"\n;",
    b"\n;\n",
    b"'",
    b"\"",
    b"' ",
    b"#",
    b"?",
    b".",
    b"(",
    b"_atom_site.Cartn_x\n",
    b"_atom_site.Cartn_x 1\n",
    b"_atom_site.",
    b"_atom_site.pdbx_PDB_model_num\n",
    b"_atom_site.occupancy\n",
    b"_ATOM_SITE.CARTN_X",
    b"_",
    b"\r",
    b"\t",
    b"\x0b",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\xa6\x80",
    b"\xff",
    b"1e999",
    b"1e308",
    b"-1e308",
    b"nan",
    b"99999999999999999999999999",
];

const PDB: Words = &[
    b"ATOM  ",
    b"HETATM",
    b"ENDMDL\n",
    b"\nMODEL        1\n",
    b"\nEND\n",
    b"TER\n",
    b"1e99",
    b"1e300",
    b"nan",
    b"-inf",
    b"99999.99",
    b"\r",
    b"\t",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\xa6\x80",
    b"\xff",
    b"_atom_site.",
    b"\x1f\x8b",
];

const PLY: Words = &[
    b"element vertex 18446744073709551615\n",
    b"element vertex 4611686018427387904\n",
    b"element vertex 0\n",
    b"element face 1\n",
    b"property float x\n",
    b"property double x\n",
    b"property list uchar int v\n",
    b"end_header\n",
    b"\nend_header\n",
    b"comment ",
    b"format ascii 1.0\n",
    b"format binary_big_endian 1.0\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\0\0\xc0\x7f",
    b"\0\0\x80\x7f",
];

/// Reads a model and computes its map, as `simulate` does.
fn map(file: &Path) -> Result<()> {
    const BOX: usize = 8;
    let mut model = atoms::read(file, ModelChoice::All)?;
    let radius = atoms::centre(&mut model);
    density::check_fit(radius, BOX, 8.0)?;
    let mut map = density::map_of_atoms(&model, BOX, 8.0, 100.0);
    density::scale_to_unit_deviation(&mut map, "the model")?;
    assert!(map.iter().all(|value| value.is_finite()), "a map of {} atoms is not finite", model.len());
    Ok(())
}

/// Memory of the grids of such a map in bytes.
const GRIDS: usize = 1 << 22;

#[test]
fn mmcif_files() {
    let mut text = String::from(
        "data_X\n_entry.id 'it''s'\n_struct.title\n;a text\nloop_ in it\n;\n#\nloop_\n_atom_site.group_PDB\n\
         _atom_site.id\n_atom_site.type_symbol\n_atom_site.label_atom_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n\
         _atom_site.Cartn_z\n_atom_site.occupancy\n_atom_site.pdbx_PDB_model_num\n",
    );
    for i in 0..20 {
        text += &format!("ATOM {i} C \"C{i}'\" {}.5 {}(2) {} 0.5 1\n", i - 10, i % 7, i % 3);
    }
    text += "ATOM 21 C CA 9 9 9 1 2\n#\nloop_\n_other.x\n7\n";
    fuzz(&Sound { beyond: GRIDS, ..Sound::new("m.cif", text.as_bytes(), CIF) }, map);
    let one = "data_X\n_atom_site.type_symbol O\n_atom_site.Cartn_x 1\n_atom_site.Cartn_y 2\n_atom_site.Cartn_z 3\n_b.c 4\n";
    fuzz(&Sound { beyond: GRIDS, ..Sound::new("one.cif", one.as_bytes(), CIF) }, map);
}

#[test]
fn pdb_files() {
    let mut text = String::from("HEADER    X\nMODEL        1\n");
    for i in 0..20 {
        let (x, y, z) = (f64::from(i) - 10.0, f64::from(i % 7), f64::from(i % 3));
        text += &format!("ATOM  {i:5}  CA  ALA A{i:4}    {x:8.3}{y:8.3}{z:8.3}  0.50 20.00           C  \n");
    }
    text += "HETATM    2 MG    MG A   2       1.000   2.000   3.000\nENDMDL\nEND\n";
    fuzz(&Sound { beyond: GRIDS, ..Sound::new("m.pdb", text.as_bytes(), PDB) }, map);
}

#[test]
fn ply_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.ply");
    let gmm = Gmm::random(7, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
    ply::write(&gmm, Symmetry::T, &path).unwrap();
    fuzz(&Sound::new("g.ply", &std::fs::read(&path).unwrap(), PLY), |file| ply::read(file).map(drop));
}

const PSEUDO_ATOMS: Words = &[
    b"cryosplat.version 1\n",
    b"_cryosplat.gaussians 4294967296\n",
    b"REMARK   1 cryosplat.box_size 0\n",
    b"cryosplat.pixel_size 1e-300",
    b"cryosplat.amplitude inf",
    b"cryosplat.shape isotropic",
    b"loop_\n",
    b"_atom_site.occupancy\n",
    b"_atom_site_anisotrop.U[1][1]\n",
    b"ANISOU",
    b"HETATM",
    b"9999999",
    b"-1",
    b"1e999",
    b"nan",
    b"\r",
    b"\0",
    b"\xf0\x9f\xa6\x80",
    b"\xff",
];

#[test]
fn pseudo_atoms() {
    let folder = tempfile::tempdir().unwrap();
    for shape in [Shape::Anisotropic, Shape::Isotropic] {
        let gmm = Gmm::random(7, shape, &mut stream(1, Purpose::Start, 1, 0));
        let model = PseudoAtomModel::new(
            &GmmFile { gmm, symmetry: Symmetry::C1, box_size: 32, pixel_size: 3.0 },
            None,
        );
        for name in ["g.cif", "g.pdb"] {
            let path = folder.path().join(name);
            if name == "g.cif" { cif::write(&model, &path) } else { pdb::write(&model, &path) }.unwrap();
            let bytes = std::fs::read(&path).unwrap();
            fuzz(&Sound::new(name, &bytes, PSEUDO_ATOMS), |file| {
                let read = mixture::read(file)?;
                assert!(read.gmm.values().iter().all(|value| value.is_finite()));
                Ok(())
            });
        }
    }
}
