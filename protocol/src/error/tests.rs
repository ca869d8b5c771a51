use super::*;

#[test]
fn codes_are_those_of_the_protocol() {
    let codes = [
        (NbdError::PERM, 1),
        (NbdError::IO, 5),
        (NbdError::NOMEM, 12),
        (NbdError::INVALID, 22),
        (NbdError::NOSPC, 28),
        (NbdError::OVERFLOW, 75),
        (NbdError::NOTSUP, 95),
        (NbdError::SHUTDOWN, 108),
    ];
    for (error, code) in codes {
        assert_eq!(error.code(), code);
        assert_eq!(NbdError::from_wire(code), Some(error));
        assert_eq!(NbdError::from_os(i32::try_from(code).unwrap()), error);
    }
}

#[test]
fn only_protocol_codes_come_of_error_numbers() {
    for errno in -5..=5000 {
        assert!(NbdError::from_os(errno).symbol().is_some(), "{errno}");
    }
    assert_eq!(NbdError::from_os(27), NbdError::NOSPC, "EFBIG");
    assert_eq!(NbdError::from_os(122), NbdError::NOSPC, "EDQUOT");
    assert_eq!(NbdError::from_os(30), NbdError::PERM, "EROFS");
    assert_eq!(NbdError::from_os(110), NbdError::IO, "ETIMEDOUT");
    assert_eq!(NbdError::from_os(0), NbdError::IO);
}

#[test]
fn unknown_codes_survive() {
    let error = NbdError::from_wire(4242).unwrap();
    assert_eq!(error.code(), 4242);
    assert_eq!(format!("{error:?}"), "NbdError(4242)");
    assert_eq!(
        NbdError::INVALID.to_string(),
        "EINVAL (22): invalid argument"
    );
}

#[test]
fn zero_is_success() {
    assert_eq!(NbdError::from_wire(0), None);
    assert_eq!(wire_code(None), 0);
    assert_eq!(wire_code(Some(NbdError::NOSPC)), 28);
}
