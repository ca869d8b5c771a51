//! The admin port's socket, and the connections on it. [`super::slots`] says how many connections there may be.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::place::Surroundings;
use super::slots::{SlotHandle, Slots, Watched};
use super::token::{Token, TokenError};
use super::{AdminState, ApiError, BODY_BYTES_MAX, router};
use crate::cli::socket_mode::SocketMode;
use crate::limits::ACCEPT_RETRY_DELAY;
use crate::listener::{Address, BindError, Listener, tcp};
use crate::server::Server;
use crate::settings::{AdminPort, Settings};

/// How long a client may take to send a request's head, and how long it may stay silent between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a client may take to send a body: even the longest over a slow network.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest body of a request that only asks. No such request needs a body, and not every port asks for a token for
/// one.
const ASKING_BODY_BYTES_MAX: usize = 4 << 10;

/// Bytes of a request's head, and of what hyper reads ahead.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A Unix socket is its owner's alone.
const SOCKET_MODE: SocketMode = SocketMode(0o600);

/// Why the admin port can't be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum AdminError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the admin port {0} can be reached from other machines and needs --admin-token-file; or listen on 127.0.0.1 or unix:PATH"
    )]
    TokenNeeded(String),
    #[error("the admin port's address isn't known: {0}; give another --admin")]
    Address(#[source] io::Error),
    #[error(
        "the service manager hands over a socket that is called admin: leave --admin and --no-admin out, or give the socket another name"
    )]
    InheritedToo,
    #[error(
        "no folder can be had for the admin port's socket, {} neither: {reason}; give --admin unix:PATH, or --no-admin", folder.display()
    )]
    NoPlace { folder: PathBuf, reason: String },
}

/// An admin port that listens and doesn't answer yet.
#[derive(Debug)]
pub struct AdminListener {
    listener: Listener,
    guard: Guard,
    url: String,
}

impl AdminListener {
    /// Opens the port that `settings` ask for, if they do, unless this process has `inherited` it from the service
    /// manager. Needs a runtime.
    ///
    /// # Errors
    /// The address can't be had, or it needs a token and there is none.
    pub async fn bind(
        settings: &Settings,
        inherited: Option<Listener>,
    ) -> Result<Option<Self>, AdminError> {
        match &settings.admin {
            AdminPort::Closed | AdminPort::At(_) if inherited.is_some() => {
                return Err(AdminError::InheritedToo);
            }
            AdminPort::Closed => return Ok(None),
            AdminPort::At(_) | AdminPort::OwnersSocket => {}
        }
        let token = token_of(settings)?;
        let (listener, name) = match (inherited, &settings.admin) {
            (Some(listener), _) => (listener, None),
            (None, AdminPort::At(address)) => {
                let listener = bind_private(address).await?;
                let name = match address {
                    Address::Tcp { host, .. } => Some(host.clone()),
                    Address::Unix(_) => None,
                };
                (listener, name)
            }
            (None, AdminPort::OwnersSocket | AdminPort::Closed) => {
                let bound = Surroundings::of_process().bind(bind_private).await;
                let refused = |(folder, reason)| AdminError::NoPlace { folder, reason };
                (bound.map_err(refused)?, None)
            }
        };
        let (url, local) = describe(&listener).map_err(AdminError::Address)?;
        if !local && token.is_none() {
            return Err(AdminError::TokenNeeded(url));
        }
        let guard = Guard {
            name,
            local,
            owners: is_closed_to_others(&listener).map_err(AdminError::Address)?,
            token,
        };
        Ok(Some(Self {
            listener,
            guard,
            url,
        }))
    }

    /// Looks for what [`AdminListener::bind`] would refuse. A server may be listening there now.
    ///
    /// # Errors
    /// As for that.
    pub fn check(settings: &Settings) -> Result<(), AdminError> {
        if settings.admin == AdminPort::Closed {
            return Ok(());
        }
        let token = token_of(settings)?;
        let AdminPort::At(address) = &settings.admin else {
            return Ok(());
        };
        Listener::check(address, "admin")?;
        if token.is_none() && !is_local(address) {
            return Err(AdminError::TokenNeeded(address.to_string()));
        }
        Ok(())
    }

