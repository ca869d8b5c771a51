//! Errors, power cuts and stops under the kernel's file systems.

use std::time::Duration;

use weir_tests::environment::number;
use weir_tests::guest::Guest;

/// Boot, and about 12 s for each cut on two busy cores.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
const CUT_TIMEOUT: Duration = Duration::from_secs(45);
/// Power cuts in every run of the tests. `WEIR_POWER_CUT_SEEDS` asks for more (25: these and twenty others),
/// `WEIR_POWER_CUT_SEED` for others, from that seed on.
const SEEDS: u64 = 5;
const FIRST_SEED: u64 = 1;
/// Cuts in one guest: enough to spread its boot, few enough for two guests to share the work.
const SEEDS_PER_GUEST: usize = 5;

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn write_errors_reach_ext4_and_a_remount_after_them_works() {
    Guest::new(BOOT_TIMEOUT).run("write-errors");
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_stop_under_load_answers_no_request_with_an_error() {
    let console = Guest::new(BOOT_TIMEOUT)
        .variable("LOAD", env!("CARGO_BIN_EXE_fsync-load"))
        .run("stop-under-load");
    println!("{console}");
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn every_fsynced_file_is_whole_after_a_power_cut() {
    let first = number("WEIR_POWER_CUT_SEED").unwrap_or(FIRST_SEED);
    let seeds = first..first + number("WEIR_POWER_CUT_SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<String> = seeds.map(|seed| seed.to_string()).collect();
    for some in seeds.chunks(SEEDS_PER_GUEST) {
        let cuts = u32::try_from(some.len()).expect("a few");
        let console = Guest::new(BOOT_TIMEOUT + CUT_TIMEOUT * cuts)
            .variable("SEEDS", some.join(" "))
            .variable("LOAD", env!("CARGO_BIN_EXE_fsync-load"))
            .run("power-cut");
        println!("{console}");
    }
}
