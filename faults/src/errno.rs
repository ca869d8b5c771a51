//! Error numbers: a newtype with named constants, so that one unknown to the table survives a round trip.
//!
//! The figures are Linux' (`asm-generic/errno.h`). What a client may see is a smaller set: the NBD protocol names eight
//! of them, [`Errno::is_on_the_wire`].

use std::fmt;

/// A positive Linux error number, such as [`Errno::EIO`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)+) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($value);)+

            /// Every error number that has a name here, in numeric order.
            pub const NAMED: &'static [(&'static str, Self)] = &[$((stringify!($name), Self::$name)),+];
        }
    };
}

errnos! {
    /// Operation not permitted; what a write to a read-only export gets.
    EPERM = 1;
    /// No such file or directory.
    ENOENT = 2;
    /// Interrupted.
    EINTR = 4;
    /// Input or output failed; the medium's general error.
    EIO = 5;
    /// No such device or address.
    ENXIO = 6;
    /// Try again.
    EAGAIN = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// Permission denied.
    EACCES = 13;
    /// Busy.
    EBUSY = 16;
    /// No such device.
    ENODEV = 19;
    /// Invalid argument.
    EINVAL = 22;
    /// The file would be too large.
    EFBIG = 27;
    /// No space left.
    ENOSPC = 28;
    /// The file system is read-only.
    EROFS = 30;
    /// The other end of a pipe is closed.
    EPIPE = 32;
    /// No data available; what Linux says of a missing record.
    ENODATA = 61;
    /// Data failed its check (Linux' `EBADMSG`, what `-EFSBADCRC` is).
    EBADMSG = 74;
    /// A value too large for its type.
    EOVERFLOW = 75;
    /// Not supported.
    ENOTSUP = 95;
    /// The connection was aborted.
    ECONNABORTED = 103;
    /// The connection was reset.
    ECONNRESET = 104;
    /// The other end is shutting down.
    ESHUTDOWN = 108;
    /// Timed out.
    ETIMEDOUT = 110;
    /// The disk quota is exceeded.
    EDQUOT = 122;
}

impl Errno {
    /// The largest number that the system uses for an error, as in Linux' `MAX_ERRNO`.
    pub const MAX: i32 = 4095;

    /// The error that the system has said by this number, known here or not.
    ///
    /// A number that can't be an error's, such as 0, says that something failed without saying why: [`Errno::EIO`].
    #[must_use]
    pub const fn of_system(number: i32) -> Self {
        if number >= 1 && number <= Self::MAX {
            Self(number)
        } else {
            Self::EIO
        }
    }

    /// The errors that the NBD protocol can say to a client.
    pub const ON_THE_WIRE: &'static [Self] = &[
        Self::EPERM,
        Self::EIO,
        Self::ENOMEM,
        Self::EINVAL,
        Self::ENOSPC,
        Self::EOVERFLOW,
        Self::ENOTSUP,
        Self::ESHUTDOWN,
    ];

    /// The error's name, if it has one here.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED
            .iter()
            .find(|(_, errno)| *errno == self)
            .map(|(name, _)| *name)
    }

    /// The error of that name, such as `EIO`; `None` for a name that is not in [`Errno::NAMED`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, errno)| *errno)
    }

    /// Whether an NBD reply can carry it.
    #[must_use]
    pub fn is_on_the_wire(self) -> bool {
        Self::ON_THE_WIRE.contains(&self)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

/// The system's number if there is one, else [`Errno::EIO`].
impl From<&std::io::Error> for Errno {
    fn from(error: &std::io::Error) -> Self {
        Self::of_system(error.raw_os_error().unwrap_or_default())
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests;
