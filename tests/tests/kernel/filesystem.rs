//! mkfs, mount, write, fstrim, unmount, restart, fsck, and the files are as they were.

use std::time::Duration;

use weir_tests::guest::Guest;

/// A guest's whole life takes about 20 s on two busy cores.
const GUEST_TIMEOUT: Duration = Duration::from_secs(150);

#[track_caller]
fn lives_on_the_guests_disk(fs: &str) {
    Guest::new(GUEST_TIMEOUT)
        .variable("FS", fs)
        .variable("IMAGE", "/run/disk/image")
        .variable("CAN_PUNCH", 1)
        .run("filesystem");
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn ext4() {
    lives_on_the_guests_disk("ext4");
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn xfs() {
    lives_on_the_guests_disk("xfs");
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn btrfs() {
    lives_on_the_guests_disk("btrfs");
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn ext4_over_a_backing_file_that_can_neither_punch_nor_bypass_the_cache() {
    let guest = Guest::new(GUEST_TIMEOUT);
    let image = guest.host_folder().join("image");
    guest
        .variable("FS", "ext4")
        .variable("IMAGE", image.display())
        .variable("CAN_PUNCH", 0)
        .run("filesystem");
}
