use super::*;

const COST: Cost = Cost {
    system_calls: 1.0,
    instructions: 1000.0,
    allocations: 0.5,
};

#[test]
fn the_limits_built_in_cover_every_load() {
    let limits = Limits::parse(include_str!("limits.txt")).unwrap();
    for counted in &COUNTED {
        assert!(limits.of(counted.name).is_some(), "{}", counted.name);
    }
}

#[test]
fn a_line_that_is_not_understood_is_an_error() {
    assert_eq!(
        Limits::parse("read 1 1000 0.5 # why\n").unwrap().of("read"),
        Some(COST)
    );
    for text in [
        "read",
        "read 1 2",
        "read 1 2 3 4",
        "read one 2 3",
        "read NaN 2 3",
        "read inf 2 3",
        "read 1 -2 3",
        "read 1 2 3\nread 1 2 3",
    ] {
        assert!(Limits::parse(text).is_err(), "{text}");
    }
}

#[test]
fn every_figure_can_be_over_its_limit() {
    let judge = |cost| judge("weir", "read", cost, COST);
    assert!(judge(COST).within);
    let dear = [
        Cost {
            system_calls: 1.1,
            ..COST
        },
        Cost {
            instructions: 1100.0,
            ..COST
        },
        Cost {
            allocations: 0.6,
            ..COST
        },
    ];
    for cost in dear {
        let line = judge(cost);
        assert!(!line.within && show(&line).contains("OVER"), "{cost:?}");
        assert!(!within(&[judge(COST), line]));
    }
}

#[test]
fn totals_are_found_in_what_the_tools_print() {
    let summary = "    calls syscall\n--------- ----------------\n      212 futex\n      100 epoll_wait\n--------- ----------------\n      340 total\n";
    assert_eq!(strace::calls_of(summary), Some(240));
    assert_eq!(strace::calls_of("      340 total\n"), Some(340));
    let failing = "        7         2 epoll_wait\n      340        12 total\n";
    assert_eq!(strace::calls_of(failing), Some(333));
    assert_eq!(strace::calls_of("nothing"), None);
    assert_eq!(
        callgrind::instructions_of("events: Ir\n\ntotals: 123456\n"),
        Some(123_456)
    );
    assert_eq!(callgrind::instructions_of(""), None);
}

#[test]
fn a_refusal_of_io_uring_is_told_from_its_use() {
    let refusal = |lines: &str| strace::refusal_of_io_uring(&format!("{lines}  340  12 total\n"));
    assert_eq!(refusal(""), None);
    assert_eq!(
        refusal("    1      io_uring_setup\n  9  io_uring_enter\n"),
        None
    );
    // The first kind of ring is too new for the kernel, the second isn't.
    assert_eq!(refusal("    2   1  io_uring_setup\n"), None);
    assert_eq!(
        refusal("    2   2  io_uring_setup\n"),
        Some("io_uring_setup")
    );
    let forbidden = "    1      io_uring_setup\n  1  1  io_uring_enter\n";
    assert_eq!(refusal(forbidden), Some("io_uring_enter"));
}

#[test]
fn allocations_are_the_calls_of_the_allocator() {
    let profile = "fn=(1) main\n1 2\ncfn=(2) malloc\ncalls=7 0\n1 2\ncfn=(3) free\ncalls=9 0\n1 2\n\nfn=(3)\n1 2\n\
                   cfn=(2)\ncalls=4 0\n1 2\nfn=(4) calloc\n1 2\n\nfn=(1)\ncfn=(4)\ncalls=1 0\n1 2\n";
    assert_eq!(callgrind::allocations_of(profile), Some(12));
    assert_eq!(
        callgrind::allocations_of(&profile.replace("alloc", "other")),
        None
    );
}
