//! The cache against its model while its races are lost on purpose.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_epoch as epoch;
use weir_faults::{Faults, RequestKinds};

use super::rounds::model_run_under;
use crate::add_lock::AddLock;
use crate::frame::PAGE_SHIFT;
use crate::gen_radix::{GenRadix, Tag};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The time that a run may take before it counts as an endless loop.
const STUCK: Duration = Duration::from_secs(3600);

fn losing(query: &str) -> Faults {
    let faults = Faults::new();
    faults
        .set_points(&format!("class cache:race {query}"))
        .expect("there are races");
    faults
}

/// How often each race point was reached, by its place.
fn hits(faults: &Faults) -> BTreeMap<String, u64> {
    let points = faults.points("class cache:race").expect("there are races");
    let place = |point: &weir_faults::PointListing| format!("{}:{}", point.file, point.line);
    points
        .iter()
        .map(|point| (place(point), point.hits))
        .collect()
}

/// The array alone: leaves and roots made, emptied and reclaimed, tags set and tidied. At the end nothing is left but
/// what never goes, whichever thread won.
fn use_array(faults: &Faults) {
    let array = GenRadix::<AtomicU64>::with_faults(faults.context(RequestKinds::WRITEBACK));
    let indexes = [0_u64, 5, 600, 70_000, 1 << 30, 1 << 50];
    let mut left_over = None;
    for round in 1..30 {
        let pin = epoch::pin();
        for index in indexes {
            let entry = array.occupy(index, &pin).expect("memory");
            assert_eq!(
                entry.swap(round, Ordering::Relaxed),
                0,
                "{index} in round {round}"
            );
            array.set_tag(index, Tag::Dirty, &pin);
        }
        let tagged: Vec<u64> = array.tagged(0..u64::MAX, Tag::Dirty, &pin).collect();
        assert_eq!(tagged, indexes, "round {round}");
        for index in indexes {
            array.clear_tag(index, Tag::Dirty, &pin);
            array.tidy_tags(0..u64::MAX, Tag::Dirty, &pin);
            let entry = array.get(index, &pin).expect("still occupied");
            entry.store(0, Ordering::Relaxed);
            array.vacate(index, &pin);
        }
        assert_eq!(array.next_tagged(0, Tag::Dirty, &pin), None);
        for index in indexes {
            let left = array.get(index, &pin);
            assert!(
                index == 0 || left.is_none(),
                "{index} is left in round {round}"
            );
        }
        // Roots of the first round.
        let bytes = array.bytes();
        assert_eq!(*left_over.get_or_insert(bytes), bytes, "round {round}");
    }
}

/// The lock alone: adders and blockers of one region and of all wait for each other.
async fn use_lock(faults: &Faults) {
    let lock = Arc::new(AddLock::with_faults(
        PAGE_SHIFT,
        faults.context(RequestKinds::WRITEBACK),
    ));
    let value = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..60_u64 {
        let (lock, value) = (Arc::clone(&lock), Arc::clone(&value));
        tasks.push(tokio::spawn(async move {
            // Adders count in the low half, blockers in the high one: never both at a time.
            let mine = if number % 3 == 0 { 1 << 32 } else { 1 };
            let hold: Box<dyn Send> = match number % 12 {
                0 => Box::new(lock.block_whole(0..4096).await),
                6 => Box::new(lock.exclusive().await),
                3 | 9 => Box::new(lock.block(0..4096).await),
                _ => Box::new(lock.add(0..10).await),
            };
            let before = value.fetch_add(mine, Ordering::SeqCst);
            let others = if mine == 1 {
                before >> 32
            } else {
                before & 0xffff_ffff
            };
            assert_eq!(others, 0, "adders and blockers at a time");
            tokio::task::yield_now().await;
            value.fetch_sub(mine, Ordering::SeqCst);
            drop(hold);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn lose_races(query: &str, seeds: std::ops::Range<u64>) -> BTreeMap<String, u64> {
    let faults = losing(query);
    use_array(&faults);
    let all = async {
        use_lock(&faults).await;
        for seed in seeds {
            model_run_under(&faults, seed, seed % 2 == 1).await;
        }
    };
    tokio::time::timeout(STUCK, all)
        .await
        .unwrap_or_else(|_| panic!("{query}: no end of it"));
    hits(&faults)
}

#[tokio::test(start_paused = true)]
async fn the_model_holds_when_every_second_race_is_lost() {
    let hits = lose_races("frequency 2", 0..4).await;
    let never: Vec<_> = hits.iter().filter(|(_, hits)| **hits == 0).collect();
    assert!(never.is_empty(), "never come by: {never:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_model_holds_when_races_are_lost_at_random() {
    for seed in 0..3 {
        lose_races(&format!("probability 30% seed {seed}"), 10..13).await;
    }
}

/// A call loses once at most, so that even this comes to its end.
#[tokio::test(start_paused = true)]
async fn the_model_holds_when_every_race_is_lost() {
    lose_races("enable", 20..24).await;
}
