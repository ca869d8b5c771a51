//! Why a connection ended.

use std::io;

use thiserror::Error;
use weir_protocol::handshake::server::CloseReason;
use weir_protocol::request::BadMagic;

use weir_faults::Errno;

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum End {
    /// NBD_CMD_DISC came, and all that was outstanding is answered.
    #[error("the client disconnected")]
    Disconnected,
    /// The stream ended without NBD_CMD_DISC.
    #[error("the client closed the connection without disconnecting")]
    ClientGone,
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The handshake failed.
    #[error("handshake: {0}")]
    Handshake(#[from] CloseReason),
    /// The handshake took too long.
    #[error("the handshake took longer than allowed")]
    HandshakeTimeout,
    /// STARTTLS was granted, which this server doesn't support.
    #[error("TLS isn't supported")]
    NoTls,
    /// The export was there during the handshake but not after it.
    #[error("export {0:?} has gone")]
    ExportGone(String),
    /// The stream is out of step.
    #[error(transparent)]
    BadMagic(#[from] BadMagic),
    /// A read failed after a part of its reply was sent, and the protocol has no way to report that.
    #[error("a read failed in the middle of its reply: {0}")]
    ReplyBroken(Errno),
    /// The client didn't read its replies.
    #[error("the client read nothing for the write timeout")]
    Stalled,
    /// The client read little or nothing of its replies while others waited for the memory that the replies pin.
    #[error("the client read nothing, or hardly anything, while memory was short")]
    Hoarding,
    /// The client sent little or nothing of the data that it had announced, while others wanted the memory that was
    /// kept for it.
    #[error("the client hardly sent its data while others wanted the memory that was kept for it")]
    HoardingAhead,
    /// Nothing happened.
    #[error("idle for longer than allowed")]
    Idle,
    /// Killed over the admin port, or because the server stops at once.
    #[error("killed")]
    Killed,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Shutdown,
    /// A fault rule or point closed the connection.
    #[error("dropped by an injected fault")]
    Injected,
}
