//! What the table shows.

use super::*;
use crate::admin::wire::{CacheReport, SpaceReport, Traffic};

pub(in crate::cli) fn report(name: &str, space: Option<SpaceReport>) -> ExportReport {
    ExportReport {
        name: name.to_owned(),
        description: String::new(),
        source: "disk.img".to_owned(),
        size: 10 << 30,
        read_only: false,
        power_cut: false,
        trouble: None,
        connections: 2,
        traffic: Traffic::default(),
        space,
        cache: CacheReport::default(),
        held_bytes: 0,
        device: weir_faults::Faults::new().add_device(name).listing(),
    }
}

#[test]
fn a_quota_is_shown_where_there_is_one() {
    let thin = SpaceReport {
        quota: 1 << 30,
        used: 256 << 20,
        free: 768 << 20,
    };
    let text = table(&[report("plain", None), report("thin", Some(thin))]);
    let words: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[0][3..7], ["used", "of", "quota", "free"]);
    assert_eq!(words[1][3..5], ["-", "-"]);
    assert_eq!(words[2][3..7], ["256M", "of", "1G", "768M"]);
}

#[test]
fn those_who_are_attached_keep_the_old_size() {
    let text = resized(&report("db", None), &report("db", None));
    assert!(text.contains("2 connections keep the old size"), "{text}");
    let mut alone = report("db", None);
    alone.connections = 0;
    assert_eq!(resized(&alone, &alone), "");
}
