//! A server that is about to be mistreated.

use tempfile::TempDir;
use weir_tests::server::{Server, ServerBuilder};

/// The export's size.
pub(crate) const EXPORT_BYTES: u64 = 64 << 20;
/// What the server may cache; the bound on its memory below is made of it.
const CACHE_BYTES: u64 = 16 << 20;
/// What a server may use besides its cache: code, stacks, buffers of a handful of connections.
const OVERHEAD_KIB: u64 = 48 << 10;

/// A server, its folder, and what must hold of it at the end.
pub(crate) struct Victim {
    pub(crate) server: Server,
    _dir: TempDir,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("weir-hostile-")
            .tempdir()
            .expect("a temporary folder");
        let builder = ServerBuilder::new(dir.path())
            .file(&dir.path().join("disk.img"), EXPORT_BYTES)
            .option("--cache-size", CACHE_BYTES);
        Self {
            server: change(builder).start(),
            _dir: dir,
        }
    }

    /// Panics unless the server serves, never used more memory than it may, and stops with 0.
    #[track_caller]
    pub(crate) fn survived(self) {
        self.server.assert_serving();
        let (peak, bound) = (
            self.server.memory().peak_kib,
            (CACHE_BYTES >> 10) + OVERHEAD_KIB,
        );
        assert!(
            peak <= bound,
            "the server's memory peaked at {peak} KiB; {bound} is the bound"
        );
        self.server.stop_clean();
    }
}
