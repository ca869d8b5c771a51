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
}
