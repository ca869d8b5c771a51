use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use tempfile::TempDir;
use weir_cache::{ExtentKind, PAGE_SIZE};

use super::*;
use crate::backend::testing::{Bench, pattern, run_model, steps};

const PAGE_BYTES: u64 = PAGE_SIZE as u64;

/// The file systems that these tests run on: the usual one, and one without zero range.
fn folders() -> Vec<TempDir> {
    let shared_memory = Path::new("/dev/shm");
    let mut folders = vec![tempfile::tempdir().expect("a folder")];
    if shared_memory.is_dir() {
        folders.push(tempfile::tempdir_in(shared_memory).expect("a folder"));
    }
    folders
}

fn open_file(path: &Path, size: Option<u64>, access: Access) -> FileBackend {
    FileBackend::open(
        path,
        &FileOptions {
            size,
            access,
            engine: Engine::Auto,
        },
    )
    .unwrap_or_else(|error| panic!("{error}"))
}

fn create(folder: &TempDir, size: u64) -> (PathBuf, FileBackend) {
    let path = folder.path().join("device.img");
    let backend = open_file(&path, Some(size), Access::ReadWrite);
    (path, backend)
}

/// The same without direct I/O, as where the file system has none.
fn without_direct(mut backend: FileBackend) -> FileBackend {
    let file = Arc::get_mut(&mut backend.file).expect("nothing runs yet");
    file.direct = None;
    file.direct_works = AtomicBool::new(false);
    backend
}

fn without_ring(mut backend: FileBackend) -> FileBackend {
    backend.ring = None;
    backend
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn behaves_as_a_flat_vector(steps in steps(40), way in 0..3) {
        let size = 40 * PAGE_BYTES - 1000;
        let runtime = runtime();
        let _entered = runtime.enter();
        for folder in folders() {
            let (_, backend) = create(&folder, size);
            let backend = match way {
                0 => backend,
                1 => without_ring(backend),
                _ => without_direct(backend),
            };
            runtime.block_on(run_model(&Bench::new(backend), size, &steps));
        }
    }
}

#[tokio::test]
async fn an_end_inside_a_page_is_written_and_read_exactly() {
    for size in [1, 511, 4095, 4097, 3 * PAGE_BYTES + 700] {
        for folder in folders() {
            let (path, backend) = create(&folder, size);
            let bench = Bench::new(backend);
            let bytes = pattern(5, usize::try_from(size).unwrap());
            bench.write(0, &bytes).await.unwrap();
            let pages = bytes.len().div_ceil(PAGE_SIZE);
            // Also one page more than there is.
            let mut expected = bytes.clone();
            expected.resize((pages + 1) * PAGE_SIZE, 0);
            assert!(
                bench.read(0, pages + 1).await.unwrap() == expected,
                "{size}"
            );
            bench.sync().await.unwrap();
            assert!(
                std::fs::read(&path).unwrap() == bytes,
                "the file has exactly {size} bytes"
            );
        }
    }
}

#[tokio::test]
async fn long_transfers_take_several_calls() {
    for folder in folders() {
        let pages = 2 * crate::limits::IO_SLICES_MAX + 3;
        let (_, backend) = create(&folder, (pages * PAGE_SIZE) as u64);
        let bench = Bench::new(backend);
        let bytes = pattern(9, pages * PAGE_SIZE);
        // More than IOV_MAX pieces; then each piece is given back as it is written, or frames would run out.
        bench.write(0, &bytes).await.unwrap();
        let mut read = bench.read(0, pages / 2).await.unwrap();
        let rest = (pages / 2) as u64 * PAGE_BYTES;
        read.extend(bench.read(rest, pages - pages / 2).await.unwrap());
        assert!(read == bytes);
    }
}

