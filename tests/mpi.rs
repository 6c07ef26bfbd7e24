//! The room `parallel` on real MPI ranks. This program is both test and rank: without `--as-rank` it starts itself with `mpirun`
//! for each case and checks how the job ends; with it, it is one rank of the job.

mod common;

use std::time::{Duration, Instant};

use common::{over_mpi, text};
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::parallel::{EndSignal, Failure, HalfGroup, World};
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::train::replicas::check_replicas;

/// First argument of a rank.
const RANK: &str = "--as-rank";
/// Time limit for a job with a failing rank; generous for slow machines.
const TIME_LIMIT: Duration = Duration::from_secs(45);
/// Longest time without a sign of life. The cases that end by it take as long.
const TIMEOUT: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(RANK) => rank(&arguments[1]),
        // Test runners ask for a list of tests: there is none.
        Some("--list") => {}
        _ => run_cases(),
    }
}

/// Starts the cases and checks how they end.
fn run_cases() {
    let job = |ranks: usize, case: &str| {
        let program = std::env::current_exe().unwrap().display().to_string();
        let started = Instant::now();
        let output = over_mpi(ranks, &program, &[RANK.to_owned(), case.to_owned()]);
        println!("{case} on {ranks}: {:?} in {:.1} s", output.status.code(), started.elapsed().as_secs_f64());
        (output.status.code(), text(&output), started.elapsed())
    };
    for ranks in 1..=4 {
        for case in ["collectives", "groups", "replicas"] {
            let (code, said, _) = job(ranks, case);
            assert_eq!(code, Some(0), "{case} on {ranks} ranks:\n{said}");
            assert_eq!(said.matches("all checks passed").count(), ranks, "{said}");
        }
    }
    let (code, said, took) = job(3, "works for long");
    assert_eq!(code, Some(0), "{said}");
    assert!(took > 2 * TIMEOUT);
    let (code, said, _) = job(3, "first fails");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("the reason; the remedy").count(), 1, "reported once, by rank 0:\n{said}");
    for (case, words) in [
        ("planted difference", "the ranks that train half1 hold different parameters after step 7"),
        ("panic", "ending the job after a panic"),
        ("panic in a thread", "ending the job after a panic"),
        ("abort", "going"),
        // Asleep in a system call, as in a file system that has hung: its watchdog still runs.
        ("sleeps", "rank 1 on"),
        ("sleeps", "has given no sign of life for 4 s"),
        ("all wait", "all ranks have waited 4 s and none works"),
    ] {
        let (code, said, took) = job(3, case);
        assert!(code != Some(0), "{case} ends with {code:?}:\n{said}");
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("unreachable"), "a rank continued:\n{said}");
        assert!(took < TIME_LIMIT, "{case} took {took:?}");
    }
}

/// A mixture that is equal on every rank.
fn mixture() -> Gmm {
    Gmm::random(100, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0))
}

