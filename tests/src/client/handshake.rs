//! The negotiation, one step at a time.

use super::socket::Socket;
use super::wire::*;

/// The largest option reply that a sane server sends.
const OPTION_REPLY_BYTES_MAX: usize = 64 << 10;

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The export's name.
    pub export: String,
    /// Ask for structured replies.
    pub structured: bool,
    /// Metadata contexts to select.
    pub contexts: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            export: String::new(),
            structured: true,
            contexts: Vec::new(),
        }
    }
}

impl Options {
    /// The default export with simple replies.
    #[must_use]
    pub fn simple() -> Self {
        Self {
            structured: false,
            ..Self::default()
        }
    }

    /// Another export.
    #[must_use]
    pub fn export(mut self, name: &str) -> Self {
        name.clone_into(&mut self.export);
        self
    }

    /// Selects one more metadata context.
    #[must_use]
    pub fn context(mut self, name: &str) -> Self {
        self.contexts.push(name.to_owned());
        self
    }
}

/// What the server said of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// `EXPORT_*`.
    pub flags: u16,
    /// Minimum, preferred and maximum block size, if they were requested.
    pub block_sizes: Option<(u32, u32, u32)>,
    /// The name that the server calls it by.
    pub name: Option<String>,
    /// The description, if it has one.
    pub description: Option<String>,
}

/// One reply to an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// `REP_*`.
    pub kind: u32,
    /// What came with it.
    pub data: Vec<u8>,
}

impl OptionReply {
    /// The text of a refusal.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

/// A connection that negotiates.
#[derive(Debug)]
pub struct Handshake {
    socket: Socket,
}

impl Handshake {
    /// Reads the greeting and answers it with fixed newstyle and no zeroes.
    #[track_caller]
    #[must_use]
    pub fn begin(socket: Socket) -> Self {
        Self::begin_with(socket, u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES))
    }

    /// The same with other client flags.
    ///
    /// # Panics
    /// When the greeting isn't fixed newstyle with NO_ZEROES.
    #[track_caller]
    #[must_use]
    pub fn begin_with(mut socket: Socket, flags: u32) -> Self {
        assert_eq!(socket.receive_u64(), NBDMAGIC, "the greeting's first magic");
        assert_eq!(
            socket.receive_u64(),
            IHAVEOPT,
            "the greeting's second magic"
        );
        assert_eq!(
            socket.receive_u16(),
            FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES,
            "handshake flags"
        );
        socket.send(&flags.to_be_bytes());
        Self { socket }
    }

    /// A connection that has already read and answered the greeting.
    #[must_use]
    pub fn greeted(socket: Socket) -> Self {
        Self { socket }
    }

