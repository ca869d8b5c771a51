//! The loop that accepts connections, and the admission check that they pass.
//!
//! Each connection owns a permit from before its first byte until its task ends in whatever way; dropping the task
//! gives the permit back. A connection beyond the limit is closed at once, because otherwise it could only wait in
//! silence.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AllowList, Listener, tcp, unix};
use crate::limits::ACCEPT_RETRY_DELAY;
use crate::session::{self, SessionContext, Socket};

/// Which connections are let in. All listeners share it.
#[derive(Debug)]
pub struct Admission {
    allow: AllowList,
    permits: Arc<Semaphore>,
    connections_max: usize,
}

impl Admission {
    /// Lets in the peers that `allow` allows, `connections_max` at a time.
    #[must_use]
    pub fn new(allow: AllowList, connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            allow,
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
        }
    }

    /// A permit for this peer, or `None` after a line in the log. For Unix peers the socket's mode decides.
    fn admit(&self, address: Option<SocketAddr>, peer: &str) -> Option<OwnedSemaphorePermit> {
        if address.is_some_and(|address| !self.allow.allows(address.ip())) {
            tracing::warn!("{peer} refused: not in --allow");
            return None;
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
        if permit.is_none() {
            tracing::warn!(
                "{peer} refused: {} connections are open, see --max-connections",
                self.connections_max
            );
        }
        permit
    }
}

/// Accepts until `stop`, giving each admitted connection a session in `sessions`. The socket closes when this returns.
pub async fn accept_loop(
    listener: Listener,
    admission: Arc<Admission>,
    context: Arc<SessionContext>,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener)).await {
        let (stream, address, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !recover(&error, &stop).await {
                    return;
                }
                continue;
            }
        };
        let Some(permit) = admission.admit(address, &peer) else {
            continue;
        };
        let context = Arc::clone(&context);
        sessions.spawn(async move {
            let _permit = permit;
            session::serve(stream, peer, context).await;
        });
    }
}

pub(super) async fn accept(
    listener: &Listener,
) -> io::Result<(Socket, Option<SocketAddr>, String)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            tcp::tune(&stream)?;
            Ok((Socket::Tcp(stream), Some(address), address.to_string()))
        }
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            unix::tune(&stream)?;
            let peer = match stream.peer_cred() {
                Ok(credentials) => match credentials.pid() {
                    Some(pid) => format!("unix:pid={pid},uid={}", credentials.uid()),
                    None => format!("unix:uid={}", credentials.uid()),
                },
                Err(_) => "unix".to_owned(),
            };
            Ok((Socket::Unix(stream), None, peer))
        }
    }
}

/// Waits after a failed accept, where that helps; returns `false` when the server stops meanwhile. A connection that
/// was gone before it was accepted needs nothing. A lack of descriptors or memory lasts, and another try at once would
/// spin.
async fn recover(error: &io::Error, stop: &CancellationToken) -> bool {
    use nix::errno::Errno;
    let lasting = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    let code = error.raw_os_error().map(Errno::from_raw);
    if code.is_none_or(|code| !lasting.contains(&code)) {
        tracing::debug!("a connection was gone before it was accepted: {error}");
        return true;
    }
    tracing::warn!("can't accept connections for now: {error}");
    stop.run_until_cancelled(tokio::time::sleep(ACCEPT_RETRY_DELAY))
        .await
        .is_some()
}
