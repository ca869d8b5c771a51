use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;

#[test]
fn what_has_no_pages_is_named_all_the_same() {
    let dirty = |bytes, unsynced| Dirty(vec![("db".to_owned(), bytes, unsynced)]).to_string();
    assert_eq!(
        dirty(4096, true),
        "not durable: 4096 bytes (4K) of export \"db\""
    );
    assert_eq!(
        dirty(0, true),
        "not durable: what the store of export \"db\" has taken since its last sync"
    );
    assert_eq!(Dirty(Vec::new()).to_string(), "nothing was dirty");
}

/// Otherwise a connection whose client takes nothing of what it is sent would be served by a closed store.
#[tokio::test(start_paused = true)]
async fn who_does_not_end_in_time_is_closed_before_the_exports() {
    let connections = Arc::new(ConnectionTable::new());
    let (sessions, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let connection = connections.open("a client".into(), &shutdown);
    sessions.spawn(async move {
        connection.kill_token().cancelled().await;
        drop(connection);
    });
    shutdown.cancel();
    let exports = ExportTable::default();
    let finished = tokio::time::timeout(
        DRAIN_TIMEOUT + Duration::from_secs(1),
        finish_in_order(&sessions, &connections, &exports),
    );
    assert!(finished.await.expect("it ends").is_ok());
    assert!(connections.is_empty() && sessions.is_empty());
}

#[test]
fn a_full_store_at_the_end_is_said_with_what_to_do() {
    let failed = |errno| {
        let error = CloseError::Flush {
            errno,
            dirty_bytes: 4096,
        };
        StopError::Close(Failures(vec![("db".to_owned(), error)])).to_string()
    };
    let full = failed(Errno::ENOSPC);
    assert!(full.contains("4096 bytes are not durable"), "{full}");
    assert!(full.contains("Make room where the image lies"), "{full}");
    assert!(!failed(Errno::EIO).contains("Make room"));
}
