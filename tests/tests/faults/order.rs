//! What one client's requests and failures do to another's.

use std::sync::atomic::{AtomicBool, Ordering};

use weir_tests::client::Errno;
use weir_tests::client::wire::{CMD_FLAG_FUA, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, EIO};
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::{SetOnDrop, eventually};

use crate::support::{Rig, SOON};

const LENGTH: u32 = 65_536;

/// The store takes its time with a change whose client is gone. Its late end must not undo what another client was told
/// since.
#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_change_that_the_store_delays_overwrites_nothing_newer() {
    let old = vec![7; LENGTH as usize];
    for option in [["--cache", "none"], ["--direct-threshold", "4k"]] {
        for (rule, command, payload) in [
            ("write", CMD_WRITE, &old[..]),
            ("trim", CMD_TRIM, &[]),
            ("zero", CMD_WRITE_ZEROES, &[]),
        ] {
            let rig = Rig::with(|builder| builder.option(option[0], option[1]));
            rig.add(&format!("{rule} at=backend delay=1s times=1"));
            let mut gone = rig.client();
            gone.send(command, 0, 0, LENGTH, payload);
            eventually("the rule has taken it", SOON, || {
                rig.json("fault list")[0]["fires"] == 1
            });
            drop(gone);
            let mut client = rig.client();
            let new = bytes(1, LENGTH as usize);
            client.write(0, &new).expect("a write");
            client.flush().expect("a flush");
            // Whatever is still on its way has arrived when the server has stopped.
            let stored = rig.finish_with_image();
            assert_same(
                &stored[..LENGTH as usize],
                &new,
                &format!("{rule}, {option:?}"),
            );
        }
    }
}

/// One client's page can't be written. Others' writes with FUA, and all of theirs in writethrough mode, are none of its
/// business.
#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_page_that_cant_be_written_fails_nobody_else() {
    const BAD: u64 = 4 << 20;
    let page = [1; 4096];
    for (option, flags) in [
        (["--cache", "writeback"], CMD_FLAG_FUA),
        (["--cache", "writethrough"], 0),
        (["--direct-threshold", "4k"], CMD_FLAG_FUA),
    ] {
        let rig = Rig::with(|builder| builder.option(option[0], option[1]));
        rig.add("write at=backend offset=4M..4100k error=EIO");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut client = rig.client();
            let _ended = SetOnDrop(&done);
            let done = &done;
            let failing = scope.spawn(move || {
                let mut failed = 0;
                while !done.load(Ordering::Relaxed) {
                    // Half a page, so that it is cached whatever the options say.
                    let written = client.write_flags(CMD_FLAG_FUA, BAD, &page[..2048]);
                    failed += u32::from(written == Err(Errno(EIO)));
                    assert_ne!(written, Ok(()), "the page can't be written");
                    assert_eq!(client.flush(), Err(Errno(EIO)));
                }
                failed
            });
            let mut client = rig.client();
            for round in 0..300 {
                let at = (round % 64) * 4096 + if round % 2 == 0 { 0 } else { BAD + 4096 };
                let written = client.write_flags(flags, at, &page);
                assert_eq!(written, Ok(()), "round {round}, {option:?}");
            }
            done.store(true, Ordering::Relaxed);
            assert!(failing.join().expect("it only asserts") > 0);
        });
        rig.finish();
    }
}
