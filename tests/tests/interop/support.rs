//! A folder, an image in it and a server over it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use weir_tests::server::{Server, ServerBuilder};

/// The size of an image that a test doesn't care about: small, and no multiple of a power of two above 1 MiB.
pub(crate) const IMAGE_BYTES: u64 = 35 << 20;

/// What most tests need.
pub(crate) struct Fixture {
    dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::Builder::new()
                .prefix("weir-interop-")
                .tempdir()
                .expect("a temporary folder"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The image of [`Fixture::builder`].
    pub(crate) fn image(&self) -> PathBuf {
        self.path("disk.img")
    }

    /// A server over a sparse image of [`IMAGE_BYTES`] with a cache that is smaller than it.
    pub(crate) fn builder(&self) -> ServerBuilder {
        ServerBuilder::new(self.dir())
            .file(&self.image(), IMAGE_BYTES)
            .option("--cache-size", "8M")
    }

    #[track_caller]
    pub(crate) fn serve(&self) -> Server {
        self.builder().start()
    }
}

/// A sparse file: data at the start, in the middle and at the very end, of a size that is no multiple of a page.
pub(crate) fn write_sparse_file(path: &Path, seed: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let size = (40 << 20) + 512;
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(size).expect("a length");
    for (offset, len) in [
        (0, 100_000),
        (7 << 20, 3 << 20),
        ((20 << 20) + 4096, 4096),
        (size - 777, 777),
    ] {
        let data = weir_tests::pattern::bytes(seed ^ offset, len);
        file.write_all_at(&data, offset).expect("room on the disk");
    }
    size
}
