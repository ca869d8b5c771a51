//! `--socket-mode`: which users may connect to the Unix sockets that the server makes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// The most that it can say: owner, group and others.
const MODE_MAX: u32 = 0o777;

/// The mode of a file, in octal digits. Connecting takes the right to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl FromStr for SocketMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).ok();
        let mode = mode.filter(|mode| *mode <= MODE_MAX && !text.starts_with('+'));
        mode.map(Self)
            .ok_or_else(|| format!("{text:?} is no mode; write 0600, 0660 or 0666"))
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_digits() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0", 0), ("0777", 0o777)] {
            assert_eq!(text.parse(), Ok(SocketMode(mode)), "{text}");
        }
        assert_eq!(SocketMode(0o60).to_string(), "0060");
        for text in ["", "0888", "1777", "+660", "-1", "rw", "0o660"] {
            let error = text.parse::<SocketMode>().expect_err(text);
            assert!(error.contains("0660"), "{error}");
        }
    }
}
