//! The kinds of work that code runs under: the client's commands and the server's own.
//!
//! A context carries a *set* of them, because a shared flush pass works for every request that joined it.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RequestKind {
    /// `NBD_CMD_READ`.
    Read,
    /// `NBD_CMD_WRITE`.
    Write,
    /// `NBD_CMD_TRIM`.
    Trim,
    /// `NBD_CMD_WRITE_ZEROES`.
    Zero,
    /// `NBD_CMD_FLUSH`.
    Flush,
    /// `NBD_CMD_CACHE`.
    Cache,
    /// `NBD_CMD_BLOCK_STATUS`.
    Status,
    /// A client that connects and negotiates.
    Connect,
    /// Resize, insert range and collapse range.
    Resize,
    /// The server's own writeback.
    Writeback,
    /// The server's own readahead.
    Readahead,
    /// The server's own reclaim of clean pages.
    Reclaim,
    /// Dropping an export's cache.
    Drop,
    /// Closing an export.
    Close,
    /// Opening an export.
    Open,
}

impl RequestKind {
    /// Every kind with its name in the control language.
    pub const NAMED: &'static [(&'static str, Self)] = &[
        ("read", Self::Read),
        ("write", Self::Write),
        ("trim", Self::Trim),
        ("zero", Self::Zero),
        ("flush", Self::Flush),
        ("cache", Self::Cache),
        ("status", Self::Status),
        ("connect", Self::Connect),
        ("resize", Self::Resize),
        ("writeback", Self::Writeback),
        ("readahead", Self::Readahead),
        ("reclaim", Self::Reclaim),
        ("drop", Self::Drop),
        ("close", Self::Close),
        ("open", Self::Open),
    ];

    /// The kind's name in the control language.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMED[self as usize].0
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`RequestKind`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RequestKinds(u16);

macro_rules! single_kinds {
    ($($name:ident = $kind:ident;)+) => {
        impl RequestKinds {
            $(#[doc = concat!("Only [`RequestKind::", stringify!($kind), "`].")]
            pub const $name: Self = Self::of(RequestKind::$kind);)+
        }
    };
}

single_kinds! {
    READ = Read; WRITE = Write; TRIM = Trim; ZERO = Zero; FLUSH = Flush; CACHE = Cache; STATUS = Status;
    CONNECT = Connect; RESIZE = Resize; WRITEBACK = Writeback; READAHEAD = Readahead; RECLAIM = Reclaim;
    DROP = Drop; CLOSE = Close; OPEN = Open;
}

impl RequestKinds {
    /// No kind at all.
    pub const NONE: Self = Self(0);

    /// Every kind.
    pub const ALL: Self = Self((1 << RequestKind::NAMED.len()) - 1);

    /// The set of one kind.
    #[must_use]
    pub const fn of(kind: RequestKind) -> Self {
        Self(1 << kind as u8)
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in `self` but not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether some kind is in both.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether `kind` is in the set.
    #[must_use]
    pub const fn contains(self, kind: RequestKind) -> bool {
        self.intersects(Self::of(kind))
    }

    /// One bit per kind, for a word of the caller's own.
    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    /// What is in both.
    pub(crate) const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds in the set, in the order of [`RequestKind::NAMED`].
    pub fn iter(self) -> impl Iterator<Item = RequestKind> {
        RequestKind::NAMED
            .iter()
            .map(|(_, kind)| *kind)
            .filter(move |kind| self.contains(*kind))
    }
}

impl BitOr for RequestKinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for RequestKinds {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl From<RequestKind> for RequestKinds {
    fn from(kind: RequestKind) -> Self {
        Self::of(kind)
    }
}

impl FromIterator<RequestKind> for RequestKinds {
    fn from_iter<I: IntoIterator<Item = RequestKind>>(kinds: I) -> Self {
        kinds
            .into_iter()
            .fold(Self::NONE, |set, kind| set | Self::of(kind))
    }
}

/// The names, separated by commas: what `within` takes.
impl fmt::Display for RequestKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, kind) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            f.write_str(kind.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for RequestKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests;
