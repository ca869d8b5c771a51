//! What a handshake asks of the server that it runs in.

use thiserror::Error;

use crate::info::ExportInfo;
use crate::option::OptionReplyType;

/// Why an option isn't granted, as the peer is told.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reply_type}: {text}")]
pub struct Refusal {
    /// The error that is sent.
    pub reply_type: OptionReplyType,
    /// What was wrong, for people.
    pub text: String,
}

impl Refusal {
    /// A refusal with any error type.
    #[must_use]
    pub fn new(reply_type: OptionReplyType, text: impl Into<String>) -> Self {
        debug_assert!(reply_type.is_error());
        Self {
            reply_type,
            text: text.into(),
        }
    }

    /// There is no export of this name.
    #[must_use]
    pub fn unknown_export(name: &str) -> Self {
        Self::new(
            OptionReplyType::ERR_UNKNOWN,
            format!("there is no export named {name:?}"),
        )
    }

    /// The server's configuration forbids it.
    #[must_use]
    pub fn policy(text: impl Into<String>) -> Self {
        Self::new(OptionReplyType::ERR_POLICY, text)
    }

    /// The option's data is wrong.
    #[must_use]
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(OptionReplyType::ERR_INVALID, text)
    }
}

/// The exports that a server offers to one client.
pub trait ExportDirectory {
    /// Looks up an export by the name that the client sent: valid UTF-8 without NUL of at most
    /// [`MAX_NAME`](crate::constants::MAX_NAME) bytes. The empty name means the default export.
    ///
    /// # Errors
    /// The refusal that the client gets, [`Refusal::unknown_export`] in most cases. `NBD_OPT_EXPORT_NAME` can't carry
    /// one and disconnects instead.
    fn find(&self, name: &str) -> Result<ExportInfo, Refusal>;

    /// Calls `visit` with the name and the description (which may be empty) of each export.
    ///
    /// # Errors
    /// The refusal that the client gets, [`Refusal::policy`] where listing is disabled. The client doesn't see what was
    /// visited before it.
    fn list(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), Refusal>;
}
