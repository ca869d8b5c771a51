//! The admin port's socket, and the connections on it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::stat::{Mode, umask};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::guard::Guard;
use super::token::{Token, TokenError};
use super::{AdminState, ApiError, BODY_BYTES_MAX, router};
use crate::limits::ACCEPT_RETRY_DELAY;
use crate::listener::{Address, BindError, Listener};
use crate::serve::Server;
use crate::settings::Settings;

/// Connections at a time: many scripts and followers of events, and a small share of a process' descriptors.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send a request's head, and how long it may stay silent between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a client may take to send a body: even the longest over a slow network.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's head, and of what hyper reads ahead.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a new Unix socket's mode leaves out: all but its owner's read and write.
const SOCKET_UMASK: Mode = Mode::from_bits_truncate(0o177);

/// Why the admin port can't be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the texts say it
pub enum AdminError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "--admin {0} can be reached from other machines and needs --admin-token-file; or listen on 127.0.0.1 or unix:PATH"
    )]
    TokenNeeded(Address),
    #[error("the admin port's address isn't known: {0}; give another --admin")]
    Address(#[source] io::Error),
}

/// An admin port that listens and answers nobody yet.
#[derive(Debug)]
pub struct AdminListener {
    listener: Listener,
    guard: Guard,
    url: String,
}

impl AdminListener {
    /// Opens the port that `settings` ask for, if they do. Needs a runtime.
    ///
    /// # Errors
    /// An address that can't be had, or one that needs a token and has none.
    pub async fn bind(settings: &Settings) -> Result<Option<Self>, AdminError> {
        let Some(address) = &settings.admin else {
            return Ok(None);
        };
        let token = token_of(settings)?;
        let listener = bind_private(address).await?;
        let (url, local) = describe(&listener).map_err(AdminError::Address)?;
        if !local && token.is_none() {
            return Err(AdminError::TokenNeeded(address.clone()));
        }
        let name = match address {
            Address::Tcp { host, .. } => Some(host.clone()),
            Address::Unix(_) => None,
        };
        let guard = Guard { name, local, token };
        Ok(Some(Self {
            listener,
            guard,
            url,
        }))
    }

    /// Looks for what [`AdminListener::bind`] would refuse, whoever listens there now.
    ///
    /// # Errors
    /// As for that.
    pub fn check(settings: &Settings) -> Result<(), AdminError> {
        let Some(address) = &settings.admin else {
            return Ok(());
        };
        let token = token_of(settings)?;
        Listener::check(address, "admin")?;
        if token.is_none() && !is_local(address) {
            return Err(AdminError::TokenNeeded(address.clone()));
        }
        Ok(())
    }

    /// `http://HOST:PORT` or `unix:PATH`: what `--admin` and `WEIR_ADMIN` take.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers until `stop`. The socket closes with the end of this; connections end with it.
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
        // The first that can be had is taken: one that others reach is enough to need a token.
        Address::Tcp { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback())),
    }
}

async fn accept_loop(listener: Listener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Before accepting: whoever is too many waits in the kernel's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit.expect("never closed"),
            () = stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!("admin port: {error}");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let (router, over) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // Who is gone or talks nonsense is nobody's concern.
            let _ = over.run_until_cancelled(stream.answer(router)).await;
        });
    }
}

/// As [`Listener::bind`]; a Unix socket is its owner's from the moment on at which it exists.
async fn bind_private(address: &Address) -> Result<Listener, BindError> {
    let before = matches!(address, Address::Unix(_)).then(|| umask(SOCKET_UMASK));
    let outcome = Listener::bind(address, "admin").await;
    before.map(umask);
    outcome
}

/// Where clients find it, and whether only this machine can reach it.
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

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Stream> {
    match listener {
        Listener::Tcp(listener) => Ok(Stream::Tcp(listener.accept().await?.0)),
        Listener::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
    }
}

impl Stream {
    async fn answer(self, router: Router) -> Result<(), hyper::Error> {
        match self {
            Self::Tcp(stream) => {
                // Answers are small, and go out at once.
                let _ = stream.set_nodelay(true);
                answer(stream, router).await
            }
            Self::Unix(stream) => answer(stream, router).await,
        }
    }
}

async fn answer<S>(stream: S, router: Router) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// Takes the whole body, within a length and a time, before any handler starts.
pub(super) async fn bound_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX);
    let refusal = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => {
            let request = Request::from_parts(parts, Body::from(body));
            return next.run(request).await;
        }
        Ok(Err(_)) => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body of more than {BODY_BYTES_MAX} bytes, or one that broke off"),
        ),
        Err(_) => ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("a body that took longer than {} s", BODY_TIMEOUT.as_secs()),
        ),
    };
    refusal.into_response()
}
