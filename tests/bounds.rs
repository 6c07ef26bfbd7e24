//! Requests and files whose work or memory would have no bound: refused at once, with what they would need and a remedy.

mod common;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use common::{
    BOX, bytes, expect_failure, fail, path, phantom, program, program_file, succeed, text, train_arguments,
};
use cryosplat_mpi::gmm::{Gmm, Shape, ply};
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::imaging::mrc::{Statistics, header_bytes, read_volume};
use tempfile::TempDir;

/// Address space of a program in these tests, in KiB: 4 GiB, whatever the memory of the machine.
const ADDRESS_SPACE: u32 = 4 << 20;

/// A small set, shared by all tests of this file.
static SET: LazyLock<(TempDir, String)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 40);
    (folder, set)
});

/// Runs the program with 4 GiB of address space, and expects it to refuse in one line with all `fragments`.
fn refused_with_little_memory(arguments: &[&str], fragments: &[&str]) {
    let limited = format!("ulimit -v {ADDRESS_SPACE} && exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    let output = command.args(["-c", &limited, &program_file()]).args(arguments).output().unwrap();
    expect_failure(&output, fragments);
    assert!(!text(&output).contains("memory allocation"), "{}", text(&output));
}

/// A map of `size` voxels along each edge whose file takes a few KiB on the disk: all values are holes.
fn sparse_map(folder: &Path, size: usize) -> String {
    let file = path(folder, &format!("sparse_{size}.mrc"));
    let statistics = Statistics { min: 0.0, max: 0.0, mean: 0.0, deviation: 0.0 };
    let mut map = File::create(&file).unwrap();
    map.write_all(&header_bytes([size; 3], 1.0, true, &statistics)).unwrap();
    map.set_len(1024 + 4 * (size as u64).pow(3)).unwrap();
    file
}

/// A mixture of two Gaussians in the box, and one that ran away: its scale is 1e9 boxes.
fn runaway(folder: &Path) -> String {
    let planes = [
        [0.0, 0.1, 0.0],
        [0.0, -0.1, 0.05],
        [0.0, 0.05, 0.0],
        [-3.0, -3.0, 1e9],
        [-3.0, -3.0, -3.0],
        [-3.0, -3.0, 1e9],
        [1.0, 1.0, 0.9],
        [0.0, 0.0, 0.1],
        [0.0, 0.0, 0.2],
        [0.0, 0.0, -0.3],
        [-2.0, -2.0, 1.0],
    ];
    let file = folder.join("runaway.ply");
    let gmm = Gmm::from_values(Shape::Anisotropic, 3, planes.as_flattened().to_vec());
    ply::write(&gmm, Symmetry::C1, &file).unwrap();
    file.display().to_string()
}

#[test]
fn maps_that_do_not_fit_the_memory_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (huge, large) = (sparse_map(folder.path(), 1500), sparse_map(folder.path(), 600));
    let output = path(folder.path(), "out");
    let fragments =
        ["sparse_1500.mrc", "would take 251.5 GiB of memory, but only", "machine with more memory"];
    refused_with_little_memory(&["fsc", &huge, &huge, "-o", &output], &fragments);
    refused_with_little_memory(&["postprocess", &huge, &huge, "-o", &output], &fragments);
    let fragments = ["sparse_600.mrc", "12.1 GiB of memory, but only"];
    let simulate =
        ["simulate", "--map", &large, "-o", &output, "-n", "4", "--box", "32", "--pixel-size", "4"];
    refused_with_little_memory(&simulate, &fragments);
    // The truth of a training has the box of the particles.
    let arguments = train_arguments(&SET.1, &output, &["--truth", &huge]);
    fail(&arguments, &["sparse_1500.mrc", "a box of 1500 voxels", "one of 32 pixels"]);
    assert!(!Path::new(&output).exists());
}

#[test]
fn grids_that_do_not_fit_the_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mixture, map) = (runaway(folder.path()), path(folder.path(), "map.mrc"));
    let voxelize =
        |size| ["voxelize", &mixture, "-o", &map, "--pixel-size", "1", "--box", size].map(str::to_owned);
    let run = |size| voxelize(size).to_vec();
    fail(&run("100000"), &["a map of 100000 voxels", "up to 1024 voxels"]);
    let large = run("1000");
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    refused_with_little_memory(&large, &["a map of 1000 voxels", "102.4 GiB", "larger --pixel-size"]);
    assert!(!Path::new(&map).exists());
}

