//! Error codes on the wire (proto.md, "Error values").

use std::num::NonZeroU32;

use thiserror::Error;

/// An error code in a reply. Never zero, which on the wire means success: `Option<NbdError>` is the wire's field.
///
/// A server may send only the constants. A client keeps any other value as it came, and must treat it as
/// [`NbdError::INVALID`].
#[derive(Clone, Copy, Error, PartialEq, Eq, Hash)]
#[error("{}", self.describe())]
pub struct NbdError(NonZeroU32);

macro_rules! nbd_errors {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $symbol:literal, $text:literal;)*) => {
        impl NbdError {
            $( $(#[$meta])* pub const $name: Self = Self(NonZeroU32::new($code).unwrap()); )*

            /// The protocol's name for the code without its `NBD_` prefix, if it is one of the protocol's.
            #[must_use]
            pub const fn symbol(self) -> Option<&'static str> {
                match self { $( Self::$name => Some($symbol), )* _ => None }
            }

            const fn text(self) -> &'static str {
                match self { $( Self::$name => $text, )* _ => "unknown error code" }
            }
        }
    };
}

nbd_errors! {
    /// EPERM: a write, trim or zero on a read-only export.
    PERM = 1, "EPERM", "operation not permitted";
    /// EIO: the backend failed.
    IO = 5, "EIO", "input/output error";
    /// ENOMEM: to be avoided.
    NOMEM = 12, "ENOMEM", "cannot allocate memory";
    /// EINVAL: unknown command or flag, or a read, trim, status or cache past the end.
    INVALID = 22, "EINVAL", "invalid argument";
    /// ENOSPC: a write or zero past the end, or a backend that is full.
    NOSPC = 28, "ENOSPC", "no space left on device";
    /// EOVERFLOW: a read that is longer than the maximum payload.
    OVERFLOW = 75, "EOVERFLOW", "value too large";
    /// ENOTSUP: a fast zero that would be slow.
    NOTSUP = 95, "ENOTSUP", "operation not supported";
    /// ESHUTDOWN: the server is going away.
    SHUTDOWN = 108, "ESHUTDOWN", "server is shutting down";
}

impl NbdError {
    /// The wire's error field. `None` is success.
    #[inline]
    #[must_use]
    pub const fn from_wire(code: u32) -> Option<Self> {
        match NonZeroU32::new(code) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }

    /// The code on the wire.
    #[inline]
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0.get()
    }

    /// Maps an error number of the operating system (Linux) to one that the protocol knows.
    ///
    /// EDQUOT and EFBIG become ENOSPC, as the protocol asks; EROFS becomes EPERM, which is what a read-only export
    /// answers. Anything else is EIO: the client can act on no finer a distinction.
    #[must_use]
    pub const fn from_os(errno: i32) -> Self {
        match errno {
            1 | 30 => Self::PERM,
            12 => Self::NOMEM,
            22 => Self::INVALID,
            27 | 28 | 122 => Self::NOSPC,
            75 => Self::OVERFLOW,
            95 => Self::NOTSUP,
            108 => Self::SHUTDOWN,
            _ => Self::IO,
        }
    }

    fn describe(self) -> String {
        let symbol = self.symbol().unwrap_or("NBD error");
        format!("{symbol} ({}): {}", self.code(), self.text())
    }
}

impl std::fmt::Debug for NbdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.symbol() {
            Some(symbol) => f.write_str(symbol),
            None => write!(f, "NbdError({})", self.code()),
        }
    }
}

/// What the error field of a reply holds for `outcome`.
#[inline]
#[must_use]
pub const fn wire_code(outcome: Option<NbdError>) -> u32 {
    match outcome {
        Some(error) => error.code(),
        None => 0,
    }
}

#[cfg(test)]
mod tests;
