//! The export as a device that fails.

use weir_tests::client::Errno;
use weir_tests::client::wire::*;
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::eventually;

use crate::support::Rig;
use crate::support::SOON;

const LENGTH: u32 = 16_384;

fn data() -> Vec<u8> {
    bytes(1, LENGTH as usize)
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn offline_until_online() {
    let rig = Rig::new();
    let (mut client, mut other) = (rig.client(), rig.client_of("db"));
    client.write(0, &data()).expect("a write");
    rig.ok("device offline \"\"");
    let fails = Err(Errno(EIO));
    assert_eq!(client.read(0, 512).map(drop), fails);
    assert_eq!(client.write(0, &[9; 512]), fails);
    assert_eq!(client.flush(), fails);
    assert_eq!(client.trim(0, 0, 4096), fails);
    assert_eq!(client.write_zeroes(0, 0, 4096), fails);
    other.read(0, 512).expect("another export is well");
    assert!(rig.ok("status").contains("is offline"));
    rig.ok("device online \"\"");
    let read = client.read(0, LENGTH).expect("it is back");
    assert_same(&read, &data(), "untouched");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn frozen_until_thawed() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &data()).expect("a write");
    rig.ok("device freeze \"\"");
    let cookies = [
        client.send(CMD_READ, 0, 0, LENGTH, &[]),
        client.send(CMD_WRITE, 0, 0, 512, &[7; 512]),
        client.send(CMD_FLUSH, 0, 0, 0, &[]),
    ];
    // They hold nothing: another export, the list and the admin port go on.
    let mut other = rig.client_of("db");
    other.read(0, 512).expect("another export is well");
    other.write(0, &[1; 512]).expect("another export is well");
    rig.ok("export list");
    assert!(rig.ok("status").contains("is frozen"));
    rig.ok("device thaw \"\"");
    let replies = client.receive_all(&cookies);
    assert!(replies.values().all(|reply| reply.error.is_none()));
    assert_eq!(client.read(0, 512), Ok(vec![7; 512]));
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_frozen_device_that_goes_offline_fails_what_waited() {
    let rig = Rig::new();
    let mut client = rig.client();
    rig.ok("device freeze \"\"");
    client.send(CMD_READ, 0, 0, 512, &[]);
    eventually("the server has it", SOON, || {
        rig.json("connection list")[0]["traffic"]["received"]
            .as_u64()
            .is_some_and(|count| count >= 28)
    });
    rig.ok("device offline \"\"");
    rig.ok("device thaw \"\"");
    assert_eq!(client.receive().error, Some(Errno(EIO)));
    rig.ok("device online \"\"");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn bad_sectors_until_they_are_rewritten() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &data()).expect("a write");
    // It touches the sectors from 1024 to 2560.
    rig.ok("device bad \"\" add 1500..2100");
    let bad = |client: &mut weir_tests::client::Client, sector: u64| {
        client.read(sector * 512, 512).is_err()
    };
    let all = |client: &mut weir_tests::client::Client| -> Vec<u64> {
        (0..8).filter(|sector| bad(client, *sector)).collect()
    };
    assert_eq!(all(&mut client), [2, 3, 4]);
    assert_eq!(client.read(0, LENGTH), Err(Errno(EIO)), "a part is enough");
    assert!(client.read(2560, 4096).is_ok());
    // A part of a sector doesn't heal it; the whole of it does.
    client.write(1024, &[5; 100]).expect("writes are remapped");
    assert_eq!(all(&mut client), [2, 3, 4]);
    client.write(1024, &[5; 512]).expect("writes are remapped");
    assert_eq!(all(&mut client), [3, 4]);
    client.write_zeroes(0, 1536, 512).expect("as are zeroes");
    assert_eq!(all(&mut client), [4]);
    rig.ok("device bad \"\" rm 2048..2049");
    assert!(all(&mut client).is_empty());
    let read = client.read(0, LENGTH).expect("all of it");
    assert_same(&read[2048..], &data()[2048..], "what was never rewritten");
    assert_same(&read[1024..1536], &[5; 512], "what was");
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn read_only_until_it_is_not() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &data()).expect("a write");
    rig.ok("device read-only \"\" on");
    let fails = Err(Errno(EPERM));
    assert_eq!(client.write(0, &[9; 512]), fails);
    assert_eq!(client.trim(0, 0, 4096), fails);
    assert_eq!(client.write_zeroes(0, 0, 4096), fails);
    assert_eq!(client.flush(), Ok(()));
    assert_same(&client.read(0, LENGTH).expect("a read"), &data(), "reads");
    rig.ok("device read-only \"\" off");
    client.write(0, &[9; 512]).expect("it is writable again");
    rig.finish();
}
