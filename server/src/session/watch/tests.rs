use super::*;

fn watch(idle: Option<u64>, write: u64) -> Watch {
    let timeouts = Timeouts {
        handshake: Duration::ZERO,
        idle: idle.map(Duration::from_secs),
        write: Duration::from_secs(write),
    };
    Watch::new(&timeouts)
}

const STILL: Activity = Activity {
    short: false,
    ahead: false,
    short_ahead: false,
    room: 0,
    room_ahead: 0,
    refusals: 0,
    requests: 3,
    received: 9,
    sent: 9,
    pending: false,
    busy: false,
};

#[tokio::test]
async fn a_client_that_takes_nothing_stalls() {
    let mut watch = watch(None, 4);
    let waiting = Activity {
        pending: true,
        ..STILL
    };
    let ticks: Vec<_> = (0..5).map(|_| watch.judge(waiting)).collect();
    assert_eq!(
        ticks,
        [
            Tick::Nothing,
            Tick::Nothing,
            Tick::Nothing,
            Tick::Nothing,
            Tick::Stalled
        ]
    );
    // One byte begins it anew.
    assert_eq!(
        watch.judge(Activity {
            sent: 10,
            ..waiting
        }),
        Tick::Nothing
    );
}

#[tokio::test]
async fn only_a_quiet_connection_is_idle() {
    let mut watch = watch(Some(2), 60);
    let tick = watch.tick;
    assert!(tick <= Duration::from_secs(1));
    let ticks = 2 * Duration::from_secs(2).as_millis() / tick.as_millis();
    for count in 0..ticks {
        let busy = Activity {
            busy: true,
            ..STILL
        };
        assert_eq!(watch.judge(busy), Tick::Nothing, "{count}");
    }
    assert_eq!(watch.judge(STILL), Tick::Quiet);
    assert!((0..ticks).any(|_| watch.judge(STILL) == Tick::Idle));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go_when_memory_is_short() {
    let mut watch = watch(None, 60);
    let waiting = Activity {
        pending: true,
        ..STILL
    };
    let short = Activity {
        short: true,
        ..waiting
    };
    assert_eq!(watch.judge(waiting), Tick::Nothing);
    assert_eq!(watch.judge(waiting), Tick::Nothing);
    // Others don't wait for a client that sends.
    assert_eq!(watch.judge(Activity { sent: 10, ..short }), Tick::Nothing);
    assert_eq!(watch.judge(Activity { sent: 10, ..short }), Tick::Nothing);
    assert_eq!(watch.judge(Activity { sent: 10, ..short }), Tick::Hoarding);
}

/// A client that takes nothing at all doesn't get the time that a slow one has.
#[tokio::test]
async fn who_takes_nothing_while_memory_is_short_is_let_go_soon() {
    let mut watch = watch(None, 60);
    let short = Activity {
        pending: true,
        short: true,
        ..STILL
    };
    assert_eq!(watch.judge(short), Tick::Nothing);
    for _ in 1..HOARDING_TICKS {
        assert_eq!(watch.judge(short), Tick::Nothing);
    }
    assert_eq!(watch.judge(short), Tick::Hoarding);
}

/// Ticks of a watch until it reports something other than nothing or quiet; at most a minute.
fn judged(watch: &mut Watch, mut now: Activity, next: impl Fn(&mut Activity)) -> Option<Tick> {
    watch.judge(now);
    let ticks = Duration::from_secs(60).as_millis() / watch.tick.as_millis();
    (0..ticks).find_map(|_| {
        next(&mut now);
        let tick = watch.judge(now);
        (!matches!(tick, Tick::Nothing | Tick::Quiet)).then_some(tick)
    })
}

#[tokio::test]
async fn who_sends_too_little_of_what_memory_is_kept_for_is_let_go_if_others_want_it() {
    let ahead = Activity {
        ahead: true,
        ..STILL
    };
    for (bytes_a_second, hoards) in [
        (0, true),
        (1, true),
        (PACE_BYTES_MIN - 1, true),
        (PACE_BYTES_MIN * 3 / 2, false),
        (64 << 10, false),
    ] {
        let mut refused = watch(None, 60);
        let found = judged(&mut refused, ahead, |now| {
            now.received += bytes_a_second;
            now.refusals += 1;
        });
        assert_eq!(
            found,
            hoards.then_some(Tick::HoardingAhead),
            "{bytes_a_second}"
        );
        assert!(!hoards || refused.kept_ahead() >= PACE_WINDOW);
        let mut short = watch(None, 60);
        let found = judged(&mut short, ahead, |now| {
            now.received += bytes_a_second;
            now.short_ahead = true;
        });
        assert_eq!(
            found,
            hoards.then_some(Tick::HoardingAhead),
            "{bytes_a_second}"
        );
        // No request wants the memory, or the client has none.
        let mut alone = watch(None, 60);
        let found = judged(&mut alone, ahead, |now| now.received += bytes_a_second);
        assert_eq!(found, None);
        let mut without = watch(None, 60);
        let found = judged(&mut without, STILL, |now| {
            now.received += bytes_a_second;
            now.refusals += 1;
        });
        assert_eq!(found, None);
    }
}

#[tokio::test]
async fn one_refusal_in_a_while_is_enough() {
    // At every position in the window.
    for phase in 0..PACE_WINDOW.as_secs() {
        let mut watch = watch(None, 60);
        let mut now = Activity {
            ahead: true,
            ..STILL
        };
        let mut ticks = 0;
        while watch.judge(now) != Tick::HoardingAhead {
            now.refusals += u64::from(ticks % PACE_WINDOW.as_secs() == phase);
            ticks += 1;
            assert!(ticks < 60, "it is never let go");
        }
    }
}

/// What the client did before it gave the memory back doesn't matter.
#[tokio::test]
async fn memory_that_is_kept_anew_is_judged_anew() {
    let mut watch = watch(None, 60);
    let tick = watch.tick;
    let mut ahead = Activity {
        ahead: true,
        ..STILL
    };
    let mut judge = |watch: &mut Watch, keeps| {
        ahead.ahead = keeps;
        ahead.refusals += 1;
        watch.judge(ahead)
    };
    let ticks = PACE_WINDOW.as_millis() / tick.as_millis() - 1;
    for _ in 0..2 {
        for _ in 0..ticks {
            assert_ne!(judge(&mut watch, true), Tick::HoardingAhead);
        }
        assert_ne!(judge(&mut watch, false), Tick::HoardingAhead);
        assert_eq!(watch.kept_ahead(), Duration::ZERO);
    }
    for _ in 0..ticks {
        assert_ne!(judge(&mut watch, true), Tick::HoardingAhead);
    }
    assert_eq!(judge(&mut watch, true), Tick::HoardingAhead);
}

/// A network that stands still for a while doesn't make a hoarder.
#[tokio::test]
async fn a_pause_that_is_made_up_for_is_forgiven() {
    let mut watch = watch(None, 60);
    let mut now = Activity {
        ahead: true,
        ..STILL
    };
    for tick in 0..60_u64 {
        now.refusals += 1;
        now.received += if tick % 4 == 3 { 4 * PACE_BYTES_MIN } else { 0 };
        // A window of five ticks always has one of the bursts, and a burst is less than the window asks for.
        now.received += PACE_BYTES_MIN / 4;
        let found = watch.judge(now);
        assert!(matches!(found, Tick::Nothing | Tick::Quiet), "{tick}");
    }
}

#[tokio::test]
async fn who_takes_a_byte_a_second_is_let_go_when_memory_is_short() {
    for (bytes_a_second, hoards) in [(1, true), (64 << 10, false)] {
        let mut watch = watch(None, 60);
        let slow = Activity {
            pending: true,
            short: true,
            ..STILL
        };
        let found = judged(&mut watch, slow, |now| now.sent += bytes_a_second);
        assert_eq!(found, hoards.then_some(Tick::Hoarding));
    }
}

#[tokio::test]
async fn a_byte_a_second_is_idle_and_a_request_or_a_steady_payload_is_not() {
    for (bytes_a_second, requests, idle) in [
        (0, 0, true),
        (1, 0, true),
        (PACE_BYTES_MIN / 2, 0, true),
        (PACE_BYTES_MIN * 2, 0, false),
        (28, 1, false),
    ] {
        let mut watch = watch(Some(5), 60);
        let found = judged(&mut watch, STILL, |now| {
            now.received += bytes_a_second;
            now.requests += requests;
        });
        assert_eq!(found, idle.then_some(Tick::Idle), "{bytes_a_second}");
    }
}
