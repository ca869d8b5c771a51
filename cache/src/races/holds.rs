//! Blockers and what they hold: rows 3, 17 and 18.

use super::*;
use crate::testing::Behaviour;

#[tokio::test(start_paused = true)]
async fn race_03_trim_punches_while_writeback_is_in_flight() {
    for point in ["cache:writeback:submit", "cache:writeback:complete"] {
        let race = Race::new(64, 7);
        done(race.write(0, &[9; 2 * PAGE_SIZE])).await;
        race.stop_next(point);
        let flush = race.flush();
        race.stopped(point).await;
        let trim = race.trim(0..PAGE);
        waits(&trim, "a trim of a page in flight").await;
        race.go(point);
        done(flush).await;
        done(trim).await;
        assert_eq!(
            race.backend.volatile()[0],
            0,
            "trimmed data was resurrected"
        );
        assert_eq!(race.bytes(0..3).await, [0, 9, 7]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_03_a_blocker_that_fails_at_once_waits_for_writeback_in_flight_all_the_same() {
    for error in ["EIO", "ENOMEM"] {
        let race = Race::new(64, 7);
        done(race.write(0, &[9; 2 * PAGE_SIZE])).await;
        race.stop_next("cache:writeback:complete");
        let flush = race.flush();
        race.stopped("cache:writeback:complete").await;
        race.faults
            .set_points(&format!("class cache:shoot_down oneshot error {error}"))
            .unwrap();
        let zero = race.zero(0..PAGE);
        waits(&zero, "a zero of a page in flight").await;
        race.go("cache:writeback:complete");
        let errno = Errno::from_name(error).unwrap();
        assert_eq!(outcome(zero).await, Err(errno));
        done(flush).await;
        assert_eq!(race.bytes(0..3).await, [9, 9, 7]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_17_a_flush_waits_for_what_a_blocker_holds() {
    for point in ["cache:discard:submit", "cache:discard:complete"] {
        let race = Race::new(64, 7);
        done(race.write(0, &[9; PAGE_SIZE])).await;
        race.stop_next(point);
        let zero = race.zero(0..PAGE);
        race.stopped(point).await;
        assert_eq!(race.cache.stats().held_pages, 1);
        let flush = race.flush();
        waits(&flush, "a flush of a page that is held").await;
        race.go(point);
        done(flush).await;
        // The power fails now: the page was written, or zeroed, but it is not what it was before.
        let durable = race.backend.durable()[0];
        assert!([0, 9].contains(&durable), "{durable} after a flush");
        done(zero).await;
        assert_eq!(race.bytes(0..1).await, [0]);
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_17_a_flush_covers_what_a_blocker_puts_back() {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    race.faults
        .set_points("class cache:discard:submit oneshot pause error EIO")
        .unwrap();
    let zero = race.zero(0..PAGE);
    race.stopped("cache:discard:submit").await;
    let flush = race.flush();
    waits(&flush, "a flush of a page that is held").await;
    race.go("cache:discard:submit");
    done(flush).await;
    assert_eq!(
        race.backend.durable()[0],
        9,
        "a flush missed what was put back"
    );
    assert_eq!(outcome(zero).await, Err(Errno::EIO));
    race.check_quiescent().await;
}

#[tokio::test(start_paused = true)]
async fn race_17_flush_waits_for_the_page_that_a_resize_cuts() {
    for size in [PAGE / 2, 64 * PAGE] {
        let race = Race::new(64, 7);
        if size > PAGE {
            done(race.resize(PAGE / 2)).await;
        }
        done(race.write(0, &[9; PAGE_SIZE / 2])).await;
        race.backend.behave(Behaviour {
            delay_max: Some(Duration::from_secs(600)),
            ..Behaviour::default()
        });
        let resize = race.resize(size);
        waits(&resize, "a resize whose store takes its time").await;
        race.backend.behave(Behaviour::default());
        let flush = race.flush();
        waits(&flush, "a flush of a page that is held").await;
        done(resize).await;
        done(flush).await;
        assert_eq!(
            race.backend.durable()[0],
            9,
            "a flush missed what was put back"
        );
        race.check_quiescent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn race_18_a_failed_zero_puts_back_what_it_shot_down() {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    // One that is written and not synced, one that is clean.
    let context = race.context(RequestKinds::WRITEBACK);
    _ = race.cache.write_back(&context, 0..1, u64::MAX).await;
    done(race.write(PAGE, &[8; PAGE_SIZE])).await;
    done(race.read(2 * PAGE..3 * PAGE)).await;
    for error in ["EIO", "ENOSPC"] {
        race.faults
            .set_points(&format!("class cache:discard:submit oneshot error {error}"))
            .unwrap();
        let errno = Errno::from_name(error).unwrap();
        assert_eq!(outcome(race.zero(0..3 * PAGE)).await, Err(errno));
        assert_eq!(
            race.bytes(0..3).await,
            [9, 8, 7],
            "acknowledged data is gone"
        );
    }
    done(race.flush()).await;
    let durable = race.backend.durable();
    assert_eq!([durable[0], durable[PAGE_SIZE]], [9, 8]);
    race.check_quiescent().await;
}

/// Two blockers of a dirty page, each of which may fail: they take turns.
async fn two_blockers(fails: [bool; 2]) {
    let race = Race::new(64, 7);
    done(race.write(0, &[9; PAGE_SIZE])).await;
    let point = "cache:discard:submit";
    let stop = |fails: bool| {
        let error = if fails { "error EIO" } else { "" };
        race.faults
            .set_points(&format!("class {point} oneshot pause {error}"))
            .unwrap();
    };
    stop(fails[0]);
    let first = race.zero(0..PAGE);
    race.stopped(point).await;
    let second = race.trim(0..PAGE);
    waits(&second, "a blocker of a page that another holds").await;
    race.go(point);
    stop(fails[1]);
    let expected = fails.map(|fails| if fails { Err(Errno::EIO) } else { Ok(()) });
    assert_eq!(outcome(first).await, expected[0]);
    race.stopped(point).await;
    race.go(point);
    assert_eq!(outcome(second).await, expected[1]);
    let left = if fails == [true, true] { 9 } else { 0 };
    assert_eq!(race.bytes(0..1).await, [left], "{fails:?}");
    race.check_quiescent().await;
    assert_eq!(race.backend.durable()[0], left);
}

#[tokio::test(start_paused = true)]
async fn race_18_a_page_that_two_would_hold_comes_back_only_if_both_fail() {
    for case in 0..4 {
        two_blockers([case & 1 != 0, case & 2 != 0]).await;
    }
}
