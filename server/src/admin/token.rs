//! The bearer token: read from a file by both ends, compared in a time that doesn't tell where it differs.

use std::io;
use std::path::{Path, PathBuf};

/// The longest token: a key of any usual scheme, and far below what an HTTP header may hold.
const TOKEN_BYTES_MAX: usize = 1024;

/// Why a token can't be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the texts say it
pub enum TokenError {
    #[error("--admin-token-file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("--admin-token-file {}: it must hold one line of 1 to {TOKEN_BYTES_MAX} visible ASCII characters", path.display())]
    Malformed { path: PathBuf },
}

/// A secret that both ends know.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads it; white space around it doesn't count.
    ///
    /// # Errors
    /// A file that can't be read or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::new(text.trim()).ok_or_else(|| TokenError::Malformed {
            path: path.to_owned(),
        })
    }

    /// A token of these characters, if they can be one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=TOKEN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(text.to_owned()))
    }

    /// The value of the header `Authorization`.
    #[must_use]
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether `offered` is the same. The time depends on the length of `offered` only.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        let ours = self.0.as_bytes();
        let mut difference = ours.len() ^ offered.len();
        for (index, byte) in offered.iter().enumerate() {
            difference |= usize::from(byte ^ ours[index % ours.len()]);
        }
        std::hint::black_box(difference) == 0
    }
}
