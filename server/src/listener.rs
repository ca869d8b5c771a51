//! Taking connections: TCP and Unix sockets, the server's own or inherited from systemd.
//!
//! Binding and accepting are separate steps, so that everything that can be refused is refused before the first client
//! is let in. Meanwhile clients queue in the kernel.

use std::io;
use std::path::PathBuf;

use nix::sys::stat::{Mode, umask};

use crate::cli::socket_mode::SocketMode;

mod accept;
mod activation;
mod address;
mod allow;
pub(crate) mod tcp;
mod unix;

pub use accept::{Admission, accept_loop};
pub use activation::{Inherited, inherited};
pub use address::{Address, AddressError};
pub use allow::AllowList;
pub use unix::SocketFile;
pub(crate) use unix::{SocketState, socket_state};

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// A Unix socket, with the file to remove at the end if the server made it.
    Unix(tokio::net::UnixListener, Option<SocketFile>),
}

/// The longest path that the kernel's `sockaddr_un` holds, with the NUL at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum BindError {
    #[error(
        "{address} is in use; stop what listens there, or give another --{option} (port 0 picks a free one)"
    )]
    InUse {
        address: Address,
        option: &'static str,
    },
    #[error("can't listen on {address}: there is no folder {}; make it (mkdir -p), or give another --{option}", folder.display())]
    NoFolder {
        address: Address,
        option: &'static str,
        folder: PathBuf,
    },
    #[error("can't listen on {address}: {source}; give another --{option}")]
    Bind {
        address: Address,
        option: &'static str,
        source: io::Error,
    },
    #[error("can't listen on unix:{}: the path of a Unix socket has {SOCKET_PATH_BYTES_MAX} bytes at most; give a shorter --{option}", path.display())]
    LongPath { path: PathBuf, option: &'static str },
    #[error("{} is listened on by a live process; stop that, or give another --{option} unix:PATH", path.display())]
    Live { path: PathBuf, option: &'static str },
    #[error("{} is there already and no socket; remove it, or give another --{option} unix:PATH", path.display())]
    NotASocket { path: PathBuf, option: &'static str },
    #[error(
        "socket {index} {name:?} of those that the service manager hands over (counted from 0) can't be used: {source}; check the socket unit"
    )]
    Inherited {
        index: usize,
        name: String,
        source: io::Error,
    },
    #[error(
        "the service manager hands over two sockets that are called admin; there is one admin port"
    )]
    InheritedTwice,
}

impl Listener {
    /// Listens on `address`, which came from `--option`. Needs a runtime.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(address: &Address, option: &'static str) -> Result<Self, BindError> {
        match address {
            Address::Tcp { host, port } => match tcp::bind(host, *port).await {
                Ok(listener) => Ok(Self::Tcp(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::InUse {
                    address: address.clone(),
                    option,
                }),
                Err(source) => Err(BindError::Bind {
                    address: address.clone(),
                    option,
                    source,
                }),
            },
            Address::Unix(path) => {
                let (listener, file) = unix::bind(path, option)?;
                Ok(Self::Unix(listener, Some(file)))
            }
        }
    }

    /// As [`Listener::bind`]. A Unix socket has this mode from the moment of its creation. No other thread may make
    /// files meanwhile.
    ///
    /// # Errors
    /// As for [`Listener::bind`].
    pub async fn bind_with_mode(
        address: &Address,
        option: &'static str,
        SocketMode(mode): SocketMode,
    ) -> Result<Self, BindError> {
        let left_out = Mode::from_bits_truncate(!mode & 0o777);
        let before = matches!(address, Address::Unix(_)).then(|| umask(left_out));
        let outcome = Self::bind(address, option).await;
        before.map(umask);
        outcome
    }

    /// Looks for what is wrong with `address`, without listening. An address that is in use now is fine.
    ///
    /// # Errors
    /// The address could never be had.
    pub fn check(address: &Address, option: &'static str) -> Result<(), BindError> {
        match address {
            Address::Tcp { host, port } => {
                tcp::check(host, *port).map_err(|source| BindError::Bind {
                    address: address.clone(),
                    option,
                    source,
                })
            }
            Address::Unix(path) => unix::check(path, option),
        }
    }

    /// Where clients find it, as an NBD URI without an export's name.
    ///
    /// # Errors
    /// The system doesn't know the socket's address.
    pub fn uri(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(format!("nbd://{}", listener.local_addr()?)),
            Self::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address
                    .as_pathname()
                    .ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(format!(
                    "nbd+unix:///?socket={}",
                    percent_encode(&std::path::absolute(path)?)
                ))
            }
        }
    }

    /// How `nbd-client` attaches this, without the export's name.
    ///
    /// # Errors
    /// As for [`Listener::uri`].
    pub fn attach_command(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr()?;
                Ok(format!(
                    "nbd-client {} {} /dev/nbd0 -b 4096 -C 2",
                    address.ip(),
                    address.port()
                ))
            }
            Self::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address
                    .as_pathname()
                    .ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(format!(
                    "nbd-client -unix {} /dev/nbd0 -b 4096 -C 2",
                    std::path::absolute(path)?.display()
                ))
            }
        }
    }
}

/// RFC 3986: encodes all but unreserved characters and the slash, which a query may hold.
fn percent_encode(path: &std::path::Path) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes everything");
        }
    }
    text
}

#[cfg(test)]
mod tests;
