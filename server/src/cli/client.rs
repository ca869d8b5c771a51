//! The client's end of the admin port: one connection per request, JSON in and out.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use nix::unistd::Uid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::admin::place::{Found, Surroundings};
use crate::admin::token::{Token, TokenError};
use crate::admin::wire::{ErrorReport, StatusReport};
use crate::error::Error;
use crate::listener::Address;
use crate::process;

/// How long a server may take to accept a connection. Its answer may take as long as the work does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of every command that speaks to a server.
#[derive(Args, Clone, Debug)]
pub struct AdminOptions {
    /// The server's admin port: unix:PATH or HOST:PORT [default: this user's server is looked for]
    #[arg(long, value_name = "ADDR", env = "WEIR_ADMIN", value_parser = parse_address, global = true)]
    admin: Option<Address>,

    /// A file with the token that the server asks for
    #[arg(
        long,
        value_name = "FILE",
        env = "WEIR_ADMIN_TOKEN_FILE",
        global = true
    )]
    admin_token_file: Option<PathBuf>,

    /// Prints JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

/// An address, also as the server prints it.
fn parse_address(text: &str) -> Result<Address, String> {
    let bare = text
        .strip_prefix("http://")
        .map_or(text, |rest| rest.trim_end_matches('/'));
    bare.parse::<Address>().map_err(|error| error.to_string())
}

/// Why a command fails. Its text is what the user sees.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum ClientError {
    #[error(
        "no Weir answers at {address} ({source}): is it running, or was it started with --no-admin?"
    )]
    NoServer { address: Address, source: io::Error },
    #[error(
        "no Weir of this user's answers (there is no live admin.sock in {}): is it running, or was it started with --no-admin or --admin? Say where with --admin, or be its user", list(.0.iter().map(|path| path.display()))
    )]
    NotFound(Vec<PathBuf>),
    #[error("several servers are running; say which one with --admin: {}", list(.0))]
    Several(Vec<Running>),
    #[error(
        "{address} is another user's (user number {owner}); be that user or root (sudo), or ask him for an --admin of yours"
    )]
    OthersSocket { address: Address, owner: u32 },
    #[error("you may not connect to {address}; be its user or root (sudo), or say another --admin")]
    NotAllowed { address: Address },
    #[error("{address} doesn't answer as Weir's admin port does ({reason}); give another --admin")]
    Nonsense { address: Address, reason: String },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{0}")]
    Refused(String),
    #[error("{what}: {source}")]
    File { what: String, source: io::Error },
    #[error("{0}")]
    Injection(String),
}

fn list(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// A server's admin port.
#[derive(Debug)]
pub(super) struct Client {
    address: Address,
    token: Option<Token>,
    /// Whether the user wants JSON.
    pub(super) json: bool,
}

impl AdminOptions {
    pub(super) fn client(&self) -> Result<Client, ClientError> {
        let token = self.admin_token_file.as_deref().map(Token::read);
        let address = match &self.admin {
            Some(address) => address.clone(),
            None => match Surroundings::of_process().find() {
                Found::One(address) => address,
                Found::Several(addresses) => return Err(several(addresses)),
                Found::Nothing(folders) => return Err(ClientError::NotFound(folders)),
            },
        };
        Ok(Client {
            address,
            token: token.transpose()?,
            json: self.json,
        })
    }

    /// Does `work` with a client, and prints what it returns.
    pub(super) fn run(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<String, ClientError>,
    ) -> Result<ExitCode, Error> {
        let client = self.client()?;
        let text = runtime()?.block_on(work(&client))?;
        print(&text)
    }
}

/// A server that was found, and what tells it from others.
#[derive(Debug)]
pub struct Running {
    address: Address,
    /// Its process and the names of its exports, if it reports them.
    about: Option<(u32, Vec<String>)>,
}

impl Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some((pid, names)) = &self.about {
            let names = names.iter().map(|name| format!("{name:?}"));
            write!(f, " (process {pid}, exports: {})", list(names))?;
        }
        Ok(())
    }
}