#[tokio::test]
async fn odd_pieces_go_through_the_buffered_descriptor() {
    for folder in folders() {
        let (_, backend) = create(&folder, 4 * PAGE_BYTES);
        let bench = Bench::new(backend);
        let bytes = pattern(2, 2 * PAGE_SIZE);
        // Pieces of 1000 and 4096 and 3096 bytes: the middle one is a whole page at an odd offset.
        let mut data = bench.refs(&bytes[..1000]);
        data.append(bench.refs(&bytes[1000..1000 + PAGE_SIZE]));
        data.append(bench.refs(&bytes[1000 + PAGE_SIZE..]));
        bench.backend.write(PAGE_BYTES, data).await.unwrap();
        assert!(bench.read(PAGE_BYTES, 2).await.unwrap() == bytes);
    }
}

/// A descriptor on which `preadv` and `pwritev` are `EINVAL`, as on a file system that has `O_DIRECT` in name only: a
/// character device for ioctls.
fn refusing_descriptor() -> Option<File> {
    let devices = [
        "/dev/loop-control",
        "/dev/kvm",
        "/dev/autofs",
        "/dev/btrfs-control",
    ];
    let mut opened = devices.iter().filter_map(|path| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .ok()
    });
    opened.find(|file| {
        nix::sys::uio::pwritev(file, &[std::io::IoSlice::new(&[0])], 0)
            == Err(nix::errno::Errno::EINVAL)
    })
}

#[tokio::test]
async fn refused_direct_io_goes_on_buffered() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut backend) = create(&folder, 8 * PAGE_BYTES);
    let Some(refusing) = refusing_descriptor() else {
        eprintln!("skipped: no device here refuses reads and writes");
        return;
    };
    let file = Arc::get_mut(&mut backend.file).unwrap();
    file.direct = Some(refusing);
    file.direct_works = AtomicBool::new(true);
    let file = Arc::clone(&backend.file);
    let bench = Bench::new(backend);
    let bytes = pattern(4, 8 * PAGE_SIZE);
    bench.write(0, &bytes).await.unwrap();
    assert!(bench.read(0, 8).await.unwrap() == bytes);
    assert!(
        !file.direct_works.load(Ordering::Relaxed),
        "given up after the first refusal"
    );
}

#[tokio::test]
async fn nothing_is_written_past_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backend) = create(&folder, PAGE_BYTES + 10);
    let bench = Bench::new(backend);
    assert_eq!(bench.write(PAGE_BYTES, &[1; 11]).await, Err(Errno::ENOSPC));
    assert_eq!(
        bench.write(1 << 62, &[1; PAGE_SIZE]).await,
        Err(Errno::ENOSPC)
    );
    assert_eq!(
        bench.zero(0..2 * PAGE_BYTES, ZeroMode::KeepAllocated).await,
        Err(Errno::EINVAL)
    );
    assert_eq!(bench.discard(0..2 * PAGE_BYTES).await, Err(Errno::EINVAL));
    assert_eq!(std::fs::metadata(path).unwrap().len(), PAGE_BYTES + 10);
}

#[tokio::test]
async fn a_file_cut_by_somebody_else_is_an_error_and_no_zeroes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backend) = create(&folder, 4 * PAGE_BYTES);
    let bench = Bench::new(backend);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(PAGE_BYTES)
        .unwrap();
    assert_eq!(bench.read(0, 4).await.unwrap_err(), Errno::EIO);
}

