use super::*;

#[test]
fn ticks_are_found_behind_any_name() {
    let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
    assert_eq!(processor_ticks(stat), Some(300));
    assert_eq!(processor_ticks("7 (a) S 1"), None);
}

#[test]
fn resident_memory_is_in_bytes() {
    assert_eq!(
        resident_of("Name:\tx\nVmRSS:\t    12 kB\nVmSwap: 0 kB\n"),
        Some(12 << 10)
    );
    assert_eq!(resident_of("Name:\tx\n"), None);
}

#[test]
fn this_process_used_some_time() {
    let before = Usage::of(std::process::id());
    let start = Instant::now();
    let mut sum = 0_u64;
    while start.elapsed() < Duration::from_millis(50) {
        sum = std::hint::black_box(sum.wrapping_add(1));
    }
    let used = Usage::of(std::process::id()).since(before).unwrap();
    assert!(used >= Duration::from_millis(10), "{used:?}");
}

#[test]
fn a_program_that_ends_is_not_waited_for() {
    let address = Address::Unix("/nonexistent/socket".into());
    let error = Server::start(&mut Command::new("false"), address)
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.to_string().contains("ended before it listened"),
        "{error}"
    );
}
