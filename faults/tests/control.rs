//! The points' control language against points of every kind.

use std::time::Duration;

use weir_faults::{
    Device, Errno, FaultContext, Faults, Firing, RequestKinds, error_injectable, fault_point,
    pause_point, race_fault,
};

/// Points of every kind, whose classes no other test of this file uses under one registry.
struct Sample(FaultContext);

impl Sample {
    fn of(faults: &Faults) -> Self {
        Self(faults.context(RequestKinds::WRITE))
    }

    fn first(&self) -> Result<(), Errno> {
        fault_point!(self.0, "control:first", [ENOMEM, EIO])
    }

    fn second(&self) -> Result<(), Errno> {
        fault_point!(self.0, "control:second", [EIO])
    }

    fn race(&self) -> bool {
        race_fault!(self.0)
    }

    async fn wait(&self) -> Result<(), Errno> {
        pause_point!(self.0, "control:waits:here", [EIO, ENOSPC]).await
    }

    #[error_injectable(ctx = self.0, errors(ENOSPC, EIO), class = "control:function")]
    async fn write_back(&self) -> Result<u32, Errno> {
        Ok(7)
    }
}

/// Which of `count` hits fire.
fn firings(count: usize, mut hit: impl FnMut() -> bool) -> Vec<usize> {
    (1..=count).filter(|_| hit()).collect()
}

fn state(faults: &Faults, class: &str) -> (String, u64, u64) {
    let points = faults.points(&format!("class {class}")).expect("a point");
    assert_eq!(points.len(), 1);
    (points[0].state.clone(), points[0].hits, points[0].fires)
}

#[test]
fn a_disarmed_registry_counts_nothing() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    for _ in 0..10 {
        assert_eq!(sample.first(), Ok(()));
        assert!(!sample.race());
    }
    assert_eq!(state(&faults, "control:first"), ("off".to_owned(), 0, 0));
}

#[test]
fn hits_are_counted_at_every_point_while_one_is_armed() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    assert_eq!(faults.set_points("class control:first enable"), Ok(1));
    assert_eq!(sample.first(), Err(Errno::ENOMEM));
    assert_eq!(sample.second(), Ok(()));
    assert_eq!(state(&faults, "control:first"), ("enable".to_owned(), 1, 1));
    assert_eq!(state(&faults, "control:second"), ("off".to_owned(), 1, 0));
    assert_eq!(faults.set_points("class control:first disable"), Ok(1));
    assert_eq!(sample.first(), Ok(()));
    assert_eq!(state(&faults, "control:first"), ("off".to_owned(), 1, 1));
    assert_eq!(faults.reset_points(), 0);
    assert_eq!(state(&faults, "control:first"), ("off".to_owned(), 0, 0));
}

#[test]
fn two_registries_share_nothing() {
    let (one, other) = (Faults::new(), Faults::new());
    one.set_points("class control enable").expect("armed");
    assert_eq!(Sample::of(&one).first(), Err(Errno::ENOMEM));
    assert_eq!(Sample::of(&other).first(), Ok(()));
    assert_eq!(state(&other, "control:first"), ("off".to_owned(), 0, 0));
}

#[test]
fn triggers_fire_at_the_hits_they_name() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    for (action, expected) in [
        ("enable", vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("oneshot", vec![1]),
        ("frequency 3", vec![3, 6, 9]),
        ("times 2", vec![1, 2]),
        ("after 6", vec![7, 8, 9]),
        ("after 1 frequency 3", vec![4, 7]),
        ("frequency 2 times 3", vec![2, 4, 6]),
        ("after 4 oneshot", vec![5]),
        ("probability 100%", vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("probability 0%", vec![]),
    ] {
        faults
            .set_points(&format!("class control:first {action}"))
            .expect(action);
        assert_eq!(firings(9, || sample.first().is_err()), expected, "{action}");
    }
    faults.reset_points();
    faults
        .set_points("class control:first oneshot")
        .expect("armed");
    assert!(sample.first().is_err());
    assert_eq!(
        state(&faults, "control:first"),
        ("off".to_owned(), 1, 1),
        "a oneshot disarms itself"
    );
}

#[test]
fn a_chance_is_repeated_by_its_seed_and_differs_between_points() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    let run = |seed: u32| {
        faults
            .set_points(&format!(
                "class control probability 50% seed {seed} error EIO kind fault"
            ))
            .expect("armed");
        (
            firings(64, || sample.first().is_err()),
            firings(64, || sample.second().is_err()),
        )
    };
    let once = run(1);
    assert_eq!(once, run(1));
    assert_ne!(once, run(2));
    assert_ne!(once.0, once.1);
    assert!((16..48).contains(&once.0.len()), "{}", once.0.len());
}

