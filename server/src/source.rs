//! SOURCE: where an export's data is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::size::{Size, SizeError};

/// A store that an export can be opened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `PATH` or `file:PATH`: a sparse file or a block device.
    File(PathBuf),
    /// `memory:SIZE`: gone with the process.
    Memory(Size),
}

/// Why a text names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No text at all.
    #[error("a source is missing; give a path, file:PATH or memory:SIZE")]
    Empty,
    /// `memory:` without a good size.
    #[error("memory:SIZE: {0}")]
    MemorySize(#[from] SizeError),
    /// A scheme that isn't served.
    #[error("{0:?} isn't supported by this version; give a path, file:PATH or memory:SIZE")]
    Unsupported(String),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() {
                Err(SourceError::Empty)
            } else {
                Ok(Self::File(path.into()))
            };
        }
        if let Some(size) = text.strip_prefix("memory:") {
            return Ok(Self::Memory(size.parse()?));
        }
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        // A path of that form is still reachable: with `file:` or `./` in front.
        if text.contains("://") {
            return Err(SourceError::Unsupported(text.to_owned()));
        }
        Ok(Self::File(text.into()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Memory(size) => write!(f, "memory:{size}"),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
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
    fn forms() {
        for (text, source) in [
            ("weir.img", Source::File("weir.img".into())),
            ("/dev/sdb", Source::File("/dev/sdb".into())),
            ("file:a:b", Source::File("a:b".into())),
            ("file:memory:1G", Source::File("memory:1G".into())),
            ("memory:1G", Source::Memory(Size(1 << 30))),
        ] {
            assert_eq!(text.parse(), Ok(source), "{text}");
        }
    }

    #[test]
    fn refusals() {
        assert_eq!("".parse::<Source>(), Err(SourceError::Empty));
        assert_eq!("file:".parse::<Source>(), Err(SourceError::Empty));
        assert!(matches!(
            "memory:".parse::<Source>(),
            Err(SourceError::MemorySize(_))
        ));
        for text in ["nbd://host/x", "s3://bucket/key", "nbd+unix:///x?socket=/s"] {
            assert_eq!(
                text.parse::<Source>(),
                Err(SourceError::Unsupported(text.to_owned()))
            );
        }
    }
}
