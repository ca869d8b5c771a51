//! Other descriptors stand for other programs here: OFD locks don't know processes.

use tempfile::TempDir;

use super::*;

struct Image {
    folder: TempDir,
}

impl Image {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("x.img"), [0; 4096]).expect("a file");
        Self { folder }
    }

    fn open(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(self.folder.path().join("x.img"))
            .expect("opened")
    }

    fn lock(&self, writable: bool) -> Result<Descriptor, OpenFileError> {
        let path = self.folder.path().join("x.img");
        lock(&path, self.open(), writable)
    }

    /// Another program with locks of this kind on these bytes.
    fn other(&self, kind: libc::c_int, bytes: &[libc::off_t]) -> File {
        let file = self.open();
        for byte in bytes {
            fcntl(&file, FcntlArg::F_OFD_SETLK(&range(kind, *byte))).expect("locked");
        }
        file
    }
}

/// A virtual machine's disk, qemu-nbd, and `qemu-img convert` reading.
const MACHINE: &[libc::off_t] = &[100, 101, 103, 201, 203];
const QEMU_NBD: &[libc::off_t] = &[100, 101, 203];
const READER: &[libc::off_t] = &[100, 201, 203];

#[test]
fn nobody_serves_what_qemu_writes() {
    for bytes in [MACHINE, QEMU_NBD] {
        let image = Image::new();
        let qemu = image.other(libc::F_RDLCK, bytes);
        for writable in [false, true] {
            let error = image.lock(writable).expect_err("refused");
            assert!(
                matches!(error, OpenFileError::WrittenByQemu { .. }),
                "{error}"
            );
        }
        drop(qemu);
        drop(image.lock(true).expect("free again"));
    }
}

#[test]
fn readers_share_and_keep_writers_out() {
    let image = Image::new();
    let qemu = image.other(libc::F_RDLCK, READER);
    let ours = image.lock(false).expect("both read");
    let error = image.lock(true).expect_err("refused");
    // The reader's flock is what refuses first.
    assert!(matches!(error, OpenFileError::InUse { .. }), "{error}");
    drop(ours);
    let error = image.lock(true).expect_err("refused");
    assert!(matches!(error, OpenFileError::ReadByQemu { .. }), "{error}");
    drop(qemu);
}

#[test]
fn others_see_what_is_served() {
    for (writable, taken) in [
        (true, &[100, 101, 103, 201, 203][..]),
        (false, &[100, 201, 203]),
    ] {
        let image = Image::new();
        let served = image.lock(writable).expect("free");
        // This is what the buffered and the direct descriptor of one file do.
        drop(image.open());
        let other = image.open();
        for byte in (95..110).chain(195..210) {
            let expected = taken.contains(&byte);
            assert_eq!(is_locked(&other, byte), Ok(expected), "byte {byte}");
        }
        drop(served);
        assert!((95..210).all(|byte| is_locked(&other, byte) == Ok(false)));
    }
}

#[test]
fn a_lock_on_the_whole_file_keeps_everybody_out() {
    let image = Image::new();
    let file = image.open();
    let mut whole = range(libc::F_WRLCK, 0);
    whole.l_len = 0;
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).expect("locked");
    for writable in [false, true] {
        assert!(matches!(
            image.lock(writable),
            Err(OpenFileError::WrittenByQemu { .. })
        ));
    }
}
