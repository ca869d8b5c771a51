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
    // One that sends is not what others wait for.
    assert_eq!(watch.judge(Activity { sent: 10, ..short }), Tick::Nothing);
    assert_eq!(watch.judge(Activity { sent: 10, ..short }), Tick::Nothing);
    assert_eq!(watch.judge(Activity { sent: 10, ..short }), Tick::Hoarding);
}
