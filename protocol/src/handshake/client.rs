//! The client's half of the handshake.
//!
//! It asks for one thing after the other and waits for each answer: STRUCTURED_REPLY, SET_META_CONTEXT, then GO; or
//! LIST, then ABORT. The client goes without what it doesn't need: if a server refuses structured replies, it takes
//! simple ones, and a server without GO or without fixed newstyle is asked with EXPORT_NAME. If something is refused
//! that the client needs, the handshake ends with a [`ClientError`].
//!
//! A server is trusted no more than a client is: its replies are bounded in length and in number.

mod error;

use bytes::{BufMut, BytesMut};

pub use self::error::ClientError;
use super::directory::Refusal;
use crate::codec::{Codec, Reader};
use crate::constants::{
    EXPORT_NAME_REPLY_SIZE, EXPORT_NAME_ZEROES, GREETING_SIZE, INIT_MAGIC, MAX_OPTION_REPLIES,
    MAX_OPTION_REPLY_DATA, OLDSTYLE_MAGIC, OPTION_MAGIC, OPTION_REPLY_HEADER_SIZE,
};
use crate::flags::{ClientFlags, HandshakeFlags, TransmissionFlags};
use crate::info::{BlockSizes, Info, InfoType};
use crate::option::{
    BadOption, InfoRequest, MetaContextRequest, OptionCode, OptionReplyHeader, OptionReplyType,
    check_string, encode_option,
};
use crate::reply::ReplyStyle;

/// What the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Enter transmission with the export.
    #[default]
    Transmission,
    /// List the exports and leave.
    List,
}

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientConfig {
    /// What to do. Listing needs nothing of the rest.
    pub goal: Goal,
    /// The export's name; empty for the default one.
    pub export: String,
    /// Whether to ask for structured replies.
    pub structured_replies: bool,
    /// The metadata contexts to select. Needs structured replies.
    pub meta_contexts: Vec<String>,
}

/// What the caller does next. Output is always to be sent first.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientStep {
    /// Read more, append it to the input, call again.
    NeedMore,
    /// Transmission has begun; what is left of the input are replies (there can't be any yet).
    Transmission(Box<ClientNegotiated>),
    /// The list is complete; close the connection.
    Listed(Vec<ListedExport>),
}

/// What a client and a server have agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientNegotiated {
    /// The export's size in bytes.
    pub size: u64,
    /// What works.
    pub flags: TransmissionFlags,
    /// The canonical name, if the server says.
    pub name: Option<String>,
    /// A text for people, if there is one.
    pub description: Option<String>,
    /// Block size constraints, if the server says.
    pub block_sizes: Option<BlockSizes>,
    /// How replies are framed.
    pub reply_style: ReplyStyle,
    /// The contexts that the server granted, with the ids that their chunks carry.
    pub meta_contexts: Vec<(u32, String)>,
}

/// One export of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedExport {
    /// Its name.
    pub name: String,
    /// A text for people; empty for none.
    pub description: String,
}

#[derive(Debug)]
enum State {
    Greeting,
    /// Waiting for a reply's header, to this option.
    Header(OptionCode),
    /// A reply's header is consumed, its data isn't.
    Data(OptionReplyHeader),
    /// Waiting for EXPORT_NAME's answer, which has no header.
    ExportName,
    Finished,
}

/// The client's half of one connection's handshake.
#[derive(Debug)]
pub struct ClientHandshake {
    config: ClientConfig,
    state: State,
    no_zeroes: bool,
    /// Replies to the option that is being answered.
    replies: u32,
    /// Whether `NBD_INFO_EXPORT` has come.
    has_size: bool,
    negotiated: ClientNegotiated,
    listed: Vec<ListedExport>,
}

impl ClientHandshake {
    /// A handshake that waits for the server's greeting.
    ///
    /// # Errors
    /// [`BadOption`] if a name in `config` can't be sent.
    pub fn new(config: ClientConfig) -> Result<Self, BadOption> {
        check_string(config.export.as_bytes())?;
        for context in &config.meta_contexts {
            check_string(context.as_bytes())?;
        }
        Ok(Self {
            config,
            state: State::Greeting,
            no_zeroes: false,
            replies: 0,
            has_size: false,
            negotiated: ClientNegotiated::default(),
            listed: Vec::new(),
        })
    }

    /// Takes what it can use off the front of `input`, appends what is to be sent to `output`, and says how many bytes
    /// it consumed and what comes next.
    ///
    /// `input` is everything that has arrived and that former calls didn't consume. A server that closes the connection
    /// while EXPORT_NAME is being answered thereby says that there is no such export.
    ///
    /// # Errors
    /// [`ClientError`]: the connection is of no further use.
    pub fn advance(
        &mut self,
        input: &[u8],
        output: &mut BytesMut,
    ) -> Result<(usize, ClientStep), ClientError> {
        let mut reader = Reader::new(input);
        let step = loop {
            match self.turn(&mut reader, output) {
                Ok(None) => {}
                Ok(Some(step)) => break step,
                Err(error) => {
                    self.state = State::Finished;
                    return Err(error);
                }
            }
        };
        Ok((input.len() - reader.remaining(), step))
    }

