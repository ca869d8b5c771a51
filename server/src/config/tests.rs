use super::*;
use crate::cli::{CacheModeName, IoEngineName};
use crate::size::Size;
use crate::source::Source;

fn parsed(text: &str) -> ServeOptions {
    parse(Path::new("weir.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    parse(Path::new("weir.toml"), text)
        .expect_err(text)
        .to_string()
}

#[test]
fn every_option_has_its_name() {
    let options = parsed(
        r#"
        source = "disk.img"
        size = 1048576
        listen = ["127.0.0.1:0", "unix:/tmp/s"]
        no-admin = true
        cache-size = "64M"
        cache = "writethrough"
        read-only = true
        direct-threshold = "1M"
        quota = "1G"
        io-engine = "threads"
        power-cut = false
        fault = ["read p=1% delay=20ms"]
        run = "true"
        exit-with-parent = true
        max-connections = 7
        handshake-timeout = "3s"
        idle-timeout = "5m"
        write-timeout = "30s"
        allow = ["10.0.0.0/8", "::1"]
        sandbox = "off"
        [[export]]
        name = "db"
        source = "memory:1G"
        read-only = false
        description = "a, b"
        "#,
    );
    assert_eq!(options.size, Some(Size(1 << 20)));
    assert_eq!(options.listen.len(), 2);
    assert_eq!(options.exports.cache, Some(CacheModeName::Writethrough));
    assert_eq!(options.exports.io_engine, Some(IoEngineName::Threads));
    assert_eq!(options.allow.len(), 2);
    assert_eq!(options.export[0].source, source("memory:1G"));
    assert_eq!(options.export[0].description.as_deref(), Some("a, b"));
    assert_eq!(options.export[0].options.read_only, Some(false));
}

#[test]
fn refusals_name_the_line() {
    let text = refusal("size = \"1G\"\ncolour = \"red\"\n");
    assert!(
        text.starts_with("weir.toml:2: ") && text.contains("colour"),
        "{text}"
    );
    let text = refusal("\n\nsize = \"1X\"\n");
    assert!(
        text.starts_with("weir.toml:3: ") && text.contains("1X"),
        "{text}"
    );
    let text = refusal("[[export]]\nname = \"a\"\nsource = \"x\"\ntls = true\n");
    assert!(text.contains("tls"), "{text}");
    assert!(refusal("[[export]]\nname = \"a\"\n").contains("source"));
    assert!(refusal("size = ").lines().count() == 1);
    assert!(
        refusal("config = \"other.toml\"").contains("config"),
        "a file can't include another"
    );
}

#[test]
fn the_command_line_wins() {
    let file = parsed(
        "size = \"1G\"\nquota = \"2G\"\nlisten = [\"h:1\"]\nno-admin = true\nsource = \"f\"",
    );
    let line = ServeOptions {
        size: Some(Size(7)),
        export: vec!["a=x".parse().unwrap()],
        listen: vec!["g:2".parse().unwrap()],
        ..ServeOptions::default()
    };
    let both = line.or(file);
    assert_eq!(
        (both.size, both.exports.quota),
        (Some(Size(7)), Some(Size(2 << 30)))
    );
    assert_eq!(both.listen, ["g:2".parse().unwrap()]);
    assert_eq!(
        both.source, None,
        "exports on the command line replace what the file serves"
    );
    assert_eq!(both.no_admin, Some(true));
}

#[test]
fn a_size_in_the_file_goes_with_the_source_there() {
    let file = || parsed("source = \"f\"\nsize = \"1G\"");
    let line = |words: &str| {
        let (source, export) = (words.parse().ok(), Vec::new());
        ServeOptions {
            source,
            export,
            ..ServeOptions::default()
        }
    };
    assert_eq!(line("g").or(file()).size, None, "another source");
    assert_eq!(ServeOptions::default().or(file()).size, Some(Size(1 << 30)));
}

#[test]
fn refusals_speak_of_the_file() {
    for (text, wanted) in [
        (
            "sise = \"1G\"",
            "weir.toml:1: there is no key \"sise\" here (did you mean \"size\"?); the keys are source, size, ",
        ),
        (
            "read-only = \"yes\"",
            "weir.toml:1: this must be true or false, without quotes, not \"yes\"",
        ),
        (
            "listen = \"127.0.0.1:0\"",
            "weir.toml:1: this must be a list, as in [\"first\", \"second\"], not \"127.0.0.1:0\"",
        ),
        (
            "source = 5",
            "weir.toml:1: this must be a text in quotes, not 5",
        ),
        (
            "max-connections = \"7\"",
            "weir.toml:1: this must be a whole number, without quotes, not \"7\"",
        ),
        (
            "cache = \"fast\"",
            "weir.toml:1: \"fast\" is none of writeback, writethrough, none",
        ),
        (
            "[[export]]\nname = \"a\"",
            "weir.toml:1: this table needs the key \"source\"; each [[export]] has a name and a source",
        ),
        (
            "[export]\nname = \"a\"",
            "weir.toml:1: this must be a list, not one table; an export is written under [[export]]",
        ),
        (
            "export = [1]",
            "weir.toml:1: this must be a table, as under [[export]], not 1",
        ),
    ] {
        let told = refusal(text);
        assert!(told.starts_with(wanted), "{text}: {told}");
        for jargon in ["field", "variant", "type:", "struct", "sequence", "usize"] {
            assert!(!told.contains(jargon), "{text}: {told}");
        }
    }
}

fn source(text: &str) -> Source {
    text.parse().expect("a source")
}
