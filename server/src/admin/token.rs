//! The bearer token: read from a file by both ends, compared in a time that doesn't tell where it differs.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The longest token: a key of any usual scheme, and far below what an HTTP header may hold.
const TOKEN_BYTES_MAX: usize = 1024;

/// What is read of a file: a token and white space around it, and one byte that makes more than that too much.
const FILE_BYTES_MAX: u64 = 2 * TOKEN_BYTES_MAX as u64 + 1;

/// The permissions that a token file must not give to others. Its group is the owner's choice, mostly a service's user.
const MODE_OF_OTHERS: u32 = 0o007;

/// Why no token can be had.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum TokenError {
    #[error("--admin-token-file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("--admin-token-file {}: it must hold one line of 1 to {TOKEN_BYTES_MAX} visible ASCII characters", path.display())]
    Malformed { path: PathBuf },
    #[error("--admin-token-file {}: every user of this machine can read or change it (its mode is {mode:04o}); chmod 600 it, and take a new token", path.display())]
    Exposed { path: PathBuf, mode: u32 },
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
    /// The file can't be read, is open to everybody for reading or changing, or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Read {
            path: path.to_owned(),
            source,
        };
        // Reads from the open file, whatever is put at the path meanwhile.
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & MODE_OF_OTHERS != 0 {
            let path = path.to_owned();
            return Err(TokenError::Exposed { path, mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " s3cret\n").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o644, false),
            (0o602, false),
            (0o666, false),
        ] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match Token::read(&path) {
                Ok(token) => assert!(good && token.matches(b"s3cret"), "{mode:o}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!good && text.contains("chmod 600"), "{mode:o}: {text}");
                }
            }
        }
        // A link's own mode says nothing; the file's mode counts.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            Token::read(&link),
            Err(TokenError::Exposed { mode: 0o666, .. })
        ));
    }

    #[test]
    fn a_long_file_is_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("x{}", " ".repeat(1 << 20))).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // What is cut off is white space, and the rest must still be a token.
        assert!(Token::read(&path).unwrap().matches(b"x"));
        std::fs::write(&path, "x".repeat(1 << 20)).unwrap();
        assert!(matches!(
            Token::read(&path),
            Err(TokenError::Malformed { .. })
        ));
    }
}