#[tokio::test]
async fn discard_gives_space_back_and_zeroing_may_keep_it() {
    for folder in folders() {
        let (path, backend) = create(&folder, 1 << 20);
        let bench = Bench::new(backend);
        let blocks = || std::fs::metadata(&path).unwrap().blocks();
        bench.write(0, &pattern(1, 1 << 20)).await.unwrap();
        bench.sync().await.unwrap();
        let full = blocks();
        assert!(full >= (1 << 20) / 512);
        let can = bench.backend.capabilities();
        if can.zero_keep {
            bench
                .zero(0..1 << 19, ZeroMode::KeepAllocated)
                .await
                .unwrap();
            bench.sync().await.unwrap();
            assert!(blocks() >= full, "still allocated");
            assert!(
                bench
                    .read(0, 128)
                    .await
                    .unwrap()
                    .iter()
                    .all(|byte| *byte == 0)
            );
        } else {
            assert_eq!(
                bench.zero(0..1 << 19, ZeroMode::KeepAllocated).await,
                Err(Errno::ENOTSUP)
            );
        }
        assert!(can.discard, "ext4 and tmpfs punch holes");
        bench.discard(0..1 << 20).await.unwrap();
        bench.sync().await.unwrap();
        assert!(blocks() <= 8, "{} of {full} blocks are left", blocks());
        assert!(
            bench
                .read(0, 256)
                .await
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}

/// What the file system itself does with a hole that reaches to the end of the last, shorter block and past the end of
/// the file.
fn punches_past_the_end(folder: &TempDir, size: u64) -> bool {
    let path = folder.path().join("probe.img");
    std::fs::write(&path, vec![1; usize::try_from(size).unwrap()]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.sync_all().unwrap();
    let full = file.metadata().unwrap().blocks();
    let end = i64::try_from(size.next_multiple_of(PAGE_BYTES)).unwrap();
    let punched = nix::fcntl::fallocate(&file, calls::PUNCH, 0, end);
    file.sync_all().unwrap();
    punched.is_ok() && file.metadata().unwrap().blocks() < full
}

#[tokio::test]
async fn the_short_last_block_is_given_back_with_the_rest() {
    let size = 2 * PAGE_BYTES - 100;
    for folder in folders() {
        if !punches_past_the_end(&folder, size) {
            eprintln!("skipped: the file system keeps the last block");
            continue;
        }
        for zeroes in [false, true] {
            let (path, backend) = create(&folder, size);
            let bench = Bench::new(backend);
            let blocks = || std::fs::metadata(&path).unwrap().blocks();
            let bytes = pattern(3, usize::try_from(size).unwrap());
            bench.write(0, &bytes).await.unwrap();
            bench.sync().await.unwrap();
            let (full, last) = (blocks(), PAGE_BYTES..size);
            if zeroes {
                bench.zero(last, ZeroMode::MayPunch).await.unwrap();
            } else {
                bench.discard(last).await.unwrap();
            }
            bench.sync().await.unwrap();
            assert_eq!(full - blocks(), PAGE_BYTES / 512, "zeroes {zeroes}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
            assert!(bench.read(0, 1).await.unwrap() == bytes[..PAGE_SIZE]);
        }
    }
}

#[tokio::test]
async fn a_capability_that_turns_out_wrong_is_withdrawn() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (_, backend) = create(&folder, 1 << 20);
    // tmpfs has no zero range; pretend that it was found to have one.
    backend.file.can.zero.store(true, Ordering::Relaxed);
    let bench = Bench::new(backend);
    assert!(bench.backend.capabilities().zero_keep);
    assert_eq!(
        bench.zero(0..4096, ZeroMode::KeepAllocated).await,
        Err(Errno::ENOTSUP)
    );
    assert!(!bench.backend.capabilities().zero_keep);
}

#[tokio::test]
async fn a_read_only_file_refuses_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ro.img");
    std::fs::write(&path, pattern(6, 2 * PAGE_SIZE)).unwrap();
    let backend = open_file(&path, None, Access::ReadOnly);
    assert_eq!(
        backend.capabilities(),
        Capabilities {
            extents: true,
            ..Capabilities::default()
        },
        "nothing that changes data"
    );
    let bench = Bench::new(backend);
    assert_eq!(bench.write(0, &[1; PAGE_SIZE]).await, Err(Errno::EROFS));
    assert_eq!(bench.discard(0..PAGE_BYTES).await, Err(Errno::EROFS));
    assert_eq!(
        bench.zero(0..PAGE_BYTES, ZeroMode::MayPunch).await,
        Err(Errno::EROFS)
    );
    assert_eq!(bench.resize(1).await, Err(Errno::EROFS));
    assert_eq!(bench.sync().await, Ok(()));
    assert!(bench.read(0, 2).await.unwrap() == pattern(6, 2 * PAGE_SIZE));
}

#[tokio::test]
async fn ranges_are_inserted_and_removed_where_the_file_system_can() {
    for folder in folders() {
        let (path, backend) = create(&folder, 8 * PAGE_BYTES);
        let bench = Bench::new(backend);
        let bytes = pattern(8, 8 * PAGE_SIZE);
        bench.write(0, &bytes).await.unwrap();
        let backend = &bench.backend;
        let removed = backend.collapse_range(2 * PAGE_BYTES, PAGE_BYTES).await;
        if !backend.capabilities().shift {
            assert_eq!(removed, Err(Errno::ENOTSUP));
            assert_eq!(backend.geometry().size, 8 * PAGE_BYTES);
            continue;
        }
        removed.unwrap();
        assert_eq!(backend.geometry().size, 7 * PAGE_BYTES);
        backend
            .insert_range(PAGE_BYTES, 2 * PAGE_BYTES)
            .await
            .unwrap();
        assert_eq!(backend.geometry().size, 9 * PAGE_BYTES);
        let mut expected = bytes.clone();
        expected.drain(2 * PAGE_SIZE..3 * PAGE_SIZE);
        expected.splice(PAGE_SIZE..PAGE_SIZE, vec![0; 2 * PAGE_SIZE]);
        assert!(bench.read(0, 9).await.unwrap() == expected);
        // At the very end, which the kernel's own calls refuse.
        backend
            .collapse_range(8 * PAGE_BYTES, PAGE_BYTES)
            .await
            .unwrap();
        backend
            .insert_range(8 * PAGE_BYTES, PAGE_BYTES)
            .await
            .unwrap();
        expected[8 * PAGE_SIZE..].fill(0);
        assert!(bench.read(0, 9).await.unwrap() == expected);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 9 * PAGE_BYTES);
        assert_eq!(
            backend.collapse_range(1, u64::MAX).await,
            Err(Errno::EINVAL)
        );
        assert_eq!(backend.insert_range(0, u64::MAX).await, Err(Errno::EFBIG));
    }
}

#[test]
fn what_a_file_system_lacks_is_remarked_once_each() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (_, backend) = create(&folder, 1 << 20);
    let remarks = backend.remarks();
    assert!(
        remarks
            .iter()
            .any(|remark| remark.contains("zero allocated ranges")),
        "{remarks:?}"
    );
    assert!(
        !remarks.iter().any(|remark| remark.contains("trim is off")),
        "{remarks:?}"
    );
}

