use super::Errno;

#[test]
fn names_and_numbers_round_trip() {
    for (name, errno) in Errno::NAMED {
        assert_eq!(errno.name(), Some(*name));
        assert_eq!(Errno::from_name(name), Some(*errno));
        assert_eq!(errno.to_string(), *name);
    }
    assert_eq!(Errno::from_name("eio"), None);
    assert_eq!(Errno(4095).to_string(), "errno 4095");
}

#[test]
fn numbers_are_those_of_linux() {
    for (errno, number) in [
        (Errno::EIO, 5),
        (Errno::ENOSPC, 28),
        (Errno::ENOTSUP, 95),
        (Errno::ESHUTDOWN, 108),
    ] {
        assert_eq!(errno.0, number);
        assert_eq!(std::io::Error::from(errno).raw_os_error(), Some(number));
    }
    let mut numbers: Vec<i32> = Errno::NAMED.iter().map(|(_, errno)| errno.0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), Errno::NAMED.len(), "a number with two names");
}

#[test]
fn no_number_becomes_success() {
    for number in 1..=Errno::MAX {
        assert_eq!(Errno::of_system(number), Errno(number));
    }
    for number in [0, -5, Errno::MAX + 1, i32::MIN, i32::MAX] {
        assert_eq!(Errno::of_system(number), Errno::EIO);
    }
    let unknown = std::io::Error::from_raw_os_error(524);
    assert_eq!(Errno::from(&unknown), Errno(524));
    for without in [
        std::io::Error::other("no number"),
        std::io::Error::from_raw_os_error(0),
    ] {
        assert_eq!(Errno::from(&without), Errno::EIO);
    }
}