    /// Goes from one state to the next; `None` if there is nothing to tell the caller yet.
    fn turn(
        &mut self,
        reader: &mut Reader<'_>,
        output: &mut BytesMut,
    ) -> Result<Option<ClientStep>, ClientError> {
        match self.state {
            State::Greeting => {
                let Ok(greeting) = reader.array::<GREETING_SIZE>() else {
                    return Ok(Some(ClientStep::NeedMore));
                };
                self.greet(&greeting, output)?;
                Ok(None)
            }
            State::Header(asked) => {
                let Ok(header) = reader.array::<OPTION_REPLY_HEADER_SIZE>() else {
                    return Ok(Some(ClientStep::NeedMore));
                };
                self.begin_reply(asked, &header)?;
                Ok(None)
            }
            State::Data(header) => {
                let Ok(data) = reader.take(usize::try_from(header.length).unwrap_or(usize::MAX))
                else {
                    return Ok(Some(ClientStep::NeedMore));
                };
                self.state = State::Header(header.option);
                self.reply(&header, data, output)
            }
            State::ExportName => {
                let zeroes = if self.no_zeroes {
                    0
                } else {
                    EXPORT_NAME_ZEROES
                };
                let Ok(mut answer) = reader.sub(EXPORT_NAME_REPLY_SIZE + zeroes) else {
                    return Ok(Some(ClientStep::NeedMore));
                };
                let fields = (answer.get(), answer.get());
                let (Ok(size), Ok(flags)) = fields else {
                    unreachable!("the answer has been measured")
                };
                (self.negotiated.size, self.negotiated.flags) = (size, flags);
                // EXPORT_NAME names the export that the contexts were selected for, so they stay.
                Ok(Some(self.enter_transmission()))
            }
            State::Finished => Err(ClientError::Finished),
        }
    }

    /// Judges the greeting, answers with the client's flags, and asks for the first thing.
    fn greet(
        &mut self,
        greeting: &[u8; GREETING_SIZE],
        output: &mut BytesMut,
    ) -> Result<(), ClientError> {
        let [
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            flags @ ..,
        ] = *greeting;
        let init = u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
        let style = u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        match (init, style) {
            (INIT_MAGIC, OPTION_MAGIC) => {}
            (INIT_MAGIC, OLDSTYLE_MAGIC) => return Err(ClientError::Oldstyle),
            (INIT_MAGIC, other) | (other, _) => return Err(ClientError::NotNbd(other)),
        }
        let offered = HandshakeFlags(u16::from_be_bytes(flags));
        let fixed = offered.contains(HandshakeFlags::FIXED_NEWSTYLE);
        self.no_zeroes = offered.contains(HandshakeFlags::NO_ZEROES);
        let mut accepted = ClientFlags::EMPTY;
        if fixed {
            accepted |= ClientFlags::FIXED_NEWSTYLE;
        }
        if self.no_zeroes {
            accepted |= ClientFlags::NO_ZEROES;
        }
        accepted.encode(output);
        match self.config.goal {
            Goal::List if !fixed => return Err(ClientError::CannotList),
            Goal::List => self.ask(OptionCode::LIST, output),
            Goal::Transmission if !fixed => self.ask(OptionCode::EXPORT_NAME, output),
            Goal::Transmission if self.config.structured_replies => {
                self.ask(OptionCode::STRUCTURED_REPLY, output)
            }
            Goal::Transmission => self.ask(OptionCode::GO, output),
        }
        Ok(())
    }

    /// Sends an option and waits for its answer.
    fn ask(&mut self, option: OptionCode, output: &mut BytesMut) {
        let config = &self.config;
        encode_option(output, option, |out| match option {
            OptionCode::EXPORT_NAME => out.put_slice(config.export.as_bytes()),
            OptionCode::GO => {
                let wanted = vec![InfoType::NAME, InfoType::DESCRIPTION, InfoType::BLOCK_SIZE];
                InfoRequest {
                    export: &config.export,
                    wanted,
                }
                .encode(out);
            }
            OptionCode::SET_META_CONTEXT => {
                let queries = config.meta_contexts.iter().map(String::as_str).collect();
                MetaContextRequest {
                    export: &config.export,
                    queries,
                }
                .encode(out);
            }
            _ => {}
        });
        self.replies = 0;
        self.state = match option {
            OptionCode::EXPORT_NAME => State::ExportName,
            _ => State::Header(option),
        };
    }

    /// Decides from a reply's header alone whether its data is worth waiting for.
    fn begin_reply(
        &mut self,
        asked: OptionCode,
        header: &[u8; OPTION_REPLY_HEADER_SIZE],
    ) -> Result<(), ClientError> {
        let header =
            OptionReplyHeader::decode(header).map_err(|error| ClientError::BadMagic(error.0))?;
        if header.option != asked {
            return Err(ClientError::WrongOption {
                asked,
                answered: header.option,
            });
        }
        if header.length > MAX_OPTION_REPLY_DATA {
            return Err(ClientError::ReplyTooLong(header.length));
        }
        self.replies += 1;
        if self.replies > MAX_OPTION_REPLIES {
            return Err(ClientError::TooManyReplies(asked));
        }
        self.state = State::Data(header);
        Ok(())
    }