#[tokio::test]
async fn extents_follow_what_was_written() {
    for folder in folders() {
        let (_, backend) = create(&folder, 1 << 30);
        let bench = Bench::new(backend);
        bench.write(1 << 20, &pattern(1, 1 << 16)).await.unwrap();
        bench.sync().await.unwrap();
        let all = bench.extents(0..1 << 30, usize::MAX).await.unwrap();
        let kinds: Vec<_> = all
            .iter()
            .map(|extent| (extent.range.clone(), extent.kind))
            .collect();
        let end = (1 << 20) + (1 << 16);
        assert_eq!(
            kinds,
            [
                (0..1 << 20, ExtentKind::Hole),
                (1 << 20..end, ExtentKind::Data),
                (end..1 << 30, ExtentKind::Hole)
            ]
        );
        assert_eq!(bench.extents(0..1 << 30, 1).await.unwrap(), all[..1]);
        let inside = bench
            .extents((1 << 20) + 5..(1 << 20) + 10, 9)
            .await
            .unwrap();
        assert_eq!((inside.len(), inside[0].kind), (1, ExtentKind::Data));
    }
}

#[tokio::test]
async fn without_knowledge_of_holes_all_is_data() {
    let folder = tempfile::tempdir().unwrap();
    let (_, backend) = create(&folder, 1 << 20);
    backend.file.can.seek.store(false, Ordering::Relaxed);
    let bench = Bench::new(backend);
    assert!(!bench.backend.capabilities().extents);
    let extents = bench.extents(4096..1 << 20, 9).await.unwrap();
    assert_eq!(
        extents,
        [BackendExtent {
            range: 4096..1 << 20,
            kind: ExtentKind::Data
        }]
    );
}
