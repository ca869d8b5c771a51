use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::Path;

use super::*;
use crate::session::Socket;

async fn bind_unix(path: &Path) -> Result<Listener, BindError> {
    Listener::bind(&Address::Unix(path.to_owned()), "listen").await
}

async fn bind_tcp(text: &str) -> Result<Listener, BindError> {
    Listener::bind(&text.parse().expect("an address"), "listen").await
}

#[tokio::test]
async fn port_0_picks_one_and_the_uri_says_which() {
    let listener = bind_tcp("127.0.0.1:0").await.unwrap();
    let uri = listener.uri().unwrap();
    let port: u16 = uri
        .strip_prefix("nbd://127.0.0.1:")
        .expect(&uri)
        .parse()
        .expect("a port");
    assert_ne!(port, 0);
    let error = bind_tcp(&format!("127.0.0.1:{port}")).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()));
}

#[tokio::test]
async fn v6_uris_have_brackets() {
    if let Ok(listener) = bind_tcp("[::1]:0").await {
        assert!(listener.uri().unwrap().starts_with("nbd://[::1]:"));
    }
}

#[tokio::test]
async fn a_unix_socket_is_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b%.sock");
    let listener = bind_unix(&path).await.unwrap();
    let uri = listener.uri().unwrap();
    assert!(
        uri.starts_with("nbd+unix:///?socket=/") && uri.ends_with("/a%20b%25.sock"),
        "{uri}"
    );
    drop(UnixStream::connect(&path).unwrap());
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    // The standard library leaves the file behind: a stale socket.
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = bind_unix(&path).await.unwrap();
    let error = bind_unix(&path).await.unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error}");
    assert!(path.exists(), "the live one's socket stays");
    drop(listener);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "precious").unwrap();
    let error = bind_unix(&path).await.unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn somebody_elses_socket_in_its_place_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = bind_unix(&path).await.unwrap();
    // The file is kept under another name, so that its inode number can't be given to the next.
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    let _other = StdListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[tokio::test]
async fn replies_over_tcp_are_not_held_back() {
    let listener = bind_tcp("127.0.0.1:0").await.unwrap();
    let Listener::Tcp(socket) = &listener else {
        panic!("bound to TCP")
    };
    let client = tokio::net::TcpStream::connect(socket.local_addr().unwrap());
    let (accepted, client) = tokio::join!(accept::accept(&listener), client);
    let (Socket::Tcp(accepted), ..) = accepted.unwrap() else {
        panic!("accepted from TCP")
    };
    assert!(accepted.nodelay().unwrap());
    drop(client.unwrap());
}

#[tokio::test]
async fn a_unix_socket_has_room_for_large_replies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = bind_unix(&path).await.unwrap();
    let usual = socket2::SockRef::from(&UnixStream::pair().unwrap().0)
        .send_buffer_size()
        .unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let (Socket::Unix(accepted), ..) = accept::accept(&listener).await.unwrap() else {
        panic!("accepted from a Unix socket")
    };
    let size = socket2::SockRef::from(&accepted)
        .send_buffer_size()
        .unwrap();
    assert!(size >= usual, "{size} of usually {usual}");
    assert!(size > 2 * (128 << 10), "{size}");
    drop(client);
}
