use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_cache::{CacheOptions, PageCache};
use weir_faults::Faults;

use super::*;
use crate::backend::MemoryBackend;
use crate::export::Export;

#[tokio::test]
async fn the_export_its_requests_and_its_bytes_are_named() {
    let backend = Arc::new(MemoryBackend::new(1 << 20));
    let options = CacheOptions {
        cache_bytes: 1 << 20,
        ..CacheOptions::default()
    };
    let export = Export {
        name: "db".to_owned(),
        description: String::new(),
        source: "memory:1M".to_owned(),
        cache: PageCache::open(backend, &options, &Faults::new()).unwrap(),
        read_only: false,
        power_cut: None,
        held: Arc::default(),
        remarks: Vec::new(),
    };
    let exports: ExportTable = [export].into_iter().collect();
    let connections = Arc::new(ConnectionTable::new());
    assert!(what(&connections, &exports).contains("0 connections haven't ended"));
    let connection = connections.open("a client".into(), &CancellationToken::new());
    connection.set_export("db");
    connection.counters().set_under_way(3);
    let text = what(&connections, &exports);
    let wanted = "export \"db\" (memory:1M) has 3 requests of clients to answer and 0 bytes (0)";
    assert!(text.starts_with(wanted), "{text}");
}
