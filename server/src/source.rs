//! SOURCE: where an export's data is.
//!
//! The table of [`backend`](crate::backend::SCHEMES) says which schemes there are, and what each of them means.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use crate::backend::scheme::{OpenStore, OpenStoreError, Scheme, StoreOptions, StoreSource};
use crate::backend::{SCHEMES, file};

/// A store that an export can be opened on.
#[derive(Clone)]
pub struct Source {
    scheme: &'static Scheme,
    store: Arc<dyn StoreSource>,
}

/// Why a text names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No text at all.
    #[error("a source is missing; give {}", forms())]
    Empty,
    /// What follows the scheme is malformed.
    #[error("{form}: {reason}")]
    Malformed {
        /// The form that it should have.
        form: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A scheme that isn't supported.
    #[error("{0:?} isn't supported by this version; give {forms}", forms = forms())]
    Unsupported(String),
}

impl SourceError {
    /// What follows the colon of `scheme` doesn't have the scheme's form.
    pub fn malformed(scheme: &Scheme, reason: &dyn fmt::Display) -> Self {
        Self::Malformed {
            form: scheme.form,
            reason: reason.to_string(),
        }
    }
}

/// How a source can be written, such as `a path, file:PATH or memory:SIZE`.
pub(crate) fn forms() -> String {
    let forms: Vec<_> = SCHEMES.iter().map(|scheme| scheme.form).collect();
    let (last, others) = forms.split_last().expect("there are stores");
    format!("a path, {} or {last}", others.join(", "))
}

/// The first line of `--help` about SOURCE.
pub(crate) fn help() -> String {
    format!("What to serve as the default export: {}", forms())
}

/// All that `--help` says about SOURCE.
pub(crate) fn long_help() -> String {
    let width = SCHEMES.iter().map(|scheme| scheme.form.len()).max();
    let width = width.expect("there are stores");
    let mut help = help() + "\n\n";
    for Scheme { form, about, .. } in SCHEMES {
        help += &format!("  {form:width$}  {about}\n");
    }
    help += "\nA file that is missing is created, sparse, when --size is given. Without any SOURCE and --export it is \
             weir.img in the current folder, 1G, created if missing.";
    help
}

impl Source {
    /// Looks for what is wrong with it, and changes nothing.
    ///
    /// # Errors
    /// The first thing that [`Source::open`] would refuse and that can be told without opening.
    pub fn check(&self, options: &StoreOptions) -> Result<(), OpenStoreError> {
        self.store.check(options)
    }

    /// How large the device is or will be, as far as that can be told without opening it.
    #[must_use]
    pub fn known_size(&self, options: &StoreOptions) -> Option<u64> {
        self.store.known_size(options)
    }

    /// The file or block device that it is in, if it is.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        self.store.file()
    }

    /// Opens the store.
    ///
    /// # Errors
    /// Whatever is wrong with the store.
    pub async fn open(&self, options: &StoreOptions) -> Result<OpenStore, OpenStoreError> {
        self.store.open(options).await
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        let named = text.split_once(':').and_then(|(name, rest)| {
            let scheme = SCHEMES.iter().find(|scheme| scheme.name == name)?;
            Some((*scheme, rest))
        });
        let (scheme, rest) = match named {
            Some(named) => named,
            // A path of that form is still reachable: with `file:` or `./` in front.
            None if text.contains("://") => return Err(SourceError::Unsupported(text.to_owned())),
            None => (&file::SCHEME, text),
        };
        let store = (scheme.parse)(rest)?;
        Ok(Self { scheme, store })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.scheme.name, self.store)
    }
}

/// The same store, as far as the text tells.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.name == other.scheme.name && self.to_string() == other.to_string()
    }
}

impl Eq for Source {}

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
        for (text, scheme, shown) in [
            ("weir.img", "file", "weir.img"),
            ("/dev/sdb", "file", "/dev/sdb"),
            ("file:a:b", "file", "a:b"),
            ("a:b", "file", "a:b"),
            ("file:memory:1G", "file", "memory:1G"),
            ("memory:1G", "memory", "memory:1G"),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!((source.scheme.name, &*source.to_string()), (scheme, shown));
        }
        let parsed = |text: &str| text.parse::<Source>().unwrap();
        assert_eq!(parsed("file:a"), parsed("a"));
        assert_eq!(parsed("memory:1024M"), parsed("memory:1G"));
        assert_ne!(parsed("file:memory:1G"), parsed("memory:1G"));
    }

    #[test]
    fn refusals() {
        assert_eq!("".parse::<Source>(), Err(SourceError::Empty));
        assert_eq!("file:".parse::<Source>(), Err(SourceError::Empty));
        assert!(matches!(
            "memory:".parse::<Source>(),
            Err(SourceError::Malformed {
                form: "memory:SIZE",
                ..
            })
        ));
        for text in ["nbd://host/x", "s3://bucket/key", "nbd+unix:///x?socket=/s"] {
            assert_eq!(
                text.parse::<Source>(),
                Err(SourceError::Unsupported(text.to_owned()))
            );
        }
        let missing = SourceError::Empty.to_string();
        assert!(
            missing.starts_with("a source is missing; give a path, file:PATH, "),
            "{missing}"
        );
        let (others, last) = missing.rsplit_once(" or ").expect("a choice");
        assert!(!others.contains(" or "), "{missing}");
        assert_eq!(Some(last), SCHEMES.last().map(|scheme| scheme.form));
        for Scheme { form, .. } in SCHEMES {
            assert!(missing.contains(form), "{missing}");
        }
    }

    #[test]
    fn the_page_on_operating_has_each_scheme() {
        let page = include_str!("../../docs/operating.md");
        for Scheme { form, .. } in SCHEMES {
            assert!(page.contains(&format!("`{form}` |")), "{form}");
        }
    }

    #[test]
    fn help_describes_each_scheme_once_and_no_name_is_taken_twice() {
        let help = long_help();
        for scheme in SCHEMES {
            assert!(scheme.form.starts_with(&format!("{}:", scheme.name)));
            assert!(help.contains(scheme.about), "{help}");
            let same = SCHEMES.iter().filter(|other| other.name == scheme.name);
            assert_eq!(same.count(), 1, "{}", scheme.name);
        }
    }
}