    /// Takes one reply in.
    fn reply(
        &mut self,
        header: &OptionReplyHeader,
        data: &[u8],
        output: &mut BytesMut,
    ) -> Result<Option<ClientStep>, ClientError> {
        let OptionReplyHeader {
            option, reply_type, ..
        } = *header;
        let bad_data = |source| ClientError::BadData { option, source };
        match (option, reply_type) {
            (_, OptionReplyType::ACK) => return self.granted(option, output),
            (_, error) if error.is_error() => {
                let refusal = Refusal::new(error, String::from_utf8_lossy(data));
                return self.refused(option, refusal, output).map(|()| None);
            }
            (OptionCode::LIST, OptionReplyType::SERVER) => {
                self.listed.push(decode_listed(data).map_err(bad_data)?);
            }
            (OptionCode::GO, OptionReplyType::INFO) => self.take_info(data).map_err(bad_data)?,
            (OptionCode::SET_META_CONTEXT, OptionReplyType::META_CONTEXT) => {
                self.negotiated
                    .meta_contexts
                    .push(decode_meta_context(data).map_err(bad_data)?);
            }
            _ => return Err(ClientError::UnexpectedReply { option, reply_type }),
        }
        Ok(None)
    }

    /// An option succeeded: on to the next.
    fn granted(
        &mut self,
        option: OptionCode,
        output: &mut BytesMut,
    ) -> Result<Option<ClientStep>, ClientError> {
        match option {
            OptionCode::STRUCTURED_REPLY => {
                self.negotiated.reply_style = ReplyStyle::Structured;
                let next = if self.config.meta_contexts.is_empty() {
                    OptionCode::GO
                } else {
                    OptionCode::SET_META_CONTEXT
                };
                self.ask(next, output);
                Ok(None)
            }
            OptionCode::SET_META_CONTEXT => {
                self.ask(OptionCode::GO, output);
                Ok(None)
            }
            OptionCode::GO if self.has_size => Ok(Some(self.enter_transmission())),
            OptionCode::GO => Err(ClientError::NoExportInfo),
            OptionCode::LIST => {
                // The answer to ABORT isn't waited for; the server tolerates that.
                encode_option(output, OptionCode::ABORT, |_| {});
                self.state = State::Finished;
                Ok(Some(ClientStep::Listed(std::mem::take(&mut self.listed))))
            }
            _ => Err(ClientError::UnexpectedReply {
                option,
                reply_type: OptionReplyType::ACK,
            }),
        }
    }

    /// An option failed: on without it, or not at all.
    fn refused(
        &mut self,
        option: OptionCode,
        refusal: Refusal,
        output: &mut BytesMut,
    ) -> Result<(), ClientError> {
        match (option, refusal.reply_type) {
            // Before TLS nothing is going to work, and each further question would get the same answer.
            (_, OptionReplyType::ERR_TLS_REQD) => Err(ClientError::Refused { option, refusal }),
            (OptionCode::GO, OptionReplyType::ERR_UNSUP) => {
                self.has_size = false;
                self.ask(OptionCode::EXPORT_NAME, output);
                Ok(())
            }
            (OptionCode::STRUCTURED_REPLY | OptionCode::SET_META_CONTEXT, _) => {
                self.negotiated.meta_contexts.clear();
                self.ask(OptionCode::GO, output);
                Ok(())
            }
            _ => Err(ClientError::Refused { option, refusal }),
        }
    }

    fn take_info(&mut self, data: &[u8]) -> Result<(), BadOption> {
        match Info::decode(data)? {
            Info::Export { size, flags } => {
                (self.negotiated.size, self.negotiated.flags) = (size, flags);
                self.has_size = true;
            }
            Info::Name(name) => self.negotiated.name = Some(check_string(name)?.to_owned()),
            Info::Description(text) => {
                self.negotiated.description = Some(check_string(text)?.to_owned())
            }
            Info::BlockSize(sizes) => self.negotiated.block_sizes = Some(sizes),
            Info::Unknown(..) => {}
        }
        Ok(())
    }

    fn enter_transmission(&mut self) -> ClientStep {
        self.state = State::Finished;
        ClientStep::Transmission(Box::new(std::mem::take(&mut self.negotiated)))
    }
}

fn decode_listed(data: &[u8]) -> Result<ListedExport, BadOption> {
    let mut reader = Reader::new(data);
    let name = check_string(reader.prefixed()?)?.to_owned();
    let description = check_string(reader.rest())?.to_owned();
    Ok(ListedExport { name, description })
}

fn decode_meta_context(data: &[u8]) -> Result<(u32, String), BadOption> {
    let mut reader = Reader::new(data);
    let id = reader.get()?;
    Ok((id, check_string(reader.rest())?.to_owned()))
}

#[cfg(test)]
mod tests;