/// Asks each of several servers for its process and exports.
fn several(addresses: Vec<Address>) -> ClientError {
    let Ok(runtime) = runtime() else {
        let silent = |address| Running {
            address,
            about: None,
        };
        return ClientError::Several(addresses.into_iter().map(silent).collect());
    };
    let ask = async |address: Address| {
        let client = Client {
            address: address.clone(),
            token: None,
            json: false,
        };
        let status = client.get::<StatusReport>("/v1/status");
        let status = tokio::time::timeout(CONNECT_TIMEOUT, status).await;
        let about = status.ok().and_then(Result::ok).map(|status| {
            let names = status.exports.into_iter().map(|export| export.name);
            (status.pid, names.collect())
        });
        Running { address, about }
    };
    ClientError::Several(runtime.block_on(join_all(addresses.into_iter().map(ask))))
}

/// A runtime for one command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::System)
}

/// Prints. A reader that has gone has seen enough. The program then ends without a message, as those of coreutils do.
pub(crate) fn print(text: &str) -> Result<ExitCode, Error> {
    print_bytes(text.as_bytes())
}

/// As [`print`].
pub(super) fn print_bytes(text: &[u8]) -> Result<ExitCode, Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(process::die_of_closed_pipe())
        }
        Err(error) => Err(Error::Output(error)),
    }
}

impl Client {
    /// What is at `path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends `body` to `path`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("plain data");
        self.ask(Method::POST, path, body.into()).await
    }

    /// Deletes what is at `path`.
    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.nonsense(error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| self.nonsense(error))
    }

    /// The answer to a request, if it isn't a refusal; its body is still to come.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let host = match &self.address {
            Address::Tcp { .. } => self.address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header());
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.nonsense(error))?;
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(connected) => connected.map_err(|source| self.no_server(source))?,
            Err(_) => return Err(self.no_server(io::ErrorKind::TimedOut.into())),
        };
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.nonsense(error))?;
        // Ends with the response's body.
        tokio::spawn(connection);
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| self.nonsense(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| self.nonsense(error))?.to_bytes();
        match serde_json::from_slice::<ErrorReport>(&body) {
            Ok(report) => Err(ClientError::Refused(report.error)),
            Err(_) => Err(self.nonsense(status)),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.address {
            Address::Tcp { host, port } => {
                Box::new(TcpStream::connect((host.as_str(), *port)).await?)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    fn no_server(&self, source: io::Error) -> ClientError {
        let address = self.address.clone();
        match &self.address {
            Address::Unix(path) if source.kind() == io::ErrorKind::PermissionDenied => {
                // The owner of the socket, or of the folder if the socket can't be seen.
                let folder = path.parent().and_then(|folder| folder.metadata().ok());
                match path.metadata().ok().or(folder) {
                    Some(there) if !Uid::effective().is_root() => {
                        let owner = there.uid();
                        ClientError::OthersSocket { address, owner }
                    }
                    _ => ClientError::NotAllowed { address },
                }
            }
            _ => ClientError::NoServer { address, source },
        }
    }

    fn nonsense(&self, reason: impl Display) -> ClientError {
        ClientError::Nonsense {
            address: self.address.clone(),
            reason: reason.to_string(),
        }
    }

    /// `value` as JSON, or as `table` writes it for people.
    pub(super) fn show<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> String {
        if self.json {
            serde_json::to_string_pretty(value).expect("plain data") + "\n"
        } else {
            table(value)
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// `path?name=NAME`.
pub(super) fn named(path: &str, name: &str) -> String {
    query(path, "name", name)
}

/// `path?key=value`, percent-encoded.
pub(super) fn query(path: &str, key: &str, value: &str) -> String {
    let mut text = format!("{path}?{key}=");
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
