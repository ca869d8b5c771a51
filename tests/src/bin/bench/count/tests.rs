use super::*;

#[test]
fn the_limits_built_in_cover_every_load() {
    let limits = Limits::parse(include_str!("limits.txt")).unwrap();
    for counted in &COUNTED {
        assert!(limits.of(counted.name).is_some(), "{}", counted.name);
    }
}

#[test]
fn a_line_that_is_not_understood_is_an_error() {
    assert_eq!(
        Limits::parse("read 1 2\n")
            .unwrap()
            .of("read")
            .unwrap()
            .instructions,
        2.0
    );
    for text in [
        "read 1",
        "read 1 2 3",
        "read one 2",
        "read NaN 2",
        "read inf 2",
        "read 1 -2",
    ] {
        assert!(Limits::parse(text).is_err(), "{text}");
    }
}

#[test]
fn totals_are_found_in_what_the_tools_print() {
    let strace = "    calls syscall\n--------- ----------------\n      212 futex\n--------- ----------------\n      340 total\n";
    assert_eq!(calls_of(strace), Some(340));
    assert_eq!(calls_of("nothing"), None);
    let callgrind = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
    assert_eq!(instructions_of(callgrind), Some(123_456));
    assert_eq!(instructions_of(""), None);
}
