//! The model with an error at every point of the code, one at a time: every error that the point allows.
//!
//! Whatever fails in the middle, nothing aborts, nothing hangs, nothing acknowledged is lost, and nothing is left over.
//! The points are those that the registry knows, so that a new one is in it by itself. Each must have fired: a point
//! that the model doesn't reach is as good as untested. Races that are lost on purpose have no error; `lost_races` has
//! them. Points of the server are not linked here; its sessions' tests sweep them.

use proptest::strategy::Strategy as _;
use proptest::test_runner::{TestCaseError, TestError};
use weir_faults::{Errno, FaultPoint, Faults, PointKind};

use super::bench::Trigger;
use super::{DELAY_MAX, Injection, any_case, paused, play, runner, seeds};
use crate::options::CacheOptions;
use crate::page_cache::{OpenError, PageCache};
use crate::testing::TestBackend;
use std::sync::Arc;

/// Cases for each error of a point, and more until it has fired.
const CASES_MIN: u64 = 2;
/// A point that has not fired after this many cases never will.
const CASES_MAX: u64 = 100;
/// Rounds of a case: a failure shows in the round in which it happens or in the next.
const ROUNDS_MAX: usize = 3;

/// It is reached once, before there is a cache.
const AT_OPEN: &str = "cache:pool:map";

/// The error of a point in case number `case`: at random, or once at a certain hit.
fn injection(point: &FaultPoint, errno: Errno, seed: u64, case: u64) -> Injection {
    let trigger = match case % 2 {
        0 => Trigger::Chance {
            seed: seed.wrapping_add(case),
        },
        _ => Trigger::After(case / 2 % 8),
    };
    Injection {
        place: format!("file {} line {}", point.file, point.line),
        trigger,
        errno,
    }
}

fn fires(faults: &Faults, place: &str) -> u64 {
    let listed = faults.points(place).unwrap();
    listed.iter().map(|point| point.fires).sum()
}

/// Plays cases with `errno` at `point`; says whether it has fired.
fn sweep(point: &FaultPoint, errno: Errno, seed: u64) -> bool {
    let mut runner = runner(seed);
    let mut fired = false;
    for number in 0..CASES_MAX {
        if fired && number >= CASES_MIN {
            break;
        }
        let injection = injection(point, errno, seed, number);
        let drawn = any_case().prop_map(|mut case| {
            case.rounds.truncate(ROUNDS_MAX);
            case
        });
        let tree = drawn.new_tree(&mut runner).unwrap();
        let seen = std::cell::Cell::new(0);
        let outcome = runner.run_one(tree, |case| {
            let faults = Faults::new();
            let played = paused().block_on(play(&case, DELAY_MAX, &faults, Some(&injection)));
            seen.set(seen.get() + fires(&faults, &injection.place));
            played.map_err(TestCaseError::fail)
        });
        fired |= seen.get() > 0;
        match outcome {
            Ok(_) => {}
            Err(TestError::Fail(reason, case)) => {
                panic!("WEIR_MODEL_SEED={seed}, {injection:?}: {reason}\n{case:#?}")
            }
            Err(TestError::Abort(reason)) => panic!("{injection:?} stops: {reason}"),
        }
    }
    fired
}

#[test]
fn every_point_with_every_error() {
    let mut silent = Vec::new();
    for point in FaultPoint::all().filter(|point| point.class != AT_OPEN) {
        assert_eq!(
            point.errors.is_empty(),
            point.kind == PointKind::Race,
            "{point}"
        );
        for errno in point.errors {
            let fired = seeds(1).map(|seed| sweep(point, *errno, seed));
            // All of them, whether it has fired or not.
            if fired.filter(|fired| *fired).count() == 0 {
                silent.push(format!("{point} ({}) with {errno}", point.class));
            }
        }
    }
    assert!(silent.is_empty(), "never come by: {silent:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_gets_no_memory_is_refused() {
    let faults = Faults::new();
    faults
        .set_points(&format!("class {AT_OPEN} oneshot error ENOMEM"))
        .unwrap();
    let backend = Arc::new(TestBackend::new(1 << 20, 1));
    let options = CacheOptions::default();
    let opened = PageCache::open(Arc::clone(&backend) as _, &options, &faults);
    assert!(
        matches!(opened, Err(OpenError::Memory { .. })),
        "{opened:?}"
    );
    assert_eq!(fires(&faults, &format!("class {AT_OPEN}")), 1);
    PageCache::open(backend, &options, &faults).expect("it was said once");
}
