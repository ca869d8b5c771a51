//! ADDR: `HOST:PORT`, `[::1]:PORT` or `unix:PATH`.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host's name or address (IPv6 without brackets) and a port.
    Tcp {
        /// Resolved when it is bound.
        host: String,
        /// 0 picks a free one.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// The text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address; write HOST:PORT, [::1]:PORT or unix:PATH")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(malformed())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        // `parse` takes a sign.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let port = port.parse().map_err(|_| malformed())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => {
                host.parse::<Ipv6Addr>().map_err(|_| malformed())?;
                host
            }
            None if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) => {
                return Err(malformed());
            }
            None => host,
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn forms() {
        for (text, address) in [
            ("127.0.0.1:10809", tcp("127.0.0.1", 10809)),
            ("localhost:0", tcp("localhost", 0)),
            ("[::1]:10809", tcp("::1", 10809)),
            ("unix:/tmp/s", Address::Unix("/tmp/s".into())),
            ("unix:s:1", Address::Unix("s:1".into())),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "10809",
            ":10809",
            "host",
            "host:",
            "host:x",
            "host:+1",
            "host:65536",
            "::1:10809",
            "[::1]",
            "[x]:1",
            "unix:",
            "a b:1",
        ] {
            assert_eq!(
                text.parse::<Address>(),
                Err(AddressError(text.to_owned())),
                "{text}"
            );
        }
    }
}