    /// `http://HOST:PORT` or `unix:PATH`: what `--admin` and `WEIR_ADMIN` take.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the user should know about it.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let locked = !self.guard.owners && self.guard.token.is_none();
        locked.then(|| {
            format!(
                "admin port {}: other users of this machine reach it too, so it only shows things; to change things give --admin-token-file, or a Unix socket that is its owner's alone",
                self.url
            )
        })
    }

    /// Answers until `stop`. The socket closes when this ends, and connections end with it.
    pub fn serve(
        self,
        server: &Server,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let router = router(Arc::new(AdminState::new(server)), self.guard);
        accept_loop(self.listener, router, stop)
    }
}

fn token_of(settings: &Settings) -> Result<Option<Token>, TokenError> {
    settings
        .admin_token_file
        .as_deref()
        .map(Token::read)
        .transpose()
}

/// Whether an address can be reached from this machine only.
fn is_local(address: &Address) -> bool {
    match address {
        Address::Unix(_) => true,
        // The port takes the first address that it can have. So one that others can reach is enough to need a token.
        Address::Tcp { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback())),
    }
}

async fn accept_loop(listener: Listener, router: Router, stop: CancellationToken) {
    let slots = Arc::new(Slots::default());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!("admin port: {error}");
                // The process is out of descriptors, most likely.
                slots.close_oldest();
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let (router, over) = (router.clone(), stop.clone());
        let Some(slot) = stop.run_until_cancelled(slots.enter()).await else {
            return;
        };
        tokio::spawn(async move {
            let answering = stream.answer(router, slot.handle());
            let answering = slot.close().run_until_cancelled(answering);
            // A client that is gone or talks nonsense needs no report.
            let _ = over.run_until_cancelled(answering).await;
        });
    }
}

async fn bind_private(address: &Address) -> Result<Listener, BindError> {
    Listener::bind_with_mode(address, "admin", SOCKET_MODE).await
}

/// Whether the system lets only those users connect that the owner of the socket has chosen. A socket unit's mode is
/// 0666 unless it says otherwise.
fn is_closed_to_others(listener: &Listener) -> io::Result<bool> {
    match listener {
        Listener::Tcp(_) => Ok(false),
        Listener::Unix(listener, _) => {
            let address = listener.local_addr()?;
            let path = address
                .as_pathname()
                .ok_or(io::ErrorKind::AddrNotAvailable)?;
            // Connecting takes the right to write.
            Ok(std::fs::metadata(path)?.mode() & 0o002 == 0)
        }
    }
}

/// Where clients find the port, and whether only this machine can reach it.
fn describe(listener: &Listener) -> io::Result<(String, bool)> {
    match listener {
        Listener::Tcp(listener) => {
            let address: SocketAddr = listener.local_addr()?;
            let local = address.ip().to_canonical().is_loopback();
            Ok((format!("http://{address}"), local))
        }
        Listener::Unix(listener, _) => {
            let address = listener.local_addr()?;
            let path = address
                .as_pathname()
                .ok_or(io::ErrorKind::AddrNotAvailable)?;
            let path = std::path::absolute(path)?;
            Ok((format!("unix:{}", path.display()), true))
        }
    }
}

enum AdminSocket {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<AdminSocket> {
    match listener {
        Listener::Tcp(listener) => Ok(AdminSocket::Tcp(listener.accept().await?.0)),
        Listener::Unix(listener, _) => Ok(AdminSocket::Unix(listener.accept().await?.0)),
    }
}

impl AdminSocket {
    async fn answer(self, router: Router, slot: SlotHandle) -> Result<(), hyper::Error> {
        match self {
            Self::Tcp(stream) => {
                // A client that is gone by now hears nothing anyway.
                let _ = tcp::tune(&stream);
                answer(stream, router, slot).await
            }
            Self::Unix(stream) => answer(stream, router, slot).await,
        }
    }
}

async fn answer<S>(stream: S, router: Router, slot: SlotHandle) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(router);
    let stream = Watched::new(stream, slot.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(slot.clone());
        router.call(request)
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Takes the whole body, within a length and a time, before any handler starts.
pub(super) async fn bound_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let most = if parts.method.is_safe() {
        ASKING_BODY_BYTES_MAX
    } else {
        BODY_BYTES_MAX
    };
    let body = axum::body::to_bytes(body, most);
    let refusal = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => {
            let request = Request::from_parts(parts, Body::from(body));
            return next.run(request).await;
        }
        Ok(Err(_)) => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body of more than {most} bytes, or one that broke off"),
        ),
        Err(_) => ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("a body that took longer than {} s", BODY_TIMEOUT.as_secs()),
        ),
    };
    refusal.into_response()
}
