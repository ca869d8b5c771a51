//! The server's half of the handshake.
//!
//! ```text
//!            greeting              flags                      option with data
//!  Greeting ----------> ClientFlags -----> Options <-----------------------------------.
//!                           |               |  |  \-- header --> Data (bounded) --------|
//!                     unknown bit           |  \----- header --> Drain (any length) ----'
//!                           v               v
//!                        Finished  <--- GO, EXPORT_NAME, ABORT, a stream out of step
//! ```
//!
//! Invariants:
//! - Each option is answered once, in order, before the next one is looked at.
//! - Data is waited for as a whole only if it is at most [`MAX_OPTION_DATA`] long. Longer data, and all data of an
//!   option that is going to be refused anyway, is consumed as it comes and never kept.
//! - Nothing that was negotiated in the clear survives `NBD_OPT_STARTTLS` (CVE-2021-3716). No byte that the client sent
//!   before TLS is read as if it had come through it.

mod answer;

use bytes::BytesMut;
use thiserror::Error;

use super::directory::{ExportDirectory, Refusal};
use crate::codec::Codec;
use crate::constants::{
    CLIENT_FLAGS_SIZE, INIT_MAGIC, MAX_NAME, MAX_OPTION_DATA, MAX_OPTIONS, OPTION_HEADER_SIZE,
    OPTION_MAGIC,
};
use crate::flags::{ClientFlags, HandshakeFlags};
use crate::info::ExportInfo;
use crate::meta_context::MetaContextSet;
use crate::option::{OptionCode, OptionHeader, OptionReplyType, encode_refusal, encode_reply};
use crate::reply::ReplyStyle;
use crate::request::ExportLimits;

/// What a server says to `NBD_OPT_STARTTLS`, and to options before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// TLS isn't configured: ERR_UNSUP.
    #[default]
    Unsupported,
    /// The client may choose.
    Optional,
    /// Everything but ABORT gets ERR_TLS_REQD before TLS.
    Required,
}

/// What the caller does next. Output is always to be sent first.
#[derive(Debug)]
pub enum Step {
    /// Read more, append it to the input, call again.
    NeedMore,
    /// Send the output, then call again with what is left of the input.
    Reply,
    /// Send the output, do the TLS handshake, and call again with what comes out of it.
    StartTls,
    /// Send the output; what is left of the input are requests.
    Transmission(Box<Negotiated>),
    /// Send the output if the peer still takes it, and close.
    Close(CloseReason),
}

/// Why a handshake ended without entering transmission.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent `NBD_OPT_ABORT`.
    #[error("the client aborted the handshake")]
    Aborted,
    /// The client set flags that don't exist.
    #[error("unknown client flags {0:?}")]
    UnknownClientFlags(ClientFlags),
    /// Something other than an option came.
    #[error("bad option magic {0:#018x}")]
    BadMagic(u64),
    /// The client goes on and on.
    #[error("more than {MAX_OPTIONS} options")]
    TooManyOptions,
    /// `NBD_OPT_EXPORT_NAME` failed; the protocol has no reply for that.
    #[error("EXPORT_NAME failed: {0}")]
    ExportRefused(Refusal),
    /// A client that doesn't speak *fixed* newstyle sent an option that could only be answered by one that does.
    #[error("option {0} from a client without fixed newstyle")]
    NotFixedNewstyle(OptionCode),
    /// Bytes followed `NBD_OPT_STARTTLS` before it was answered: an attempt at injection, or a broken client.
    #[error("{0} bytes arrived in the clear after STARTTLS")]
    DataBeforeTls(usize),
    /// `advance` was called after the handshake's end.
    #[error("the handshake has ended")]
    Finished,
}

/// What [`ServerHandshake::advance`] did.
#[derive(Debug)]
pub struct Advance {
    /// How many bytes at the front of the input are used up.
    pub consumed: usize,
    /// What comes next.
    pub step: Step,
}

