use super::{Query, Selection};

/// Every example of the design parses, and prints to something that parses to the same.
#[test]
fn queries_print_what_parses_back() {
    for text in [
        "class cache:race frequency 100",
        "file writeback.rs line 40-80 oneshot",
        "func write_back index 2 enable",
        "module weir_cache disable",
        "class backend probability 5% seed 9 error ENOSPC",
        "class backend probability 5% error ENOSPC",
        "class cache:insert pause",
        "class backend within flush error EIO",
        "class a within flush,trim after 3 times 2 for 10s delay 20ms pause",
        "kind function line 7 error EIO",
    ] {
        let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = query.to_string();
        assert_eq!(
            Query::parse(&printed).as_ref(),
            Ok(&query),
            "{text} printed as {printed}"
        );
    }
    let plain = Query::parse("enable class a").expect("the order is free");
    assert_eq!(plain.to_string(), "class a enable");
}

#[test]
fn every_refusal_names_the_word() {
    for (text, complaint) in [
        ("", "missing what to match"),
        ("enable", "missing what to match"),
        ("class a", "missing what to do"),
        ("class", "after `class`: missing A:B"),
        (
            "class a freqency 3",
            "`freqency`: expected one of class, file,",
        ),
        ("class a frequency", "after `frequency`: missing N"),
        ("class a frequency 0", "`0`: expected a whole number from 1"),
        ("class a frequency x", "`x`: expected a whole number from 1"),
        (
            "class a probability 101%",
            "`101%`: expected a chance of at most 100%",
        ),
        ("class a probability 5", "`5`: expected a chance"),
        ("class a error EWHAT", "`EWHAT`: expected one of EPERM,"),
        (
            "class a within reading error EIO",
            "`reading`: expected one of read, write,",
        ),
        ("class a within flush", "missing what to do"),
        ("class a within", "after `within`: missing"),
        ("class a class b enable", "`class`: given twice"),
        ("class a enable enable", "`enable`: given twice"),
        ("line 80-40 enable", "`80-40`: expected a line"),
        ("line 0 enable", "`0`: expected a line"),
        ("line 5000000000 enable", "`5000000000`: expected a line"),
        (
            "class a index 0 enable",
            "`0`: expected a whole number from 1",
        ),
        (
            "kind frog enable",
            "`frog`: expected one of fault, race, function",
        ),
        ("class a delay 5", "`5`: expected a time"),
        ("class a times 0", "`0`: expected a whole number from 1"),
        (
            "class a oneshot times 3",
            "`times`: oneshot says so already",
        ),
        ("class a enable seed 4", "`seed`: only with probability"),
        ("class a disable pause", "`disable`: stands alone"),
        ("class a within flush disable", "`disable`: stands alone"),
    ] {
        let error = Query::parse(text).expect_err(text).to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
    let error = Selection::parse("within flush")
        .expect_err("no point")
        .to_string();
    assert!(error.contains("`within`: expected one of class"), "{error}");
}
