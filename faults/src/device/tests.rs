use super::{BAD_RANGES_MAX, Device, SECTOR, TooManyBadRanges};
use crate::errno::Errno;
use crate::kind::RequestKind::{Flush, Read, Resize, Trim, Write, Zero};

/// Bounds of the ranges of bad sectors.
fn bad(device: &Device) -> Vec<(u64, u64)> {
    device
        .listing()
        .bad
        .into_iter()
        .map(|range| (range.start, range.end))
        .collect()
}

#[test]
fn a_new_device_takes_everything() {
    let device = Device::new("db");
    for kind in [Read, Write, Trim, Zero, Flush] {
        assert_eq!(device.check(kind, 0, u64::MAX), Ok(()));
    }
    assert_eq!(device.listing().name, "db");
}

#[test]
fn offline_and_read_only() {
    let device = Device::new("");
    device.set_offline(true);
    assert_eq!(device.check(Flush, 0, 0), Err(Errno::EIO));
    device.set_offline(false);
    assert_eq!(device.check(Flush, 0, 0), Ok(()));
    device.set_read_only(true);
    for kind in [Write, Trim, Zero, Resize] {
        assert_eq!(device.check(kind, 0, 1), Err(Errno::EPERM));
    }
    assert_eq!(device.check(Read, 0, 1), Ok(()));
    assert_eq!(device.check(Flush, 0, 0), Ok(()));
    device.set_read_only(false);
    assert_eq!(device.check(Write, 0, 1), Ok(()));
}

#[test]
fn bad_sectors_fail_reads_until_they_are_rewritten_whole() {
    let device = Device::new("");
    device.add_bad(700..1100).expect("few");
    assert_eq!(bad(&device), [(SECTOR, 3 * SECTOR)]);
    assert_eq!(device.check(Read, 0, 512), Ok(()));
    assert_eq!(device.check(Read, 0, 513), Err(Errno::EIO));
    assert_eq!(device.check(Read, 1535, 1), Err(Errno::EIO));
    assert_eq!(device.check(Read, 1536, 4096), Ok(()));
    assert_eq!(device.check(Write, 0, 4096), Ok(()));

    device.rewritten(513, 1022);
    assert_eq!(bad(&device), [(512, 1536)], "neither sector is whole");
    device.rewritten(512, 1000);
    assert_eq!(bad(&device), [(1024, 1536)]);
    device.remove_bad(1030..1031);
    assert_eq!(device.check(Read, 0, 4096), Ok(()));
    assert!(device.listing().bad.is_empty());
}

#[tokio::test]
async fn a_freeze_lasts_until_the_thaw() {
    let device = Device::new("");
    device.thawed().await;
    device.freeze();
    assert!(device.listing().frozen);
    let frozen = device.clone();
    let request = tokio::spawn(async move { frozen.thawed().await });
    tokio::task::yield_now().await;
    assert!(!request.is_finished());
    device.thaw();
    request.await.expect("thawed");
    device.thawed().await;
}

#[test]
fn separate_ranges_are_limited_whoever_makes_them() {
    let device = Device::new("");
    device.add_bad(0..1 << 40).expect("few");
    for number in 0..BAD_RANGES_MAX as u64 + 10 {
        device.rewritten((2 * number + 1) * SECTOR, SECTOR);
    }
    assert_eq!(device.listing().bad.len(), BAD_RANGES_MAX);
    assert_eq!(
        device.check(Read, 1 << 39, 1),
        Err(Errno::EIO),
        "the rest is still bad"
    );
    assert_eq!(device.add_bad(1 << 50..1 << 51), Err(TooManyBadRanges));
}
