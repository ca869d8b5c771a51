use std::path::PathBuf;

use weir_cache::CacheMode;
use weir_faults::Faults;

use super::*;
use crate::backend::file::Engine;
use crate::settings::ExportSettings;
use crate::size::Size;
use crate::source::Source;

fn settings(source: Source) -> ExportSettings {
    ExportSettings {
        name: "db".to_owned(),
        description: "a disk".to_owned(),
        source,
        size: None,
        create_size: None,
        cache_bytes: 1 << 20,
        mode: CacheMode::Writeback,
        read_only: false,
        direct_threshold: None,
        quota: None,
        engine: Engine::default(),
        power_cut: false,
        keys: false,
    }
}

fn memory() -> ExportSettings {
    settings(Source::Memory(Size(1 << 20)))
}

#[tokio::test]
async fn flags_are_what_works() {
    let export = open(&memory(), &Faults::new()).unwrap();
    let flags = export.transmission_flags(false);
    for flag in [
        TransmissionFlags::HAS_FLAGS,
        TransmissionFlags::SEND_FLUSH,
        TransmissionFlags::SEND_FUA,
        TransmissionFlags::SEND_TRIM,
        TransmissionFlags::SEND_WRITE_ZEROES,
        TransmissionFlags::SEND_FAST_ZERO,
        TransmissionFlags::CAN_MULTI_CONN,
        TransmissionFlags::SEND_CACHE,
    ] {
        assert!(flags.contains(flag), "{flag:?} in {flags:?}");
    }
    for flag in [
        TransmissionFlags::READ_ONLY,
        TransmissionFlags::ROTATIONAL,
        TransmissionFlags::SEND_DF,
        TransmissionFlags::SEND_RESIZE,
    ] {
        assert!(!flags.contains(flag), "{flag:?} in {flags:?}");
    }
    assert!(
        export
            .transmission_flags(true)
            .contains(TransmissionFlags::SEND_DF)
    );
}

#[tokio::test]
async fn a_read_only_export_offers_no_change() {
    let export = open(
        &ExportSettings {
            read_only: true,
            ..memory()
        },
        &Faults::new(),
    )
    .unwrap();
    let flags = export.transmission_flags(true);
    assert!(flags.contains(TransmissionFlags::READ_ONLY));
    assert!(!flags.contains(TransmissionFlags::SEND_TRIM));
    assert!(!flags.contains(TransmissionFlags::SEND_WRITE_ZEROES));
}

#[tokio::test]
async fn the_table_answers_the_handshake() {
    let table: ExportTable = [open(&memory(), &Faults::new()).unwrap()]
        .into_iter()
        .collect();
    let info = table.find("db").unwrap();
    assert_eq!(
        (info.name.as_str(), info.description.as_str(), info.size),
        ("db", "a disk", 1 << 20)
    );
    assert!(table.find("").is_err());
    assert!(table.get("db").is_some());
    let mut listed = Vec::new();
    table
        .list(&mut |name, description| listed.push((name.to_owned(), description.to_owned())))
        .unwrap();
    assert_eq!(listed, [("db".to_owned(), "a disk".to_owned())]);
}

#[tokio::test]
async fn refusals() {
    let faults = Faults::new();
    let error = open(
        &ExportSettings {
            size: Some(Size(1)),
            ..memory()
        },
        &faults,
    )
    .unwrap_err();
    assert!(
        matches!(error, OpenExportError::MemorySize { .. }),
        "{error}"
    );
    let error = open(&settings(Source::Memory(Size(0))), &faults).unwrap_err();
    assert!(
        matches!(error, OpenExportError::MemoryUnusable(_)),
        "{error}"
    );
    let error = open(
        &settings(Source::File(PathBuf::from("/no/such/file"))),
        &faults,
    )
    .unwrap_err();
    assert!(matches!(error, OpenExportError::File(_)), "{error}");
}

#[tokio::test]
async fn the_first_try_is_created_once_and_then_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.img");
    let first_try = ExportSettings {
        create_size: Some(Size(1 << 20)),
        ..settings(Source::File(path.clone()))
    };
    drop(open(&first_try, &Faults::new()).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, [1; 5000]).unwrap();
    let export = open(&first_try, &Faults::new()).unwrap();
    assert_eq!(export.cache.size(), 5000);
}