    /// The bytes of an option.
    #[must_use]
    pub fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).expect("test data is small");
        let mut bytes = Self::option_header(option, len);
        bytes.extend_from_slice(data);
        bytes
    }

    /// An option's header, whatever length it claims.
    #[must_use]
    pub fn option_header(option: u32, len: u32) -> Vec<u8> {
        let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes
    }

    /// Sends an option.
    #[track_caller]
    pub fn send_option(&mut self, option: u32, data: &[u8]) {
        self.socket.send(&Self::option_bytes(option, data));
    }

    /// Reads one reply to `option`.
    ///
    /// # Panics
    /// When it is malformed or answers another option.
    #[track_caller]
    pub fn reply(&mut self, option: u32) -> OptionReply {
        assert_eq!(
            self.socket.receive_u64(),
            OPTION_REPLY_MAGIC,
            "option reply magic"
        );
        assert_eq!(
            self.socket.receive_u32(),
            option,
            "the reply answers another option"
        );
        let kind = self.socket.receive_u32();
        let len = self.socket.receive_u32() as usize;
        assert!(
            len <= OPTION_REPLY_BYTES_MAX,
            "an option reply of {len} bytes"
        );
        OptionReply {
            kind,
            data: self.socket.receive(len),
        }
    }

    /// Sends an option and reads replies up to the final ACK or error.
    #[track_caller]
    pub fn ask(&mut self, option: u32, data: &[u8]) -> Vec<OptionReply> {
        self.send_option(option, data);
        let mut replies = Vec::new();
        loop {
            let reply = self.reply(option);
            let last = reply.kind == REP_ACK || reply.kind & REP_ERROR_BIT != 0;
            replies.push(reply);
            if last {
                return replies;
            }
        }
    }

    /// Sends an option that must be answered by exactly one reply of this kind; returns that reply.
    ///
    /// # Panics
    /// When the answer is another, or when a refusal carries no text.
    #[track_caller]
    pub fn expect(&mut self, option: u32, data: &[u8], kind: u32) -> OptionReply {
        let mut replies = self.ask(option, data);
        assert_eq!(replies.len(), 1, "{replies:x?}");
        let reply = replies.remove(0);
        assert_eq!(
            reply.kind,
            kind,
            "option {option}: {:#x} {:?}",
            reply.kind,
            reply.text()
        );
        let refusal = kind & REP_ERROR_BIT != 0;
        assert!(
            !refusal || !reply.data.is_empty(),
            "a refusal without a text"
        );
        reply
    }

    /// Selects metadata contexts; returns each with its id.
    #[track_caller]
    pub fn set_contexts(&mut self, export: &str, names: &[String]) -> Vec<(u32, String)> {
        self.contexts(OPT_SET_META_CONTEXT, export, names)
    }

    /// Lists metadata contexts; returns each with the id in the reply.
    #[track_caller]
    pub fn list_contexts(&mut self, export: &str, queries: &[String]) -> Vec<(u32, String)> {
        self.contexts(OPT_LIST_META_CONTEXT, export, queries)
    }

    #[track_caller]
    fn contexts(&mut self, option: u32, export: &str, names: &[String]) -> Vec<(u32, String)> {
        let mut data = counted(export);
        data.extend(u32::try_from(names.len()).expect("few").to_be_bytes());
        names.iter().for_each(|name| data.extend(counted(name)));
        let mut replies = self.ask(option, &data);
        let last = replies.pop().expect("ask returns one at least");
        assert_eq!(last.kind, REP_ACK, "{}", last.text());
        replies
            .iter()
            .map(|reply| {
                assert_eq!(reply.kind, REP_META_CONTEXT);
                let (id, name) = reply.data.split_at(4);
                let id = u32::from_be_bytes(id.try_into().expect("four bytes"));
                (
                    id,
                    String::from_utf8(name.to_vec()).expect("names are UTF-8"),
                )
            })
            .collect()
    }

    /// INFO or GO for an export, asking for everything; `Err` is the refusal.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// When the replies are malformed.
    #[track_caller]
    pub fn info(&mut self, option: u32, export: &str) -> Result<Export, OptionReply> {
        let mut data = counted(export);
        let wanted = [INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE];
        data.extend(u16::try_from(wanted.len()).expect("three").to_be_bytes());
        wanted
            .iter()
            .for_each(|kind| data.extend(kind.to_be_bytes()));
        let mut replies = self.ask(option, &data);
        let last = replies.pop().expect("ask returns one at least");
        if last.kind != REP_ACK {
            return Err(last);
        }
        let mut found = Export {
            size: 0,
            flags: 0,
            block_sizes: None,
            name: None,
            description: None,
        };
        for reply in replies {
            assert_eq!(reply.kind, REP_INFO);
            let (kind, body) = reply.data.split_at(2);
            let text = || String::from_utf8(body.to_vec()).expect("texts are UTF-8");
            match u16::from_be_bytes(kind.try_into().expect("two bytes")) {
                INFO_EXPORT => {
                    assert_eq!(body.len(), 10, "INFO_EXPORT");
                    found.size = u64::from_be_bytes(body[..8].try_into().expect("eight"));
                    found.flags = u16::from_be_bytes(body[8..].try_into().expect("two"));
                }
                INFO_NAME => found.name = Some(text()),
                INFO_DESCRIPTION => found.description = Some(text()),
                INFO_BLOCK_SIZE => {
                    let field =
                        |i: usize| u32::from_be_bytes(body[4 * i..][..4].try_into().expect("four"));
                    found.block_sizes = Some((field(0), field(1), field(2)));
                }
                other => panic!("information that nobody asked for: {other}"),
            }
        }
        assert_ne!(
            found.flags & EXPORT_HAS_FLAGS,
            0,
            "no INFO_EXPORT, or none with HAS_FLAGS"
        );
        Ok(found)
    }

    /// Gives up the connection for any use.
    #[must_use]
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Lends the connection for a moment.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// A string after its length as u32.
pub(super) fn counted(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len())
        .expect("names are short")
        .to_be_bytes()
        .to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
