//! Which requests the admin port lets in.
//!
//! A browser on this machine can reach loopback on behalf of any page that it shows. Two headers give such a page away:
//! - `Host`: after DNS rebinding it is the page's own name. The port lets in addresses (a page can't make a browser
//!   send one for a name), `localhost`, and the name that the port was told to listen on. On loopback, the addresses
//!   must be loopback addresses.
//! - `Origin`: browsers add it to what a page posts. The port lets in its own origin only.
//!
//! Every user of this machine can reach loopback as well. A Unix socket is open to its owner alone, by its mode, unless
//! it comes from the service manager with another mode.
//!
//! If the server has a bearer token, every request takes it. Where other machines can reach the port, the server must
//! have one. Without one, requests that change something are refused everywhere but on a socket that is open to its
//! owner alone.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiError;
use super::token::Token;

/// What is let in.
#[derive(Debug)]
pub(super) struct Guard {
    /// The name that the port was told to listen on.
    pub(super) name: Option<String>,
    /// Whether only this machine can reach the port.
    pub(super) local: bool,
    /// Whether only its owner can reach it.
    pub(super) owners: bool,
    pub(super) token: Option<Token>,
}

/// A status code and a reason.
type Refusal = (StatusCode, &'static str);

const FOREIGN_HOST: Refusal = (
    StatusCode::FORBIDDEN,
    "a foreign Host: ask for the admin port by its address, or as localhost",
);
const FOREIGN_ORIGIN: Refusal = (
    StatusCode::FORBIDDEN,
    "a foreign Origin: the admin port isn't for web pages",
);
const NO_TOKEN: Refusal = (
    StatusCode::UNAUTHORIZED,
    "this admin port asks for a token; give the server's --admin-token-file",
);
const SHOWS_ONLY: Refusal = (
    StatusCode::FORBIDDEN,
    "this admin port only shows things, as every user of its machine reaches it; start the server with --admin-token-file, or on a Unix socket that is its owner's alone",
);
const WRONG_TOKEN: Refusal = (
    StatusCode::UNAUTHORIZED,
    "a wrong token; give the server's --admin-token-file",
);

/// Lets a request in, or says why not.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.admit(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, reason)) => {
            let mut response = ApiError::new(status, reason).into_response();
            if status == StatusCode::UNAUTHORIZED {
                let scheme = header::HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

impl Guard {
    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = single(headers, header::HOST).ok_or(FOREIGN_HOST)?;
        let target = uri.authority().map(|authority| authority.as_str());
        let mut hosts = [Some(host), target].into_iter().flatten();
        if !hosts.all(|host| self.is_own(host)) {
            return Err(FOREIGN_HOST);
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = single(headers, header::ORIGIN);
            if origin.and_then(|origin| origin.strip_prefix("http://")) != Some(host) {
                return Err(FOREIGN_ORIGIN);
            }
        }
        self.authenticate(method, headers)
    }

    fn authenticate(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return if self.owners || method.is_safe() {
                Ok(())
            } else {
                Err(SHOWS_ONLY)
            };
        };
        let offered = single(headers, header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        match offered {
            Some(offered) if token.matches(offered.as_bytes()) => Ok(()),
            Some(_) => Err(WRONG_TOKEN),
            None => Err(NO_TOKEN),
        }
    }

    /// Whether `host`, with or without a port, can only mean this server.
    fn is_own(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let own = ["localhost"].into_iter().chain(self.name.as_deref());
        let mut own = own.filter(|own| own.eq_ignore_ascii_case(name));
        if own.next().is_some() {
            return true;
        }
        match name.parse::<IpAddr>() {
            Ok(address) => !self.local || address.to_canonical().is_loopback(),
            Err(_) => false,
        }
    }
}

/// The value of a header that may come only once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    match values.next() {
        None => value.to_str().ok(),
        Some(_) => None,
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host
            .find(':')
            .map_or((host, ""), |colon| host.split_at(colon)),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let good = (port.is_empty() || port.starts_with(':'))
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    good.then_some(name)
}

#[cfg(test)]
mod tests;