/// What was agreed on when transmission begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The export's name as the client sent it.
    pub export: String,
    /// The export as the client was told of it, transmission flags included.
    pub info: ExportInfo,
    /// How replies are framed.
    pub reply_style: ReplyStyle,
    /// The contexts that the client selected for this export. Their ids are [`MetaContext::id`].
    ///
    /// [`MetaContext::id`]: crate::meta_context::MetaContext::id
    pub meta_contexts: MetaContextSet,
    /// Whether both sides agreed to leave out the zeroes after EXPORT_NAME's answer.
    pub no_zeroes: bool,
    /// Whether the connection is under TLS.
    pub tls: bool,
}

impl Negotiated {
    /// What requests are held against.
    #[must_use]
    pub const fn limits(&self, max_payload: u32) -> ExportLimits {
        ExportLimits {
            size: self.info.size,
            transmission_flags: self.info.flags,
            max_payload,
            reply_style: self.reply_style,
            meta_contexts: self.meta_contexts,
        }
    }
}

/// The server's half of one connection's handshake.
#[derive(Debug)]
pub struct ServerHandshake {
    state: State,
    tls_policy: TlsPolicy,
    shutting_down: bool,
    /// Whether the connection is under TLS.
    tls: bool,
    client_flags: ClientFlags,
    options_seen: u32,
    /// What STARTTLS forgets.
    session: Session,
}

/// What options have settled so far, all of which STARTTLS forgets.
#[derive(Debug, Default)]
struct Session {
    reply_style: ReplyStyle,
    /// The last SET_META_CONTEXT that succeeded: the export that it named, and what it selected.
    selected: Option<(String, MetaContextSet)>,
}

#[derive(Debug)]
enum State {
    Greeting,
    ClientFlags,
    /// At the beginning of an option.
    Option,
    /// An option's header is consumed, its data isn't.
    Data(OptionHeader),
    /// An option's data is thrown away as it comes; then the option is refused.
    Drain {
        option: OptionCode,
        remaining: u32,
        refusal: Refusal,
    },
    Finished,
}

impl ServerHandshake {
    /// A handshake that has yet to send its greeting.
    #[must_use]
    pub fn new(tls_policy: TlsPolicy) -> Self {
        Self {
            state: State::Greeting,
            tls_policy,
            shutting_down: false,
            tls: false,
            client_flags: ClientFlags::EMPTY,
            options_seen: 0,
            session: Session::default(),
        }
    }

    /// Answers ERR_SHUTDOWN to every option but ABORT from now on.
    pub const fn set_shutting_down(&mut self) {
        self.shutting_down = true;
    }

    /// Takes what it can use off the front of `input` and appends what is to be sent to `output`.
    ///
    /// The first call may have an empty input, and sends the greeting. `input` is everything that has arrived and that
    /// former calls didn't consume: at most [`MAX_HANDSHAKE_BACKLOG`](crate::constants::MAX_HANDSHAKE_BACKLOG) bytes
    /// plus what was read since. After `Transmission` and `Close` there is nothing more to come.
    pub fn advance(
        &mut self,
        input: &[u8],
        exports: &dyn ExportDirectory,
        output: &mut BytesMut,
    ) -> Advance {
        let mut rest = input;
        let step = loop {
            if let Some(step) = self.turn(&mut rest, exports, output) {
                break step;
            }
        };
        if matches!(step, Step::Transmission(_) | Step::Close(_)) {
            self.state = State::Finished;
        }
        Advance {
            consumed: input.len() - rest.len(),
            step,
        }
    }

