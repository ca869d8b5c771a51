use std::time::Duration;

use super::{LanguageError, Size, Time, count, duration, number, percent, range, size};

#[test]
fn sizes() {
    for (word, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("4k", 4096),
        ("4K", 4096),
        ("1M", 1 << 20),
        ("15E", 15 << 60),
    ] {
        assert_eq!(size(word), Ok(bytes), "{word}");
    }
    for word in [
        "",
        "k",
        "-1",
        "+1",
        "1.5k",
        "16E",
        "1m",
        "1kk",
        "18446744073709551616",
        "1 k",
    ] {
        assert!(size(word).is_err(), "{word}");
    }
    for bytes in [0, 1, 512, 1024, 1025, 1 << 20, 3 << 40, u64::MAX, 1 << 63] {
        assert_eq!(size(&Size(bytes).to_string()), Ok(bytes));
    }
    assert_eq!(Size(1 << 20).to_string(), "1M");
}

#[test]
fn ranges_are_half_open_and_not_empty() {
    assert_eq!(range("1M..2M"), Ok(1 << 20..2 << 20));
    for word in ["1M", "2..1", "1..1", "..", "1..", "..1", "1...2"] {
        assert!(range(word).is_err(), "{word}");
    }
}

#[test]
fn durations() {
    for (word, milliseconds) in [
        ("20ms", 20),
        ("5s", 5000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("0s", 0),
    ] {
        assert_eq!(
            duration(word),
            Ok(Duration::from_millis(milliseconds)),
            "{word}"
        );
    }
    for word in [
        "5",
        "s",
        "-5s",
        "1.5s",
        "367000h",
        "99999999999999h",
        "5 s",
        "5S",
    ] {
        assert!(duration(word).is_err(), "{word}");
    }
    for nanoseconds in [0, 1, 1500, 20_000_000, 3_600_000_000_000] {
        let time = Duration::from_nanos(nanoseconds);
        assert_eq!(duration(&Time(time).to_string()), Ok(time));
    }
    assert_eq!(Time(Duration::from_millis(1500)).to_string(), "1500ms");
}

#[test]
fn percentages_and_counts() {
    assert_eq!(percent("5%"), Ok(5.0));
    assert_eq!(percent("0.1%"), Ok(0.1));
    assert_eq!(percent("100%"), Ok(100.0));
    for word in [
        "5", "100.1%", "-1%", "nan%", "inf%", "1e1%", "%", "1.2.3%", ".%",
    ] {
        assert!(percent(word).is_err(), "{word}");
    }
    assert_eq!(number("0"), Ok(0));
    assert!(count("0").is_err());
    assert!(number("+1").is_err());
}

#[test]
fn errors_name_the_word_and_what_was_expected() {
    let error = percent("150%").expect_err("too much");
    assert_eq!(
        error.to_string(),
        "`150%`: expected a chance of at most 100%, such as 5% or 0.1%"
    );
    assert_eq!(
        LanguageError::missing("error", "a name").to_string(),
        "after `error`: missing a name"
    );
}
