//! Rules with `at=backend`: what the cache makes of a store that fails.

use weir_tests::client::Errno;
use weir_tests::client::wire::{EIO, ENOSPC};
use weir_tests::pattern::{assert_same, bytes};

use crate::support::{Rig, differing_bits};

const LENGTH: u32 = 65_536;

fn data() -> Vec<u8> {
    bytes(1, LENGTH as usize)
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_flush_tells_what_writeback_met_and_keeps_the_data() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.only("write at=backend export= error=ENOSPC");
    client.write(0, &data()).expect("memory takes it");
    for _ in 0..2 {
        assert_eq!(client.flush(), Err(Errno(ENOSPC)));
    }
    assert_same(&client.read(0, LENGTH).expect("a read"), &data(), "kept");
    rig.clear();
    client.flush().expect("the store is well again");
    rig.ok("export drop-cache \"\"");
    assert_same(&client.read(0, LENGTH).expect("a read"), &data(), "stored");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_sync_that_fails_fails_the_flush() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &data()).expect("a write");
    rig.only("flush at=backend first=1 error=EIO");
    assert_eq!(client.flush(), Err(Errno(EIO)));
    client.flush().expect("the second one");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn reads_that_miss_the_cache() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &data()).expect("a write");
    rig.only("read at=backend error=EIO");
    assert_same(&client.read(0, LENGTH).expect("a hit"), &data(), "a hit");
    rig.ok("export drop-cache \"\"");
    assert_eq!(client.read(0, LENGTH), Err(Errno(EIO)));
    rig.only("read at=backend corrupt=bits:1");
    let read = client.read(0, 4096).expect("a miss");
    assert_eq!(differing_bits(&read, &data()[..4096]), 1);
    rig.clear();
    rig.ok("export drop-cache \"\"");
    assert_same(&client.read(0, LENGTH).expect("a read"), &data(), "stored");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_store_that_loses_and_tears_what_it_acknowledges() {
    let rig = Rig::new();
    let mut client = rig.client();
    for (rule, kept) in [
        ("write at=backend lose", 0),
        ("write at=backend tear=5000", 5000),
    ] {
        client.write_zeroes(0, 0, LENGTH).expect("zeroes");
        client.flush().expect("a flush");
        rig.only(rule);
        client.write(0, &data()).expect("a write");
        client.flush().expect("acknowledged");
        rig.clear();
        rig.ok("export drop-cache \"\"");
        let stored = client.read(0, LENGTH).expect("a read");
        assert_same(&stored[..kept], &data()[..kept], rule);
        assert!(stored[kept..].iter().all(|byte| *byte == 0), "{rule}");
    }
    rig.finish();
}
