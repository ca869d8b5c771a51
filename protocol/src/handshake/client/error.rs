//! What ends a client's handshake.

use thiserror::Error;

use crate::constants::{MAX_OPTION_REPLIES, MAX_OPTION_REPLY_DATA};
use crate::handshake::directory::Refusal;
use crate::option::{BadOption, OptionCode, OptionReplyType};

/// Why a handshake can't go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClientError {
    /// The peer isn't an NBD server.
    #[error("not an NBD server: it greets with {0:#018x}")]
    NotNbd(u64),
    /// The peer speaks oldstyle, which went out of use in 2011.
    #[error("the server speaks oldstyle NBD")]
    Oldstyle,
    /// An option's reply doesn't begin with its magic.
    #[error("bad option reply magic {0:#018x}")]
    BadMagic(u64),
    /// The server answers an option that isn't the one that was asked.
    #[error("an answer to option {answered} while waiting for one to {asked}")]
    WrongOption {
        /// What was asked.
        asked: OptionCode,
        /// What was answered.
        answered: OptionCode,
    },
    /// The server answers with something that isn't an answer to this option.
    #[error("option {option} is answered with {reply_type}")]
    UnexpectedReply {
        /// What was asked.
        option: OptionCode,
        /// What came.
        reply_type: OptionReplyType,
    },
    /// A reply is longer than any reply should be.
    #[error("a reply of {0} bytes is longer than {MAX_OPTION_REPLY_DATA}")]
    ReplyTooLong(u32),
    /// The server goes on and on.
    #[error("more than {MAX_OPTION_REPLIES} replies to option {0}")]
    TooManyReplies(OptionCode),
    /// A reply's data is wrong.
    #[error("a bad answer to option {option}: {source}")]
    BadData {
        /// What was asked.
        option: OptionCode,
        /// What is wrong with the answer.
        source: BadOption,
    },
    /// The server refuses what the client can't do without.
    #[error("option {option} is refused: {refusal}")]
    Refused {
        /// What was asked.
        option: OptionCode,
        /// What the server says.
        refusal: Refusal,
    },
    /// GO is granted, but the export's size isn't told.
    #[error("the server grants GO without NBD_INFO_EXPORT")]
    NoExportInfo,
    /// Listing needs fixed newstyle, which the server doesn't speak.
    #[error("the server can't list its exports: it doesn't speak fixed newstyle")]
    CannotList,
    /// `advance` was called after the handshake's end.
    #[error("the handshake has ended")]
    Finished,
}
