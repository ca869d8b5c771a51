use std::time::Duration;

use super::*;

#[test]
fn latencies_fall_into_powers_of_two() {
    for (micros, bucket) in [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 3),
        (1023, 10),
        (1024, 11),
        (u64::MAX, LATENCY_BUCKETS - 1),
    ] {
        assert_eq!(
            counts::latency_bucket(Duration::from_micros(micros)),
            bucket,
            "{micros}"
        );
    }
}

#[test]
fn a_closed_connection_leaves_its_counts() {
    let table = Arc::new(ConnectionTable::new());
    let shutdown = CancellationToken::new();
    let (first, second) = (
        table.open("a".into(), &shutdown),
        table.open("b".into(), &shutdown),
    );
    for connection in [&first, &second] {
        connection.set_export("disk");
        let took = Duration::from_micros(17);
        connection.counters().count(0, 2, 1024, 1, took);
    }
    assert_eq!((first.id(), second.id(), table.len()), (1, 2, 2));
    assert_eq!(table.export_counts("disk").requests(), 4);
    drop(first);
    assert_eq!(
        (table.len(), table.export_counts("disk").requests()),
        (1, 4)
    );
    assert_eq!(table.export_counts("disk").errors(), 2);
    let reads = table.export_counts("disk").commands[0];
    assert_eq!((reads.latency[5], reads.latency_sum), (4, 4 * 17_000));
    assert_eq!(table.export_counts("other"), Counts::default());
}

#[test]
fn a_shutdown_is_no_kill() {
    let table = Arc::new(ConnectionTable::new());
    let shutdown = CancellationToken::new();
    let connection = table.open("a".into(), &shutdown);
    shutdown.cancel();
    assert!(connection.stop().is_cancelled() && !connection.is_killed());
    assert!(table.kill(connection.id()) && connection.is_killed());
    assert!(!table.kill(99));
}
