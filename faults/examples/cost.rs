//! What the fault machinery costs a request, for callgrind and for a clock: `cost CASE COUNT` makes COUNT decisions.
//!
//! Run it with two counts under `valgrind --tool=callgrind`; the difference is the instructions of so many decisions.
//! Without valgrind it prints nanoseconds per decision, which a noisy machine makes worth less.

use std::hint::black_box;
use std::time::Instant;

use weir_faults::{FaultContext, Faults, RequestKind, RequestKinds, fault_point};

/// Two points, of which one may be armed.
fn armed_point(context: &FaultContext) -> bool {
    fault_point!(context, "cost:armed").is_err()
}

fn other_point(context: &FaultContext) -> bool {
    fault_point!(context, "cost:other").is_err()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().expect("a case");
    let count: u64 = arguments
        .next()
        .expect("a count")
        .parse()
        .expect("a figure");
    let faults = Faults::new();
    faults.add_device("db");
    let start = Instant::now();
    match case.as_str() {
        "point-disarmed" | "point-other-armed" | "point-armed-never" => {
            points(&faults, &case, count)
        }
        _ => rules(&faults, &case, count),
    }
    let each = start.elapsed().as_nanos() as f64 / count.max(1) as f64;
    println!("{case}: {each:.1} ns");
}

/// Decisions about one connection's reads; with "1000", beside that many others that send nothing now.
fn rules(faults: &Faults, case: &str, count: u64) {
    let rule = match case {
        "disarmed" => None,
        "other-command" => Some("write offset=1M..2M error=EIO"),
        "other-offset" => Some("read offset=1T..2T error=EIO"),
        "other-connection" => Some("read conn=7 error=EIO"),
        "never-fires" => Some("read p=0% error=EIO"),
        "fires" | "fires-among-1000" | "fires-among-1000-noting" => Some("read conn=1 delay=1ms"),
        "fires-among-1000-matched" => Some("any delay=1ms"),
        other => panic!("no case {other}"),
    };
    if let Some(rule) = rule {
        faults.add_rule(rule).expect("a rule");
    }
    if case == "fires-among-1000-matched" {
        faults.add_rule("read conn=7 error=EIO").expect("a rule");
    }
    let others = if case.contains("1000") { 1000 } else { 0 };
    let mut others: Vec<_> = (0..others)
        .map(|other| faults.screen("db", 1000 + other))
        .collect();
    if case == "fires-among-1000-noting" {
        for other in &mut others {
            assert!(other.decide(RequestKind::Read, 0, 4096, false).is_none());
        }
    }
    let mut screen = faults.screen("db", 1);
    let mut fired = 0_u64;
    for number in 0..count {
        let offset = black_box(number % 1024 * 4096);
        let kind = black_box(RequestKind::Read);
        fired += u64::from(screen.decide(kind, offset, 4096, false).is_some());
    }
    let expected = if case.starts_with("fires") { count } else { 0 };
    assert_eq!(black_box(fired), expected);
}

fn points(faults: &Faults, case: &str, count: u64) {
    let arm = match case {
        "point-other-armed" => Some("class cost:armed within write enable"),
        "point-armed-never" => Some("class cost:other probability 0%"),
        _ => None,
    };
    if let Some(arm) = arm {
        faults.set_points(arm).expect("armed");
    }
    let context = faults.context(RequestKinds::READ);
    assert!(!armed_point(&context));
    let mut fired = 0_u64;
    for _ in 0..count {
        fired += u64::from(other_point(black_box(&context)));
    }
    assert_eq!(black_box(fired), 0);
}
