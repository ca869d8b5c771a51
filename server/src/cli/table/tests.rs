use super::*;

#[test]
fn columns_are_as_wide_as_what_is_in_them() {
    let mut table = Table::new([("name", Align::Left), ("size", Align::Right)]);
    table.row(["\u{e9}t\u{e9}".to_owned(), "1".to_owned()]);
    table.row(["database".to_owned(), "12345".to_owned()]);
    assert_eq!(
        table.text(),
        "name       size\n\u{e9}t\u{e9}           1\ndatabase  12345\n"
    );
}

#[test]
fn no_white_space_at_the_end() {
    let mut table = Table::new([("a", Align::Left), ("b", Align::Left)]);
    table.row(["x".to_owned(), String::new()]);
    assert_eq!(table.text(), "a  b\nx\n");
}

#[test]
fn figures() {
    for (count, text) in [
        (0, "0"),
        (1023, "1023"),
        (1024, "1K"),
        (1536, "1.5K"),
        (10 << 20, "10M"),
        (1 << 30, "1G"),
        (u64::MAX, "16E"),
    ] {
        assert_eq!(bytes(count), text);
    }
    assert_eq!(percent(1, 3), "33%");
    assert_eq!(percent(0, 0), "-");
    assert_eq!(percent(u64::MAX, u64::MAX), "100%");
    assert_eq!(name(""), "\"\"");
}

#[test]
fn what_a_terminal_would_obey_is_escaped() {
    let mut table = Table::new([("name", Align::Left), ("size", Align::Right)]);
    let names = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "two\nlines\r",
        "\u{9b}31m",
        "right\u{202e}left",
        "back\\slash",
        "it's \"fine\" \u{e9}-\u{4e16}",
    ];
    for name in names {
        table.row([name.to_owned(), "1".to_owned()]);
    }
    let text = table.text();
    assert_eq!(text.lines().count(), 1 + names.len(), "{text:?}");
    let plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(text.chars().all(plain), "{text:?}");
    for part in [
        "\\u{1b}[2J\\u{1b}]0;owned\\u{7} ",
        "two\\nlines\\r ",
        "\\u{9b}31m ",
        "right\\u{202e}left ",
        "back\\\\slash ",
        "it's \"fine\" \u{e9}-\u{4e16} ",
    ] {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
}
