use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn try_open(path: &Path, size: Option<u64>, access: Access) -> Result<OpenFile, OpenFileError> {
    open(
        path,
        &FileOptions {
            size,
            access,
            engine: Engine::Auto,
        },
    )
}

fn refusal(path: &Path, size: Option<u64>, access: Access) -> OpenFileError {
    try_open(path, size, access).expect_err("refused")
}

#[test]
fn a_missing_file_is_created_sparse_when_its_size_is_said() {
    let folder = folder();
    let path = folder.path().join("new.img");
    assert!(matches!(
        refusal(&path, None, Access::ReadWrite),
        OpenFileError::Missing { .. }
    ));
    assert!(matches!(
        refusal(&path, Some(1 << 30), Access::ReadOnly),
        OpenFileError::MissingReadOnly { .. }
    ));
    assert!(!path.exists());
    let file = try_open(&path, Some(1 << 30), Access::ReadWrite).expect("created");
    assert_eq!(file.size(), 1 << 30);
    let metadata = std::fs::metadata(&path).expect("there");
    assert_eq!(
        (metadata.len(), metadata.blocks()),
        (1 << 30, 0),
        "what probing allocated was given back"
    );
}

#[test]
fn an_existing_file_keeps_its_size() {
    let folder = folder();
    let path = folder.path().join("old.img");
    std::fs::write(&path, vec![7; 5000]).expect("written");
    let error = refusal(&path, Some(4096), Access::ReadWrite);
    assert!(
        matches!(
            error,
            OpenFileError::SizeDiffers {
                actual: 5000,
                asked: 4096,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        try_open(&path, Some(5000), Access::ReadWrite)
            .expect("the same size")
            .size(),
        5000
    );
    assert_eq!(
        try_open(&path, None, Access::ReadOnly)
            .expect("no size said")
            .size(),
        5000
    );
    assert_eq!(
        std::fs::read(&path).expect("there"),
        vec![7; 5000],
        "probing changed nothing"
    );
}

#[test]
fn a_failed_creation_leaves_nothing_behind() {
    let folder = folder();
    let path = folder.path().join("new.img");
    let error = refusal(&path, Some(u64::MAX), Access::ReadWrite);
    assert!(matches!(error, OpenFileError::TooLarge { .. }), "{error}");
    // This is more than one file can have on ext4 and most others; tmpfs and xfs can.
    if let Err(error) = try_open(&path, Some(DEVICE_BYTES_MAX), Access::ReadWrite) {
        assert!(matches!(error, OpenFileError::Create { .. }), "{error}");
        assert!(!path.exists());
    }
    let nowhere = folder.path().join("no/such/folder.img");
    assert!(matches!(
        refusal(&nowhere, Some(1), Access::ReadWrite),
        OpenFileError::NoFolder { .. }
    ));
}

#[test]
fn a_served_file_is_locked() {
    let folder = folder();
    let path = folder.path().join("a.img");
    let first = try_open(&path, Some(4096), Access::ReadWrite).expect("created");
    let error = refusal(&path, None, Access::ReadWrite);
    assert!(
        matches!(error, OpenFileError::InUse { .. }) && error.to_string().contains("another Weir"),
        "{error}"
    );
    assert!(matches!(
        refusal(&path, None, Access::ReadOnly),
        OpenFileError::InUse { .. }
    ));
    drop(first);
    let readers = [(); 2].map(|()| try_open(&path, None, Access::ReadOnly).expect("readers share"));
    assert!(matches!(
        refusal(&path, None, Access::ReadWrite),
        OpenFileError::InUse { .. }
    ));
    drop(readers);
    drop(try_open(&path, None, Access::ReadWrite).expect("free again"));
}

#[test]
fn only_files_and_block_devices_can_be_served() {
    let folder = folder();
    let socket = folder.path().join("s");
    let _listener = UnixListener::bind(&socket).expect("bound");
    let fifo = folder.path().join("f");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("made");
    for path in [folder.path(), &socket, &fifo, Path::new("/dev/null")] {
        let error = refusal(path, None, Access::ReadWrite);
        assert!(
            matches!(error, OpenFileError::NotServable { .. }),
            "{error}"
        );
    }
    let empty = folder.path().join("empty");
    File::create(&empty).expect("made");
    assert!(matches!(
        refusal(&empty, None, Access::ReadWrite),
        OpenFileError::Empty { .. }
    ));
}

#[test]
fn a_dangling_link_is_not_followed() {
    let folder = folder();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("target"), &link).expect("linked");
    // `create_new` refuses links; the text says what is there.
    let error = refusal(&link, Some(4096), Access::ReadWrite);
    assert!(matches!(error, OpenFileError::Create { .. }), "{error}");
}

#[test]
fn a_created_image_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let path = folder.path().join("new.img");
    try_open(&path, Some(1 << 20), Access::ReadWrite).expect("created");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    // An existing file keeps the mode that its owner gave it.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
    try_open(&path, None, Access::ReadWrite).expect("opened");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn what_takes_the_files_place_before_it_is_open_is_not_served() {
    let folder = folder();
    let path = folder.path().join("disk.img");
    let other = folder.path().join("other.img");
    std::fs::write(&other, [7; 4096]).expect("written");
    let looked_at = || {
        drop(std::fs::remove_file(&path));
        std::fs::write(&path, [1; 4096]).expect("written");
        let metadata = std::fs::metadata(&path).expect("there");
        // The file is kept, so that its number can't be given to another.
        std::fs::rename(&path, folder.path().join("aside")).expect("moved");
        metadata
    };
    for writable in [false, true] {
        let put: [&dyn Fn(); 3] = [
            &|| std::fs::copy(&other, &path).map(drop).expect("copied"),
            &|| std::os::unix::fs::symlink(&other, &path).expect("linked"),
            &|| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made"),
        ];
        for (index, put) in put.into_iter().enumerate() {
            let metadata = looked_at();
            put();
            let error = open_existing(&path, &metadata, writable).expect_err("refused");
            assert!(
                matches!(error, OpenFileError::Replaced { .. }),
                "{index}: {error}"
            );
        }
    }
    // A link that is there all the time is as good as its target.
    std::fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink(&other, &path).expect("linked");
    try_open(&path, None, Access::ReadWrite).expect("opened");
}

#[test]
fn nothing_is_created_among_the_devices() {
    let folder = folder();
    let link = folder.path().join("devices");
    std::os::unix::fs::symlink("/dev", &link).expect("a link");
    let name = format!("weir-no-such-disk-{}", std::process::id());
    for folder in [Path::new("/dev"), &link, Path::new("/dev/../dev")] {
        let path = folder.join(&name);
        let refused = try_open(&path, Some(1 << 20), Access::ReadWrite);
        let there = path.exists();
        drop(std::fs::remove_file(&path));
        assert!(!there, "{} was created", path.display());
        assert!(
            matches!(refused, Err(OpenFileError::MissingDevice { .. })),
            "{refused:?}"
        );
        assert!(
            !refusal(&path, None, Access::ReadWrite)
                .to_string()
                .contains("--size")
        );
    }
}

#[test]
fn what_is_looked_for_is_what_opening_finds() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("image"), [0; 8192]).expect("an image");
    std::fs::write(path("empty"), []).expect("an empty file");
    let cases = [
        ("image", None, Access::ReadWrite),
        ("image", Some(8192), Access::ReadOnly),
        ("image", Some(4096), Access::ReadWrite),
        ("empty", None, Access::ReadWrite),
        ("missing", None, Access::ReadWrite),
        ("missing", Some(4096), Access::ReadOnly),
        ("missing", Some(u64::MAX), Access::ReadWrite),
        ("no/folder", Some(4096), Access::ReadWrite),
        (".", None, Access::ReadOnly),
        ("image/x", None, Access::ReadOnly),
    ];
    for (name, size, access) in cases {
        let options = FileOptions {
            size,
            access,
            engine: Engine::Threads,
        };
        let found = examine(&path(name), &options).map(drop);
        let opened = try_open(&path(name), size, access).map(drop);
        assert_eq!(
            found.map_err(|error| error.to_string()),
            opened.map_err(|error| error.to_string()),
            "{name}"
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("ours").count(), 2);
}
