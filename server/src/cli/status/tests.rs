use super::*;
use crate::admin::wire::FaultSummary;

fn report() -> StatusReport {
    StatusReport {
        version: "1".to_owned(),
        pid: 7,
        uptime_ms: 61_000,
        exports: Vec::new(),
        connections: Vec::new(),
        faults: FaultSummary {
            rules: 0,
            replay: None,
            points_armed: 0,
            events: 0,
        },
        log_lines_dropped: 0,
    }
}

#[test]
fn a_log_that_nobody_reads_is_said() {
    assert!(!table(&report()).contains("log"));
    let dropping = StatusReport {
        log_lines_dropped: 3,
        ..report()
    };
    assert!(table(&dropping).contains("3 lines of the log were dropped"));
    let dropping = StatusReport {
        log_lines_dropped: 1,
        uptime_ms: 0,
        ..report()
    };
    assert!(table(&dropping).contains("1 line of the log was dropped"));
    assert!(table(&dropping).contains(", up 0s\n"));
}

#[test]
fn a_replay_is_said() {
    let mut replaying = report();
    replaying.faults.replay = Some(ReplayProgress {
        requests: 3,
        left: 2,
    });
    assert!(table(&replaying).contains("replay: 2 of 3 requests are still to come"));
}

#[test]
fn a_store_that_takes_nothing_is_said() {
    let mut export = crate::cli::export::tests::report("db", None);
    export.cache.dirty_pages = 256;
    export.trouble = Some(TroubleReport {
        error: "EIO".to_owned(),
        syncs: false,
        for_ms: 61_234,
        failures: 7,
    });
    let troubled = StatusReport {
        exports: vec![export],
        ..report()
    };
    let wanted = "export \"db\" can't write to its store: EIO, 7 times in 1m 1s; 1M wait\n";
    assert!(table(&troubled).contains(wanted), "{}", table(&troubled));
}
