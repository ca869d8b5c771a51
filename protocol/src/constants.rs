//! Magic numbers, fixed sizes, and the limits that Weir puts on everything that a peer can choose.
//!
//! Each limit says why it has the figure that it has. Magics: proto.md, "Values".

/// The first eight bytes from a server: `NBDMAGIC`.
pub const INIT_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
/// Follows [`INIT_MAGIC`] in the newstyle handshake and leads every option: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
/// Follows [`INIT_MAGIC`] in the oldstyle handshake, which Weir doesn't speak.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Leads every option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Leads every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Leads every simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Leads every structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Bytes of the server's greeting: two magics and the handshake flags.
pub const GREETING_SIZE: usize = 18;
/// Bytes of the client's flags.
pub const CLIENT_FLAGS_SIZE: usize = 4;
/// Bytes of an option before its data: magic, option, length.
pub const OPTION_HEADER_SIZE: usize = 16;
/// Bytes of an option reply before its data: magic, option, reply type, length.
pub const OPTION_REPLY_HEADER_SIZE: usize = 20;
/// Bytes of `NBD_OPT_EXPORT_NAME`'s answer before the zeroes: size and flags.
pub const EXPORT_NAME_REPLY_SIZE: usize = 10;
/// Zero bytes after `NBD_OPT_EXPORT_NAME`'s answer, unless both sides agreed on `NO_ZEROES`.
pub const EXPORT_NAME_ZEROES: usize = 124;

/// The longest name, description or text of any kind. The protocol's own limit (proto.md, "Values", on strings), so
/// every conforming peer keeps to it.
pub const MAX_NAME: usize = 4096;

/// The longest payload of a READ's reply or a WRITE. qemu and libnbd send up to 32 MiB and some clients 48 MiB, and the
/// Linux client ignores what the server advertises: 64 MiB leaves room for all of them while it still bounds what one
/// request can ask a server to hold.
pub const MAX_PAYLOAD: u32 = 64 << 20;

/// The preferred block size that is advertised: a page, which is what the cache is made of.
pub const PREFERRED_BLOCK_SIZE: u32 = 4096;

/// The most option data that is buffered; longer data is drained and refused. An export name of [`MAX_NAME`] and half a
/// dozen queries of the same length fit, while ten thousand idle peers that have each sent one byte less than this cost
/// no more than 320 MiB.
pub const MAX_OPTION_DATA: u32 = 32 << 10;

/// The most options in one handshake. A client that inspects a long list of exports sends two for each of them
/// (`qemu-nbd --list`: INFO and LIST_META_CONTEXT), so a few dozen would be too few.
pub const MAX_OPTIONS: u32 = 1024;

/// The most input that a server's handshake can leave unconsumed: one option, all but its last byte. A caller that
/// reads more only after it has offered the earlier bytes never holds more than this and one read.
pub const MAX_HANDSHAKE_BACKLOG: usize = MAX_OPTION_DATA as usize + OPTION_HEADER_SIZE;

/// The longest text that Weir puts into a refusal. Well under [`MAX_NAME`], which the protocol allows, as the text may
/// quote what the peer sent.
pub const MAX_REFUSAL_TEXT: usize = 512;

/// The most data that a client takes in one option reply: a name and a description of [`MAX_NAME`] each, with room for
/// fields that a later version of the protocol may add.
pub const MAX_OPTION_REPLY_DATA: u32 = 16 << 10;

/// The most replies that a client takes to one option, so that a server can't make it collect for ever. A list of a
/// thousand exports is a long one.
pub const MAX_OPTION_REPLIES: u32 = 4096;

/// The most extents in one `NBD_CMD_BLOCK_STATUS` chunk: 512 KiB of descriptors, half of what qemu's server sends at
/// most. A client asks on from where the last one ended.
pub const MAX_EXTENTS: usize = 64 << 10;

/// The most bytes in a chunk that isn't `OFFSET_DATA`, for a client: a block status of as many extents as the most
/// generous servers send, with its context.
pub const MAX_CONTROL_CHUNK: u32 = 4 + 8 * (128 << 10);
