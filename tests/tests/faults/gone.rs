//! A client that goes while its change waits: whoever comes next has the last word.

use weir_tests::client::wire::{CMD_CACHE, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES};
use weir_tests::pattern::{assert_same, bytes};
use weir_tests::process::eventually;

use crate::support::{Rig, SOON};

const LENGTH: u32 = 65_536;
/// What a session works on at a time, and some more.
const CROWD: usize = 300;

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_change_of_a_client_that_is_gone_overwrites_nothing_newer() {
    let old = vec![7; LENGTH as usize];
    for (rule, command, payload) in [
        ("write", CMD_WRITE, &old[..]),
        ("trim", CMD_TRIM, &[]),
        ("zero", CMD_WRITE_ZEROES, &[]),
    ] {
        // Also with so much beside it that the server takes no more of the connection.
        for crowd in [0, CROWD] {
            let rig = Rig::with(|builder| builder.option("--cache", "none"));
            rig.add(&format!("{rule} hang times=1"));
            rig.add("cache hang");
            let mut gone = rig.client();
            gone.send(command, 0, 0, LENGTH, payload);
            for _ in 0..crowd {
                gone.send(CMD_CACHE, 0, 0, 4096, &[]);
            }
            eventually("the rule has taken it", SOON, || {
                rig.json("fault list")[0]["fires"] == 1
            });
            drop(gone);
            let mut client = rig.client();
            let new = bytes(1, LENGTH as usize);
            client.write(0, &new).expect("nothing is in its way");
            client.flush().expect("nothing is in its way");
            rig.clear();
            eventually("the other connection is over", SOON, || {
                rig.json("connection list").as_array().map(Vec::len) == Some(1)
            });
            let read = client.read(0, LENGTH).expect("a read");
            assert_same(&read, &new, &format!("{rule} beside {crowd}"));
            rig.finish();
        }
    }
}