#[test]
fn a_seed_left_out_is_shown_and_repeats_the_sequence() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    faults
        .set_points("class control:first probability 50%")
        .expect("armed");
    let shown = state(&faults, "control:first").0;
    assert!(shown.starts_with("probability 50% seed "), "{shown}");
    let drawn = firings(64, || sample.first().is_err());
    faults
        .set_points(&format!("class control:first {shown}"))
        .expect("armed again");
    assert_eq!(firings(64, || sample.first().is_err()), drawn);
}

#[tokio::test(start_paused = true)]
async fn for_ends_by_the_clock() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    faults
        .set_points("class control:first for 10s")
        .expect("armed");
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert!(sample.first().is_err());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(sample.first().is_ok());
    assert_eq!(state(&faults, "control:first").0, "off");
}

#[test]
fn within_knows_the_request() {
    let faults = Faults::new();
    faults
        .set_points("class control:first within flush error EIO")
        .expect("armed");
    assert_eq!(Sample::of(&faults).first(), Ok(()));
    let pass = Sample(faults.context(RequestKinds::FLUSH | RequestKinds::WRITE));
    assert_eq!(pass.first(), Err(Errno::EIO));
    assert_eq!(
        state(&faults, "control:first"),
        ("within flush error EIO".to_owned(), 2, 1)
    );
}

#[tokio::test]
async fn races_and_functions_fire() {
    let faults = Faults::new();
    let sample = Sample::of(&faults);
    faults
        .set_points("class faults:race module control frequency 2")
        .expect("armed");
    assert_eq!(firings(4, || sample.race()), [2, 4]);
    faults
        .set_points("func write_back kind function enable")
        .expect("armed");
    assert_eq!(sample.write_back().await, Err(Errno::ENOSPC));
    faults
        .set_points("func Sample::write_back error EIO")
        .expect("armed");
    assert_eq!(sample.write_back().await, Err(Errno::EIO));
    faults.reset_points();
    assert_eq!(sample.write_back().await, Ok(7));
}

#[test]
fn selections_match_by_whole_words() {
    let faults = Faults::new();
    let count = |matches: &str| faults.points(matches).map(|points| points.len());
    assert_eq!(count("class control"), Ok(4));
    assert_eq!(count("class control:waits"), Ok(1));
    assert_eq!(count("class control index 2"), Ok(1));
    assert_eq!(count("class control kind function"), Ok(1));
    assert_eq!(count("file control.rs module control"), Ok(5));
    assert_eq!(count("file tests/control.rs func first"), Ok(1));
    let nth = faults.points("class control index 2").expect("a point");
    assert_eq!(nth[0].class, "control:second");
    let line = nth[0].line;
    assert_eq!(count(&format!("line {line}")), Ok(1));
    assert_eq!(count(&format!("line {}-{line}", line - 4)), Ok(2));
    for nothing in [
        "class contro",
        "class control:wait",
        "file ontrol.rs",
        "module contro",
        "class control index 5",
        "func irst",
    ] {
        let error = count(nothing).expect_err(nothing).to_string();
        let complaint = format!("`{nothing}`: matches no point");
        assert!(error.starts_with(&complaint), "{error}");
    }
}

