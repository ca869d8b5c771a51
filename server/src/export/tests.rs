use weir_cache::CacheMode;
use weir_faults::Faults;

use super::*;
use crate::backend::file::{Engine, OpenFileError};
use crate::backend::scheme::SizeRefused;
use crate::settings::ExportSettings;
use crate::size::Size;

fn settings(source: &str) -> ExportSettings {
    ExportSettings {
        name: "db".to_owned(),
        description: "a disk".to_owned(),
        source: source.parse().expect("a source"),
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
    settings("memory:1M")
}

#[tokio::test]
async fn flags_are_what_works() {
    let export = open(&memory(), &Faults::new()).await.unwrap();
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
    .await
    .unwrap();
    let flags = export.transmission_flags(true);
    assert!(flags.contains(TransmissionFlags::READ_ONLY));
    assert!(!flags.contains(TransmissionFlags::SEND_TRIM));
    assert!(!flags.contains(TransmissionFlags::SEND_WRITE_ZEROES));
}

#[tokio::test]
async fn the_table_answers_the_handshake() {
    let table: ExportTable = [open(&memory(), &Faults::new()).await.unwrap()]
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

fn cause<E: std::error::Error + 'static>(error: &OpenExportError) -> Option<&E> {
    match error {
        OpenExportError::Store(error) => error.downcast_ref(),
        _ => None,
    }
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
    .await
    .unwrap_err();
    assert!(
        matches!(cause(&error), Some(SizeRefused::Contradiction { .. })),
        "{error}"
    );
    let error = open(&settings("memory:0"), &faults).await.unwrap_err();
    assert!(
        matches!(cause(&error), Some(SizeRefused::Unusable(_))),
        "{error}"
    );
    let error = open(&settings("/no/such/file"), &faults).await.unwrap_err();
    assert!(cause::<OpenFileError>(&error).is_some(), "{error}");
}

#[tokio::test]
async fn the_first_try_is_created_once_and_then_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weir.img");
    let first_try = ExportSettings {
        create_size: Some(Size(1 << 20)),
        ..settings(path.to_str().expect("a name"))
    };
    drop(open(&first_try, &Faults::new()).await.unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, [1; 5000]).unwrap();
    let export = open(&first_try, &Faults::new()).await.unwrap();
    assert_eq!(export.cache.size(), 5000);
}
