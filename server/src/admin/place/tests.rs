use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;

async fn bind(address: &Address) -> Result<Listener, BindError> {
    Listener::bind(address, "admin").await
}

/// A machine in a folder, and a user on it who isn't logged in.
struct Machine {
    root: TempDir,
    around: Surroundings,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["run", "tmp", "service", "session"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let around = Surroundings {
            runtime_directory: None,
            xdg_runtime_dir: None,
            run: root.path().join("run"),
            tmp: root.path().join("tmp"),
            uid: Uid::effective().as_raw(),
        };
        Self { root, around }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// The user's folder in `/tmp`.
    fn shared(&self) -> PathBuf {
        self.around.tmp.join(format!("weir-{}", self.around.uid))
    }

    async fn start(&self) -> (Listener, PathBuf) {
        let listener = self.around.bind(bind).await.unwrap();
        let Listener::Unix(socket, _) = &listener else {
            panic!("{listener:?}")
        };
        let path = socket.local_addr().unwrap();
        let path = path.as_pathname().unwrap().to_owned();
        (listener, path)
    }

    fn one(&self) -> PathBuf {
        match self.around.find() {
            Found::One(Address::Unix(path)) => path,
            found => panic!("{found:?}"),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_first_that_there_is() {
    let mut machine = Machine::new();
    // The user isn't root here: for root /run/weir comes before /tmp.
    let everyone = |machine: &Machine| {
        let places = machine.around.places().into_iter();
        places.map(|place| place.folder).collect::<Vec<_>>()
    };
    let mut expected = vec![machine.shared()];
    if machine.around.uid == 0 {
        expected.insert(0, machine.path("run/weir"));
    }
    assert_eq!(everyone(&machine), expected);
    machine.around.xdg_runtime_dir = Some(machine.path("session"));
    expected.insert(0, machine.path("session/weir"));
    assert_eq!(everyone(&machine), expected);
    machine.around.runtime_directory = Some(machine.path("service"));
    expected.insert(0, machine.path("service"));
    assert_eq!(everyone(&machine), expected);

    let (_first, path) = machine.start().await;
    assert_eq!(path, machine.path("service/admin.sock"));
    machine.around.runtime_directory = None;
    let (_second, path) = machine.start().await;
    assert_eq!(path, machine.path("session/weir/admin.sock"));
    assert_eq!(mode(&machine.path("session/weir")), 0o700);
    assert_eq!(machine.one(), path);
    // By its definition a relative path means nothing.
    machine.around.xdg_runtime_dir = Some("session".into());
    machine.around.uid = machine.around.uid.max(1);
    assert_eq!(everyone(&machine), [machine.shared()]);
}

#[tokio::test]
async fn a_folder_of_others_is_neither_used_nor_looked_into() {
    let mut machine = Machine::new();
    let real = machine.around.uid;
    // Another user asks than the owner of everything here.
    machine.around.uid = real + 1;
    machine.around.xdg_runtime_dir = Some(machine.path("session"));
    for folder in [machine.path("session/weir"), machine.shared()] {
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        let _listens = UnixListener::bind(folder.join(SOCKET)).unwrap();
        assert!(matches!(machine.around.find(), Found::Nothing(_)));
    }
    let (folder, reason) = machine.around.bind(bind).await.unwrap_err();
    assert_eq!(folder, machine.shared());
    assert!(
        reason.contains(&format!("belongs to user {real}")),
        "{reason}"
    );
    // The folder isn't even made in a session of another user.
    fs::remove_dir_all(machine.path("session/weir")).unwrap();
    machine.around.bind(bind).await.unwrap_err();
    assert!(!machine.path("session/weir").exists());
}

#[tokio::test]
async fn in_tmp_it_is_a_folder_that_is_closed_to_others() {
    let mut machine = Machine::new();
    machine.around.run = machine.path("nowhere");
    let (listener, path) = machine.start().await;
    assert_eq!(path, machine.shared().join(SOCKET));
    assert_eq!(mode(&machine.shared()), 0o700);
    assert_eq!(machine.one(), path);
    for open in [0o755, 0o770, 0o777] {
        fs::set_permissions(machine.shared(), Permissions::from_mode(open)).unwrap();
        assert!(matches!(machine.around.find(), Found::Nothing(_)));
        let (_, reason) = machine.around.bind(bind).await.unwrap_err();
        assert!(reason.contains("lets others in"), "{reason}");
    }
    drop(listener);
    // A link may lead anywhere.
    fs::remove_dir_all(machine.shared()).unwrap();
    fs::create_dir(machine.path("mine")).unwrap();
    fs::set_permissions(machine.path("mine"), Permissions::from_mode(0o700)).unwrap();
    symlink(machine.path("mine"), machine.shared()).unwrap();
    machine.around.bind(bind).await.unwrap_err();
    let _listens = UnixListener::bind(machine.path("mine").join(SOCKET)).unwrap();
    assert!(matches!(machine.around.find(), Found::Nothing(_)));
}

#[tokio::test]
async fn a_second_server_takes_its_own_name_and_commands_have_to_choose() {
    let mut machine = Machine::new();
    machine.around.xdg_runtime_dir = Some(machine.path("session"));
    let (first, path) = machine.start().await;
    let (second, other) = machine.start().await;
    let own = format!("session/weir/admin-{}.sock", std::process::id());
    assert_eq!(other, machine.path(&own));
    let both = [&path, &other].map(|path| Address::Unix(path.clone()));
    assert_eq!(machine.around.find(), Found::Several(both.into()));
    drop(first);
    assert_eq!(machine.one(), other);
    drop(second);
    assert!(matches!(machine.around.find(), Found::Nothing(_)));
    assert!(!path.exists() && !other.exists());
}

#[tokio::test]
async fn what_killed_servers_left_is_replaced_and_swept() {
    let mut machine = Machine::new();
    machine.around.xdg_runtime_dir = Some(machine.path("session"));
    let folder = machine.path("session/weir");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    // The standard library leaves the file behind.
    for name in [SOCKET, "admin-1.sock", "admin-x.sock"] {
        drop(UnixListener::bind(folder.join(name)).unwrap());
    }
    let _live = UnixListener::bind(folder.join("admin-2.sock")).unwrap();
    fs::write(folder.join("admin-3.sock"), "no socket").unwrap();
    let (_listener, path) = machine.start().await;
    assert_eq!(path, folder.join(SOCKET));
    assert!(!folder.join("admin-1.sock").exists());
    for kept in ["admin-x.sock", "admin-2.sock", "admin-3.sock"] {
        assert!(folder.join(kept).exists(), "{kept}");
    }
}

#[tokio::test]
async fn a_listener_whose_queue_is_full_is_live() {
    let mut machine = Machine::new();
    machine.around.xdg_runtime_dir = Some(machine.path("session"));
    let folder = machine.path("session/weir");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let path = folder.join(SOCKET);
    busy.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(machine.one(), path);
    let (_listener, other) = machine.start().await;
    assert_ne!(other, path);
}

/// Between a server's look at what is there and its listening, no other server looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_start_together_look_one_after_the_other() {
    const SERVERS: usize = 2;
    let mut machine = Machine::new();
    machine.around.xdg_runtime_dir = Some(machine.path("session"));
    let folder = machine.path("session/weir");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    drop(UnixListener::bind(folder.join(SOCKET)).unwrap());
    let (machine, started) = (Arc::new(machine), Arc::new(AtomicUsize::new(0)));
    let inside = Arc::new(AtomicUsize::new(0));
    let servers = [(); SERVERS].map(|()| {
        let (machine, started) = (Arc::clone(&machine), Arc::clone(&started));
        let inside = Arc::clone(&inside);
        tokio::task::spawn_blocking(move || {
            let bind = async |address: &Address| {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                // All are about to look, and get the time for it.
                while started.load(Ordering::SeqCst) < SERVERS {
                    std::thread::yield_now();
                }
                for _ in 0..10_000 {
                    std::thread::yield_now();
                }
                let outcome = bind(address).await;
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                outcome
            };
            started.fetch_add(1, Ordering::SeqCst);
            tokio::runtime::Handle::current().block_on(machine.around.bind(bind))
        })
    });
    let mut listening = Vec::new();
    for server in servers {
        listening.push(server.await.unwrap());
    }
    assert!(listening.iter().all(Result::is_ok), "{listening:?}");
    assert!(matches!(machine.around.find(), Found::Several(all) if all.len() == SERVERS));
}