#[test]
fn mixtures_larger_than_the_box_or_the_memory_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = path(folder.path(), "run");
    let arguments = train_arguments(&SET.1, &run, &["--gaussians", "50000000"]);
    fail(&arguments, &["50000000 Gaussians", "the box of 32 pixels", "--gaussians 65536 or fewer"]);
    let arguments = train_arguments(&SET.1, &run, &["--gaussians", "50000000", "--symmetry", "D2"]);
    fail(&arguments, &["50000000 Gaussians (12500000 in each of the 4 units of D2)"]);
    let ensemble = ["--gaussians", "60000", "--mixtures", "1000", "--epochs", "1000"];
    let arguments = train_arguments(&SET.1, &run, &ensemble);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let fragments = ["training 1000 mixtures of 60000 Gaussians", "GiB of memory, but only", "--mixtures"];
    refused_with_little_memory(&arguments, &fragments);
    assert!(!Path::new(&run).exists());
    let bench = ["bench", "--device", "cpu", "--box", "512", "--batch", "1000000", "--gaussians", "100"];
    refused_with_little_memory(&bench, &["a batch of 1000000", "GiB of memory, but only", "smaller --batch"]);
    let bench = ["bench", "--device", "cpu", "--gaussians", "50000000"];
    refused_with_little_memory(&bench, &["50000000 Gaussians", "GiB of memory, but only"]);
}

/// Threads are bounded by the cores.
#[test]
fn many_threads_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mixture, output) = (runaway(folder.path()), path(folder.path(), "out"));
    let set = &SET.1;
    for command in [
        &["train", set, "-o", &output][..],
        &["backproject", set, "-o", &output],
        &["bench", set],
        &["import", set, "-o", &output],
        &["voxelize", &mixture, "-o", &output, "--box", "32", "--pixel-size", "4"],
        &["simulate", "--phantom", "-o", &output],
    ] {
        for threads in ["100000", "4097"] {
            let arguments = [command, &["--threads", threads]].concat();
            fail(&arguments, &[&format!("--threads {threads} is out of range"), "cores", "choose 1 to"]);
        }
    }
    assert!(!Path::new(&output).exists());
}

#[test]
fn files_larger_than_the_disk_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "p.h5");
    let huge =
        ["simulate", "--phantom", "-o", &output, "-n", "10000000", "--box", "128", "--pixel-size", "1"];
    fail(&huge, &["p.h5: would take 610.4 GiB, but its disk has only", "GiB free", "fewer particles"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Many more indices than images would make a particle file without a bound.
#[test]
fn indices_that_repeat_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stack = path(folder.path(), "p.mrcs");
    let images = [vec![0.0f32; 256], vec![1.0; 256]];
    cryosplat_mpi::imaging::mrc::write_stack(Path::new(&stack), 16, 2.0, images.iter().map(Vec::as_slice))
        .unwrap();
    let indices = path(folder.path(), "ind.pkl");
    // A list of integers in the text protocol of pickles.
    std::fs::write(&indices, format!("(lp0\n{}.", "I1\na".repeat(50_000))).unwrap();
    let output = path(folder.path(), "p.h5");
    let import = ["import", &stack, "-o", &output, "--poses", &indices, "--no-ctf", "--ind", &indices];
    fail(&import, &["ind.pkl: has 50000 indices for 2 images", "list each image once"]);
}

/// One runaway Gaussian must not stall the outputs of a training.
#[test]
fn a_runaway_gaussian_does_not_stall_the_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let (mixture, run) = (runaway(folder.path()), path(folder.path(), "run"));
    let options = ["--init", &mixture, "--epochs", "1", "--learning-rate", "1e-6", "--gaussians", "3"];
    let output = program(&train_arguments(&SET.1, &run, &options));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&bytes(&run, "run.json")).matches("\"state\": \"done\"").count(), 1);
    let map = read_volume(&Path::new(&run).join("half1.mrc")).unwrap();
    assert_eq!(map.data.dim(), (BOX, BOX, BOX));
    assert!(map.data.iter().all(|value| value.is_finite()));
    let again = path(folder.path(), "again.mrc");
    succeed(&["voxelize", &format!("{run}/gmm_half1.h5"), "-o", &again]);
    assert!(std::fs::read(&again).unwrap() == bytes(&run, "half1.mrc"));
}

