use super::*;

#[test]
fn units_are_binary_in_either_case() {
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("512k", 512 << 10),
        ("512K", 512 << 10),
        ("3M", 3 << 20),
        ("3MiB", 3 << 20),
        ("3mb", 3 << 20),
        ("10G", 10 << 30),
        ("1T", 1 << 40),
        ("15E", 15 << 60),
    ] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
    }
}

#[test]
fn what_is_no_size_is_refused() {
    for text in [
        "", "k", "-1", "1.5G", "10 G", "1X", "1Gi", "1kk", "1é", "+1",
    ] {
        assert_eq!(
            text.parse::<Size>(),
            Err(SizeError::Malformed(text.to_owned())),
            "{text}"
        );
    }
    for text in ["16E", "18446744073709551616", "99999999T"] {
        assert_eq!(
            text.parse::<Size>(),
            Err(SizeError::TooLarge(text.to_owned())),
            "{text}"
        );
    }
}

#[test]
fn what_is_printed_parses_to_the_same() {
    for bytes in [
        0,
        1,
        1023,
        1024,
        1025,
        4096,
        1 << 30,
        (1 << 30) + 512,
        3 << 40,
        u64::MAX,
    ] {
        assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
    }
    assert_eq!(Size(10 << 30).to_string(), "10G");
    assert_eq!(Size(1536).to_string(), "1536");
}