/// One rank of a case. Long, because it is one match with an arm per case.
fn rank(case: &str) {
    let world = World::start(TIMEOUT, EndSignal::default()).unwrap();
    world.abort_on_panic();
    let (me, all) = (world.rank(), world.size());
    match case {
        "collectives" => {
            assert_eq!((world.local_rank(), world.local_size()), (me, all), "one machine");
            assert_eq!(world.broadcast_json(&(40 + me as u64)).unwrap(), 40);
            assert_eq!(world.local_all_reduce_sum(me as u64 + 1), (all * (all + 1) / 2) as u64);
            assert_eq!(world.local_broadcast(&vec![me as u8; 100_000 * me + 5]), [0; 5]);
            assert!(world.local_broadcast(&[]).is_empty());
            let texts = world.gather_text(&"x".repeat(me * 100_000));
            match texts {
                Some(texts) => {
                    assert_eq!(me, 0);
                    let lengths: Vec<usize> = texts.iter().map(String::len).collect();
                    assert_eq!(lengths, (0..all).map(|r| r * 100_000).collect::<Vec<_>>());
                }
                None => assert!(me > 0),
            }
            let outcome = world.on_root(|| Ok(me)).unwrap();
            assert_eq!(outcome, (me == 0).then_some(0));
        }
        "groups" => {
            for models in [1, 2] {
                let mut group = HalfGroup::split(&world, models);
                let size = group.assignment.size;
                assert_eq!(group.collective.size(), size);
                // The sum covers only members of the group.
                let index = group.assignment.models[0];
                let first = if index == 0 { 0 } else { all - size };
                let wanted: usize = (first..first + size).map(|r| r + 1).sum();
                for length in [1, 1000, 100_003] {
                    let mut buffer: Vec<f32> = (0..length).map(|i| ((me + 1) * (i % 7)) as f32).collect();
                    group.collective.all_reduce_sum(&mut buffer);
                    assert!(buffer.iter().enumerate().all(|(i, &v)| v == (wanted * (i % 7)) as f32));
                }
                // Sums with rounding have the same bits on every rank.
                let mut buffer: Vec<f32> = (0..999).map(|i| ((me * 999 + i) as f32 * 0.37).sin()).collect();
                group.collective.all_reduce_sum(&mut buffer);
                let bits = buffer.iter().fold(0u64, |sum, v| sum.rotate_left(5) ^ u64::from(v.to_bits()));
                assert!(group.collective.all_equal(bits));
                group.collective.barrier();
            }
        }
        "replicas" => {
            let group = HalfGroup::split(&world, 1);
            check_replicas(&group.collective, u64::from(mixture().checksum()), Subset::Half1, 7).unwrap();
            // One different bit on one rank is detected on every rank.
            let mut gmm = mixture();
            if me == all - 1 {
                let value = &mut gmm.values_mut()[1033];
                *value = f32::from_bits(value.to_bits() ^ 1);
            }
            let outcome = check_replicas(&group.collective, u64::from(gmm.checksum()), Subset::Half1, 7);
            assert_eq!(outcome.is_err(), all > 1);
            assert_eq!(group.collective.all_equal(me as u64), all == 1);
        }
        "first fails" => {
            let fails = || -> cryosplat_mpi::error::Result<()> {
                Err(cryosplat_mpi::error::Error::request("the reason", "the remedy"))
            };
            match world.on_root(fails) {
                Err(Failure::Collective(Some(error))) if me == 0 => eprintln!("{error}"),
                Err(Failure::Collective(None)) if me > 0 => {}
                other => panic!("{other:?}"),
            }
        }
        "planted difference" => {
            let group = HalfGroup::split(&world, 1);
            let mut gmm = mixture();
            if me == 2 {
                gmm.values_mut()[3] = 0.5;
            }
            if let Err(error) = check_replicas(&group.collective, u64::from(gmm.checksum()), Subset::Half1, 7)
            {
                eprintln!("{error}");
                world.abort(1);
            }
            eprintln!("unreachable");
        }
        "panic" | "panic in a thread" => {
            if me == 1 {
                if case == "panic" {
                    panic!("as planned");
                }
                let _ = std::thread::spawn(|| panic!("as planned")).join();
            }
            // Other ranks wait here for the failing rank.
            world.barrier();
            eprintln!("unreachable");
        }
        "abort" => {
            if me == 1 {
                eprintln!("going");
                world.abort(3);
            }
            world.barrier();
            eprintln!("unreachable");
        }
        "works for long" => {
            // Twice the timeout. The others learn from its watchdog that it works.
            let started = Instant::now();
            while me == 1 && started.elapsed() < 2 * TIMEOUT {
                std::hint::black_box((0..100_000u64).sum::<u64>());
            }
            world.barrier();
        }
        "sleeps" => {
            if me == 1 {
                std::thread::sleep(Duration::from_secs(600));
            }
            world.barrier();
            eprintln!("unreachable");
        }
        "all wait" => {
            // A bug that must not hang the job: a rank has taken another branch.
            match me {
                1 => world.await_stop(),
                _ => world.barrier(),
            }
            eprintln!("unreachable");
        }
        other => panic!("no case {other}"),
    }
    println!("all checks passed");
}