/// A file that claims 20 GB without having them: three times as many would not be free on the machines of the tests, and if they are,
/// the address space is limited.
#[test]
fn sparse_texts_and_pickles_are_refused_by_their_size() {
    let (folder, _) = &*SET;
    let sparse = |name: &str| {
        let file = path(folder.path(), name);
        File::create(&file).unwrap().set_len(20 << 30).unwrap();
        file
    };
    let output = path(folder.path(), "never.h5");
    for name in ["sparse.pdb", "sparse.cif"] {
        let model = sparse(name);
        let simulate =
            ["simulate", "--model", &model, "-o", &output, "-n", "5", "--box", "32", "--pixel-size", "4"];
        refused_with_little_memory(&simulate, &[name, "its 20.0 GiB are too many"]);
    }
    let (poses, stack) = (sparse("sparse.pkl"), path(folder.path(), "stack.mrcs"));
    let images = [vec![0.0f32; 256], vec![1.0; 256]];
    cryosplat_mpi::imaging::mrc::write_stack(Path::new(&stack), 16, 2.0, images.iter().map(Vec::as_slice))
        .unwrap();
    let import = ["import", &stack, "-o", &output, "--poses", &poses, "--no-ctf", "--pixel-size", "4"];
    refused_with_little_memory(&import, &["sparse.pkl", "its 20.0 GiB are too many"]);
    assert!(!Path::new(&output).exists());
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let (folder, set) = &*SET;
    let run = path(folder.path(), "run");
    let options = ["--gaussians", "20", "--mixtures", "1", "--epochs", "1", "--voxel-particles", "0"];
    succeed(&train_arguments(set, &run, &options));
    let of_run = |name: &str| path(Path::new(&run), name);
    let (half1, half2, mixture) = (of_run("half1.mrc"), of_run("half2.mrc"), of_run("gmm_half1.h5"));
    let output = path(folder.path(), "never");
    for size in ["1e308", "1e30", "1e-300", "nan", "inf", "0", "-1"] {
        let pixel = format!("--pixel-size={size}");
        for command in [
            &["voxelize", &mixture, "-o", &output][..],
            &["fsc", &half1, &half2],
            &["postprocess", &half1, &half2, "-o", &output],
            &["bench", "--gaussians", "10", "--seconds", "1"],
            &["import", "any.star", "-o", &output],
            &["export", "gmm", &of_run("gmm_half1.ply"), "-o", &output, "--box", "32"],
        ] {
            let refused = program(&[command, &[&pixel]].concat());
            assert!(!refused.status.success() && text(&refused).contains("expected a number above 0.0001"));
        }
    }
    for b_factor in ["1e308", "nan", "inf"] {
        let b_factor = format!("--b-factor={b_factor}");
        let phantom = ["simulate", "--phantom", "-o", &output, "-n", "5", "--box", "32", "--pixel-size", "4"];
        for command in [&phantom[..], &["postprocess", &half1, &half2, "-o", &output]] {
            assert!(!program(&[command, &[&b_factor]].concat()).status.success(), "{b_factor}");
        }
    }
    let post = ["postprocess", &half1, &half2, "-o", &output];
    for (command, option) in [
        (&post[..], "--low-pass=1e308"),
        (&post, "--fit-from=1e308"),
        (&["fsc", &half1, &half2, "--mask", "sphere"], "--radius=1e308"),
        (&["fsc", &half1, &half2, "--mask", "auto"], "--extend=1e308"),
        (&["fsc", &half1, &half2, "--mask", "auto"], "--edge=1e308"),
        (&["export", "gmm", &mixture, "-o", &output, "--pixel-size", "4"], "--box=99999999999"),
    ] {
        assert!(!program(&[command, &[option]].concat()).status.success(), "{option}");
    }
    let left = std::fs::read_dir(folder.path()).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("never")));
}

#[test]
fn boxes_of_resampled_images_have_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let (set, output) = (path(folder.path(), "p.h5"), path(folder.path(), "never.h5"));
    let star = path(folder.path(), "set");
    let simulate = ["simulate", "--phantom", "-n", "20", "--box", "32", "--pixel-size", "4"];
    succeed(&[&simulate[..], &["-o", &set, "--star", &star]].concat());
    let file = Path::new(&star).join("particles.star");
    let rows = std::fs::read_to_string(&file).unwrap();
    let import = ["import", file.to_str().unwrap(), "-o", &output];
    for (options, fragments) in [
        (&["--pixel-size", "1e-3"][..], ["boxes of 128000 pixels", "larger --pixel-size"]),
        (&["--pixel-size", "3", "--box", "100000"], ["boxes of 100000 pixels", "smaller --box"]),
        (&["--pixel-size", "3", "--box", "99999999999"], ["boxes of 99999999999 pixels", "smaller --box"]),
    ] {
        refused_with_little_memory(&[&import[..], options].concat(), &fragments);
    }
    let optics = "simulated 300 2.7 0.1 4 32 2";
    assert!(rows.contains(optics));
    for size in ["1e300", "1e15", "1e-300", "1e-5"] {
        let absurd = optics.replace(" 4 ", &format!(" {size} "));
        std::fs::write(&file, rows.replace(optics, &absurd)).unwrap();
        for options in [&[][..], &["--pixel-size", "4"]] {
            let refused = [&import[..], options].concat();
            refused_with_little_memory(&refused, &["particles.star", &format!("pixels of {size} A")]);
        }
    }
    assert!(!Path::new(&output).exists());
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "p.h5");
    let limited = "ulimit -f 100 && exec \"$0\" \"$@\"";
    let simulate = ["simulate", "--phantom", "-o", &output, "-n", "120", "--box", "32", "--pixel-size", "4"];
    let mut command = Command::new("bash");
    let refused = command.args(["-c", limited, &program_file()]).args(simulate).output().unwrap();
    expect_failure(&refused, &["p.h5", "cannot write"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}