    /// Goes from one state to the next; `None` if there is nothing to tell the caller yet.
    fn turn(
        &mut self,
        rest: &mut &[u8],
        exports: &dyn ExportDirectory,
        output: &mut BytesMut,
    ) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Option) {
            State::Greeting => {
                INIT_MAGIC.encode(output);
                OPTION_MAGIC.encode(output);
                (HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES).encode(output);
                self.state = State::ClientFlags;
                Some(Step::Reply)
            }
            State::ClientFlags => {
                let Some(bytes) = take_array::<CLIENT_FLAGS_SIZE>(rest) else {
                    self.state = State::ClientFlags;
                    return Some(Step::NeedMore);
                };
                self.client_flags = ClientFlags(u32::from_be_bytes(bytes));
                let unknown = self.client_flags.difference(ClientFlags::KNOWN);
                (!unknown.is_empty())
                    .then_some(Step::Close(CloseReason::UnknownClientFlags(unknown)))
            }
            State::Option => match take_array::<OPTION_HEADER_SIZE>(rest) {
                Some(bytes) => self.begin_option(&bytes),
                None => Some(Step::NeedMore),
            },
            State::Data(header) => {
                let length = usize::try_from(header.length).unwrap_or(usize::MAX);
                let Some((data, tail)) = rest.split_at_checked(length) else {
                    self.state = State::Data(header);
                    return Some(Step::NeedMore);
                };
                *rest = tail;
                Some(self.answer(header.option, data, tail.len(), exports, output))
            }
            State::Drain {
                option,
                remaining,
                refusal,
            } => {
                let drained = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(remaining);
                *rest = &rest[usize::try_from(drained).unwrap_or(rest.len())..];
                if drained < remaining {
                    self.state = State::Drain {
                        option,
                        remaining: remaining - drained,
                        refusal,
                    };
                    return Some(Step::NeedMore);
                }
                encode_refusal(output, option, refusal.reply_type, &refusal.text);
                Some(Step::Reply)
            }
            State::Finished => Some(Step::Close(CloseReason::Finished)),
        }
    }

    /// Decides from an option's header alone whether its data is worth waiting for.
    fn begin_option(&mut self, header: &[u8; OPTION_HEADER_SIZE]) -> Option<Step> {
        let header = match OptionHeader::decode(header) {
            Ok(header) => header,
            Err(error) => return Some(Step::Close(CloseReason::BadMagic(error.0))),
        };
        let option = header.option;
        self.options_seen += 1;
        if self.options_seen > MAX_OPTIONS {
            return Some(Step::Close(CloseReason::TooManyOptions));
        }
        if option == OptionCode::SET_META_CONTEXT {
            // It replaces the former set even if it is going to fail.
            self.session.selected = None;
        }
        match self.precheck(&header) {
            Ok(()) => {
                // A client that wants to leave isn't kept for data that has no meaning.
                let length = if option == OptionCode::ABORT {
                    0
                } else {
                    header.length
                };
                self.state = State::Data(OptionHeader { option, length });
                None
            }
            Err(refusal) if option == OptionCode::EXPORT_NAME => {
                Some(Step::Close(CloseReason::ExportRefused(refusal)))
            }
            Err(_) if !self.client_flags.contains(ClientFlags::FIXED_NEWSTYLE) => {
                Some(Step::Close(CloseReason::NotFixedNewstyle(option)))
            }
            Err(refusal) => {
                self.state = State::Drain {
                    option,
                    remaining: header.length,
                    refusal,
                };
                None
            }
        }
    }

    /// Whether an option may be looked at, as far as its header says.
    fn precheck(&self, header: &OptionHeader) -> Result<(), Refusal> {
        let OptionHeader { option, length } = *header;
        if option != OptionCode::EXPORT_NAME
            && !self.client_flags.contains(ClientFlags::FIXED_NEWSTYLE)
        {
            return Err(Refusal::policy(
                "only EXPORT_NAME goes without fixed newstyle",
            ));
        }
        if option == OptionCode::ABORT {
            return Ok(());
        }
        if self.shutting_down {
            return Err(Refusal::new(
                OptionReplyType::ERR_SHUTDOWN,
                "the server is shutting down",
            ));
        }
        if self.tls_policy == TlsPolicy::Required && !self.tls && option != OptionCode::STARTTLS {
            let text = format!("option {option} is refused before STARTTLS");
            return Err(Refusal::new(OptionReplyType::ERR_TLS_REQD, text));
        }
        match option {
            OptionCode::EXPORT_NAME if length as usize > MAX_NAME => Err(Refusal::invalid(
                format!("a name of {length} bytes is longer than {MAX_NAME}"),
            )),
            OptionCode::STARTTLS if self.tls_policy == TlsPolicy::Unsupported => Err(Refusal::new(
                OptionReplyType::ERR_UNSUP,
                "TLS isn't configured on this server",
            )),
            OptionCode::STARTTLS if self.tls => Err(Refusal::invalid("TLS is in use already")),
            OptionCode::LIST | OptionCode::STARTTLS | OptionCode::STRUCTURED_REPLY
                if length > 0 =>
            {
                Err(Refusal::invalid(format!(
                    "option {option} takes no data, but {length} bytes came"
                )))
            }
            OptionCode::EXPORT_NAME
            | OptionCode::LIST
            | OptionCode::STARTTLS
            | OptionCode::INFO
            | OptionCode::GO
            | OptionCode::STRUCTURED_REPLY
            | OptionCode::LIST_META_CONTEXT
            | OptionCode::SET_META_CONTEXT => {
                if length <= MAX_OPTION_DATA {
                    return Ok(());
                }
                let text = format!(
                    "option {option} has {length} bytes of data; the limit is {MAX_OPTION_DATA}"
                );
                Err(Refusal::new(OptionReplyType::ERR_TOO_BIG, text))
            }
            _ => Err(Refusal::new(
                OptionReplyType::ERR_UNSUP,
                format!("option {option} isn't supported"),
            )),
        }
    }

    /// Answers an option whose data has arrived whole. `behind` bytes of input lie behind it.
    fn answer(
        &mut self,
        option: OptionCode,
        data: &[u8],
        behind: usize,
        exports: &dyn ExportDirectory,
        output: &mut BytesMut,
    ) -> Step {
        let start = output.len();
        let granted = match option {
            OptionCode::EXPORT_NAME => return self.export_name(data, exports, output),
            OptionCode::ABORT => Ok(Step::Close(CloseReason::Aborted)),
            OptionCode::STARTTLS if behind > 0 => {
                return Step::Close(CloseReason::DataBeforeTls(behind));
            }
            OptionCode::STARTTLS => {
                self.tls = true;
                self.session = Session::default();
                Ok(Step::StartTls)
            }
            OptionCode::STRUCTURED_REPLY => {
                self.session.reply_style = ReplyStyle::Structured;
                Ok(Step::Reply)
            }
            OptionCode::LIST => answer::list(exports, output).map(|()| Step::Reply),
            OptionCode::LIST_META_CONTEXT => {
                answer::list_meta_context(data, exports, output).map(|()| Step::Reply)
            }
            OptionCode::SET_META_CONTEXT => self
                .set_meta_context(data, exports, output)
                .map(|()| Step::Reply),
            OptionCode::INFO => self
                .info(option, data, exports, output)
                .map(|_| Step::Reply),
            OptionCode::GO => self
                .info(option, data, exports, output)
                .map(|negotiated| Step::Transmission(Box::new(negotiated))),
            _ => unreachable!("`precheck` drains options that have no answer here"),
        };
        match granted {
            Ok(step) => {
                encode_reply(output, option, OptionReplyType::ACK, |_| {});
                step
            }
            Err(refusal) => {
                // Replies that came before the refusal would be half an answer.
                output.truncate(start);
                encode_refusal(output, option, refusal.reply_type, &refusal.text);
                Step::Reply
            }
        }
    }

    /// EXPORT_NAME: the one option whose success has no reply header, and whose failure has no reply.
    fn export_name(
        &self,
        data: &[u8],
        exports: &dyn ExportDirectory,
        output: &mut BytesMut,
    ) -> Step {
        match self.open(data, exports) {
            Ok(negotiated) => {
                answer::export_name(&negotiated, output);
                Step::Transmission(Box::new(negotiated))
            }
            Err(refusal) => Step::Close(CloseReason::ExportRefused(refusal)),
        }
    }
}

/// Takes `N` bytes off the front of `rest`, if it has them.
fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests;
