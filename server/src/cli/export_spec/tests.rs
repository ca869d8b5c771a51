use super::*;
use crate::cli::{CacheModeName, IoEngineName};

fn parsed(text: &str) -> ExportSpec {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_name_and_a_source_suffice() {
    let spec = parsed("db=/srv/db.img");
    assert_eq!(
        (spec.name.as_str(), spec.source),
        ("db", source("/srv/db.img"))
    );
    assert_eq!(spec.size, None);
    assert_eq!(parsed("=x").name, "");
    assert_eq!(parsed("a=file:b=c").source, source("b=c"));
}

#[test]
fn every_key() {
    let text = "db=db.img,size=10G,cache-size=64M,cache=writethrough,read-only,quota=1G,direct-threshold=1M,io-engine=threads,power-cut=false,description=my own, disk";
    assert_eq!(
        text.parse::<ExportSpec>(),
        Err(ExportSpecError::UnknownKey(" disk".to_owned()))
    );
    let spec = parsed(&text.replace(", disk", ",, disk"));
    assert_eq!(
        spec,
        ExportSpec {
            name: "db".to_owned(),
            source: source("db.img"),
            size: Some(Size(10 << 30)),
            description: Some("my own, disk".to_owned()),
            options: ExportOptions {
                cache_size: Some(Size(64 << 20)),
                cache: Some(CacheModeName::Writethrough),
                read_only: Some(true),
                quota: Some(Size(1 << 30)),
                direct_threshold: Some(Size(1 << 20)),
                io_engine: Some(IoEngineName::Threads),
                power_cut: Some(false),
            },
        }
    );
}

#[test]
fn commas_in_a_path_are_doubled() {
    assert_eq!(parsed("a=x,,y,size=1M").source, source("x,y"));
}

#[test]
fn refusals() {
    let error = |text: &str| text.parse::<ExportSpec>().expect_err(text);
    assert_eq!(error("db"), ExportSpecError::NoSource("db".to_owned()));
    assert_eq!(
        error("db=x,colour=red"),
        ExportSpecError::UnknownKey("colour".to_owned())
    );
    assert_eq!(error("db=x,"), ExportSpecError::UnknownKey(String::new()));
    assert_eq!(
        error("db=x,size"),
        ExportSpecError::NoValue {
            key: "size".to_owned()
        }
    );
    assert_eq!(
        error("db=x,size=1G,size=2G"),
        ExportSpecError::Twice("size".to_owned())
    );
    assert!(matches!(error("db="), ExportSpecError::Value { key, .. } if key == "source"));
    assert!(
        matches!(error("db=x,read-only=perhaps"), ExportSpecError::Value { key, .. } if key == "read-only")
    );
    assert!(
        matches!(error("db=x,cache=fast"), ExportSpecError::Value { key, .. } if key == "cache")
    );
}

fn source(text: &str) -> Source {
    text.parse().expect("a source")
}
