use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn options(words: &str) -> ServeOptions {
    let words = ["weir", "serve"]
        .into_iter()
        .chain(words.split_whitespace());
    match Cli::try_parse_from(words)
        .unwrap_or_else(|error| panic!("{error}"))
        .command
    {
        Command::Serve(options) => *options,
        other => panic!("{other:?}"),
    }
}

fn settings(words: &str) -> Settings {
    Settings::resolve(options(words)).unwrap_or_else(|error| panic!("{words}: {error}"))
}

fn refusal(words: &str) -> String {
    Settings::resolve(options(words))
        .expect_err(words)
        .to_string()
}

#[test]
fn nothing_said_is_a_first_try() {
    let settings = settings("");
    let [export] = &settings.exports[..] else {
        panic!("{:?}", settings.exports)
    };
    assert_eq!(export.name, "");
    assert_eq!(export.source, source("weir.img"));
    assert_eq!(
        (export.size, export.create_size),
        (None, Some(Size(1 << 30)))
    );
    assert!(settings.memory.is_some());
    assert!(export.cache_bytes >= CACHE_BYTES_MIN);
}

#[test]
fn a_named_source_is_not_created_without_a_size() {
    let export = &settings("disk.img").exports[0];
    assert_eq!((export.size, export.create_size), (None, None));
    let export = &settings("--size 5G").exports[0];
    assert_eq!(
        (export.size, export.create_size),
        (Some(Size(5 << 30)), None)
    );
}

#[test]
fn exports_without_source_leave_the_default_out() {
    let names = |words| {
        settings(words)
            .exports
            .into_iter()
            .map(|export| export.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("--export a=memory:1M --export b=memory:1M"),
        ["a", "b"]
    );
    assert_eq!(names("x.img --export a=memory:1M"), ["", "a"]);
}

#[test]
fn the_servers_options_are_the_exports_defaults() {
    let settings = settings(
        "--cache-size 8M --cache none --read-only --direct-threshold 1M \
         --export a=x --export b=y,cache-size=16M,cache=writeback,read-only=false,size=3G,direct-threshold=4M",
    );
    let [a, b] = &settings.exports[..] else {
        panic!("{:?}", settings.exports)
    };
    assert_eq!(
        (a.cache_bytes, a.mode, a.read_only),
        (8 << 20, CacheMode::None, true)
    );
    assert_eq!((a.direct_threshold, a.size), (Some(1 << 20), None));
    assert_eq!(
        (b.cache_bytes, b.mode, b.read_only),
        (16 << 20, CacheMode::Writeback, false)
    );
    assert_eq!(
        (b.direct_threshold, b.size),
        (Some(4 << 20), Some(Size(3 << 30)))
    );
    assert!(settings.memory.is_none(), "nobody uses the default");
}

#[test]
fn a_size_belongs_to_the_source_beside_it() {
    let sizes = |words| -> Vec<_> {
        let exports = settings(words).exports;
        exports.iter().map(|export| export.size).collect()
    };
    let (one, two) = (Some(Size(1 << 20)), Some(Size(2 << 20)));
    assert_eq!(sizes("x --size 1M --export a=y"), [one, None]);
    assert_eq!(sizes("x --export a=y,size=2M --size 1M"), [one, two]);
    assert_eq!(sizes("--export a=y,size=2M"), [two]);
    let text = refusal("--size 1M --export a=y");
    assert!(text.contains("--export NAME=SOURCE,size=1M"), "{text}");
}

#[test]
fn memory_beside_a_file_keeps_its_own_size() {
    let sizes = |words| -> Vec<_> {
        let exports = settings(words).exports;
        exports.iter().map(|export| export.size).collect()
    };
    let (one, two) = (Some(Size(1 << 20)), Some(Size(2 << 20)));
    assert_eq!(sizes("x --size 1M --export a=memory:2M"), [one, None]);
    // A size for one export, rather than for all, is a contradiction that the opening of the store refuses.
    assert_eq!(sizes("memory:1M --size 2M"), [two]);
    assert_eq!(sizes("--export a=memory:1M,size=2M"), [two]);
}

#[test]
fn contradictions_are_refused_by_name() {
    assert!(refusal("x --export =y").contains("export \"\" is named twice"));
    assert!(refusal("--export a=x --export a=y").contains("export \"a\" is named twice"));
    assert!(refusal("--cache-size 512k").contains("512K"));
    assert!(refusal("--export a=x,cache-size=1").contains("\"a\""));
    assert!(refusal("--cache-size 100T").contains("at most 8T"));
    assert!(refusal("--listen h:1 --listen h:1").contains("h:1 is to be listened on twice"));
    assert!(refusal("--listen unix:s --admin unix:s").contains("unix:s"));
    assert_eq!(settings("--listen h:0 --listen h:0").listen.len(), 2);
    assert!(refusal("--max-connections 0").contains("--max-connections"));
    assert!(refusal(&format!("--export {}=x", "n".repeat(4097))).contains("4097"));
    assert!(refusal("--sandbox on").contains("--sandbox"));
}

#[test]
fn power_cuts_are_asked_for_by_export_or_for_all() {
    let of = |words| -> Vec<_> {
        let exports = settings(words).exports;
        exports.iter().map(|export| export.power_cut).collect()
    };
    assert_eq!(of("x --export a=y,power-cut"), [false, true]);
    assert_eq!(
        of("x --power-cut --export a=y,power-cut=false"),
        [true, false]
    );
}

#[test]
fn the_admin_port_is_its_owners_unless_told_otherwise() {
    assert_eq!(settings("").admin, AdminPort::OwnersSocket);
    assert_eq!(settings("--no-admin").admin, AdminPort::Closed);
    let elsewhere = Address::Unix("/run/a".into());
    assert_eq!(
        settings("--admin unix:/run/a").admin,
        AdminPort::At(elsewhere)
    );
}

#[test]
fn times() {
    let times = settings("--handshake-timeout 3s --idle-timeout 5m --write-timeout 200ms").timeouts;
    assert_eq!(
        (
            times.handshake.as_secs(),
            times.idle.unwrap().as_secs(),
            times.write.as_millis()
        ),
        (3, 300, 200)
    );
    assert_eq!(settings("").timeouts, Timeouts::default());
}

fn source(text: &str) -> Source {
    text.parse().expect("a source")
}
