//! The protocol's bit sets. Bits without a name survive decoding; the code that reads them decides.

use crate::wire::wire_flags;

wire_flags! {
    /// What the server offers in its greeting (proto.md, "Handshake flags").
    pub struct HandshakeFlags(u16);
    /// The server speaks fixed newstyle: it answers options that it doesn't know.
    const FIXED_NEWSTYLE = 1 << 0;
    /// The server can leave out the zeroes after `NBD_OPT_EXPORT_NAME`'s answer.
    const NO_ZEROES = 1 << 1;
}

wire_flags! {
    /// What the client accepts of the server's offer (proto.md, "Client flags"). An unknown bit: drop the peer.
    pub struct ClientFlags(u32);
    /// The client speaks fixed newstyle.
    const FIXED_NEWSTYLE = 1 << 0;
    /// The client wants no zeroes after `NBD_OPT_EXPORT_NAME`'s answer.
    const NO_ZEROES = 1 << 1;
}

wire_flags! {
    /// What an export can do (proto.md, "Transmission flags").
    pub struct TransmissionFlags(u16);
    /// The other flags mean something. Always set.
    const HAS_FLAGS = 1 << 0;
    /// Writes are refused with EPERM.
    const READ_ONLY = 1 << 1;
    /// `NBD_CMD_FLUSH` works.
    const SEND_FLUSH = 1 << 2;
    /// [`CommandFlags::FUA`] works, on every command.
    const SEND_FUA = 1 << 3;
    /// The device has the seek costs of a spinning disk.
    const ROTATIONAL = 1 << 4;
    /// `NBD_CMD_TRIM` works.
    const SEND_TRIM = 1 << 5;
    /// `NBD_CMD_WRITE_ZEROES` works.
    const SEND_WRITE_ZEROES = 1 << 6;
    /// [`CommandFlags::DF`] works. Only ever sent to a client with structured replies.
    const SEND_DF = 1 << 7;
    /// Several connections see one coherent cache: a flush on one covers all.
    const CAN_MULTI_CONN = 1 << 8;
    /// Reserved for the resize extension.
    const SEND_RESIZE = 1 << 9;
    /// `NBD_CMD_CACHE` works.
    const SEND_CACHE = 1 << 10;
    /// [`CommandFlags::FAST_ZERO`] works.
    const SEND_FAST_ZERO = 1 << 11;
    /// [`CommandFlags::PAYLOAD_LEN`] works on block status. Needs extended headers.
    const BLOCK_STATUS_PAYLOAD = 1 << 12;
}

wire_flags! {
    /// How a command is to be carried out (proto.md, "Command flags").
    pub struct CommandFlags(u16);
    /// The data is on stable storage before the reply.
    const FUA = 1 << 0;
    /// On WRITE_ZEROES: don't make a hole.
    const NO_HOLE = 1 << 1;
    /// On READ: don't fragment, one data chunk.
    const DF = 1 << 2;
    /// On BLOCK_STATUS: one extent, inside the request.
    const REQ_ONE = 1 << 3;
    /// On WRITE_ZEROES: fail with ENOTSUP rather than write zeroes slowly.
    const FAST_ZERO = 1 << 4;
    /// The length is that of a payload. Needs extended headers.
    const PAYLOAD_LEN = 1 << 5;
}

wire_flags! {
    /// Flags of a structured reply chunk (proto.md, "Structured reply flags").
    pub struct ChunkFlags(u16);
    /// The last chunk of its reply.
    const DONE = 1 << 0;
}