#[test]
fn what_a_point_cannot_do_is_refused_and_nothing_is_half_applied() {
    let faults = Faults::new();
    for (text, complaint) in [
        ("class control error ENOSPC", "`ENOSPC`: the point at"),
        ("class control pause", "`pause`: the point at"),
        ("class control:first delay 1s", "`delay`: the point at"),
        ("class faults:race module control error EIO", "allows none"),
        ("class nowhere enable", "`class nowhere`: matches no point"),
        ("release class nowhere", "matches no point"),
        ("release enable", "`enable`: expected one of class"),
        ("reset class control", "`reset`: stands alone"),
    ] {
        let error = faults.set_points(text).expect_err(text).to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
    let points = faults.points("").expect("all");
    assert!(
        points.iter().all(|point| point.state == "off"),
        "{points:?}"
    );
}

#[tokio::test]
async fn a_pause_lasts_until_its_release() {
    let faults = Faults::new();
    faults
        .set_points("class control:waits pause error ENOSPC")
        .expect("armed");
    let paused = |faults: &Faults| {
        let sample = Sample::of(faults);
        tokio::spawn(async move { sample.wait().await })
    };
    let (first, second) = (paused(&faults), paused(&faults));
    assert_eq!(
        faults.paused_at_least("class control:waits", 2).await,
        Ok(2)
    );
    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(faults.release("class control:waits"), Ok(2));
    assert_eq!(first.await.expect("joined"), Err(Errno::ENOSPC));
    assert_eq!(second.await.expect("joined"), Err(Errno::ENOSPC));

    // What is released is counted out, and the point stays armed. Disabling releases, too.
    assert_eq!(
        faults.points("class control:waits").expect("listed")[0].paused,
        0
    );
    let third = paused(&faults);
    assert_eq!(faults.paused("class control:waits").await, Ok(1));
    faults
        .set_points("class control:waits disable")
        .expect("disarmed");
    assert_eq!(third.await.expect("joined"), Err(Errno::ENOSPC));
}

#[tokio::test]
async fn a_oneshot_pause_holds_one_and_lets_the_next_pass() {
    let faults = Faults::new();
    faults
        .set_points("class control:waits oneshot pause")
        .expect("armed");
    let sample = Sample::of(&faults);
    let held = tokio::spawn(async move { sample.wait().await });
    assert_eq!(faults.paused("class control:waits").await, Ok(1));
    assert_eq!(Sample::of(&faults).wait().await, Ok(()));
    assert!(!held.is_finished());
    assert_eq!(faults.set_points("release class control:waits"), Ok(1));
    assert_eq!(held.await.expect("joined"), Ok(()));
}

#[tokio::test]
async fn a_dropped_future_is_no_longer_paused() {
    let faults = Faults::new();
    faults
        .set_points("class control:waits pause")
        .expect("armed");
    let sample = Sample::of(&faults);
    let held = tokio::spawn(async move { sample.wait().await });
    assert_eq!(faults.paused("class control:waits").await, Ok(1));
    held.abort();
    assert!(held.await.expect_err("aborted").is_cancelled());
    assert_eq!(
        faults.points("class control:waits").expect("listed")[0].paused,
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_delay_ends_by_the_clock_or_by_release() {
    let faults = Faults::new();
    faults
        .set_points("class control:waits delay 5s")
        .expect("armed");
    let start = tokio::time::Instant::now();
    assert_eq!(Sample::of(&faults).wait().await, Ok(()));
    assert_eq!(start.elapsed(), Duration::from_secs(5));

    let sample = Sample::of(&faults);
    let delayed = tokio::spawn(async move { sample.wait().await });
    tokio::task::yield_now().await;
    faults.release("").expect("all");
    assert_eq!(delayed.await.expect("joined"), Ok(()));
    assert!(start.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn an_interrupted_device_ends_its_pauses_and_no_others() {
    let faults = Faults::new();
    faults
        .set_points("class control:waits pause")
        .expect("armed");
    let (one, other) = (faults.add_device("one"), faults.add_device("other"));
    let pause = |device: &Device| {
        let sample = Sample(faults.context(RequestKinds::READ).on(device));
        tokio::spawn(async move { sample.wait().await })
    };
    let (first, second) = (pause(&one), pause(&other));
    assert_eq!(
        faults.paused_at_least("class control:waits", 2).await,
        Ok(2)
    );
    one.interrupt();
    assert_eq!(first.await.expect("joined"), Ok(()));
    assert!(!second.is_finished());
    assert_eq!(
        faults.points("class control:waits").expect("listed")[0].paused,
        1
    );
    faults.reset_points();
    assert_eq!(second.await.expect("joined"), Ok(()));
}

#[test]
fn firings_of_points_are_events() {
    let faults = Faults::new();
    faults
        .set_points("class control:first frequency 2")
        .expect("armed");
    let sample = Sample(faults.context(RequestKinds::FLUSH));
    assert_eq!(firings(4, || sample.first().is_err()), [2, 4]);
    let events = faults.events_since(0);
    assert_eq!((events.len(), faults.newest_event()), (2, 2));
    let Firing::Point(point) = &events[1].firing else {
        panic!("a point's event")
    };
    assert_eq!(
        (point.class.as_str(), point.function.as_str(), point.fire),
        ("control:first", "first", 2)
    );
    assert_eq!(
        (point.within.as_str(), point.action.as_str()),
        ("flush", "frequency 2")
    );
    assert!(faults.events_since(2).is_empty());
}

#[test]
fn listings_have_the_fields_that_scripts_rely_on() {
    let faults = Faults::new();
    let listing = faults.points("class control:first").expect("listed");
    let json = serde_json::to_value(&listing[0]).expect("json");
    for field in [
        "file", "line", "function", "module", "class", "kind", "errors", "hits", "fires", "state",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(json["errors"], serde_json::json!(["ENOMEM", "EIO"]));
    assert_eq!(json["kind"], "fault");
    let place = format!(
        "{}:{} Sample::first control:first fault ENOMEM,EIO hits=0 fires=0 state=off",
        file!(),
        listing[0].line
    );
    assert_eq!(listing[0].to_string(), place);
}
