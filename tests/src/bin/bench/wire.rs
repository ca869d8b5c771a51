//! The bytes of the protocol that a benchmark needs. They are written down separately from `weir_protocol`, so that a
//! mistake there isn't repeated here.

use std::io::{self, Read, Write};

pub(crate) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(crate) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Fixed newstyle and NO_ZEROES, in both directions.
pub(crate) const HANDSHAKE_FLAGS: u16 = 3;

pub(crate) const OPTION_ABORT: u32 = 2;
pub(crate) const OPTION_GO: u32 = 7;
pub(crate) const OPTION_STRUCTURED_REPLY: u32 = 8;
pub(crate) const REPLY_ACK: u32 = 1;
pub(crate) const REPLY_INFO: u32 = 3;
pub(crate) const REPLY_UNSUPPORTED: u32 = 0x8000_0001;

pub(crate) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(crate) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(crate) const CHUNK_MAGIC: u32 = 0x668e_33ef;
pub(crate) const REQUEST_LENGTH: usize = 28;
pub(crate) const SIMPLE_REPLY_LENGTH: usize = 16;
pub(crate) const CHUNK_HEADER_LENGTH: usize = 20;

pub(crate) const CHUNK_DONE: u16 = 1;
pub(crate) const CHUNK_NONE: u16 = 0;
pub(crate) const CHUNK_OFFSET_DATA: u16 = 1;
pub(crate) const CHUNK_ERROR_BIT: u16 = 0x8000;

/// HAS_FLAGS, FLUSH, FUA, CAN_MULTI_CONN.
pub(crate) const TRANSMISSION_FLAGS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 8;
pub(crate) const EINVAL: u32 = 22;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
}

/// One request, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Request {
    pub(crate) const FLUSH: Self = Self {
        command: Command::Flush,
        offset: 0,
        length: 0,
    };
    pub(crate) const DISCONNECT: Self = Self {
        command: Command::Disconnect,
        offset: 0,
        length: 0,
    };

    pub(crate) fn bytes(&self, cookie: u64) -> [u8; REQUEST_LENGTH] {
        let mut bytes = [0; REQUEST_LENGTH];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[6..8].copy_from_slice(&(self.command as u16).to_be_bytes());
        bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// An error of this program with a text.
pub(crate) fn failure(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

pub(crate) fn be_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(crate) fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub(crate) fn read_array<const LENGTH: usize>(stream: &mut impl Read) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn put_option(option: u32, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(
        &u32::try_from(data.len())
            .expect("a short option")
            .to_be_bytes(),
    );
    out.extend_from_slice(data);
}

/// What a handshake settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) size: u64,
    pub(crate) structured: bool,
}

/// The client's half of a handshake. It asks for structured replies if `structured` says so, but doesn't insist on
/// them.
pub(crate) fn negotiate<S: Read + Write>(
    stream: &mut S,
    export: &str,
    structured: bool,
) -> io::Result<Agreed> {
    let greeting: [u8; 18] = read_array(stream)?;
    if be_u64(&greeting, 0) != INIT_MAGIC || be_u64(&greeting, 8) != OPTION_MAGIC {
        return Err(failure("the server's greeting isn't that of an NBD server"));
    }
    stream.write_all(&u32::from(be_u16(&greeting, 16) & HANDSHAKE_FLAGS).to_be_bytes())?;
    let structured = structured && {
        let mut option = Vec::new();
        put_option(OPTION_STRUCTURED_REPLY, &[], &mut option);
        stream.write_all(&option)?;
        read_option_reply(stream)?.0 == REPLY_ACK
    };

    let mut data = u32::try_from(export.len())
        .expect("a short name")
        .to_be_bytes()
        .to_vec();
    data.extend_from_slice(export.as_bytes());
    data.extend_from_slice(&[0, 0]);
    let mut option = Vec::new();
    put_option(OPTION_GO, &data, &mut option);
    stream.write_all(&option)?;
    let mut size = None;
    loop {
        match read_option_reply(stream)? {
            (REPLY_INFO, info) if info.len() >= 12 && be_u16(&info, 0) == 0 => {
                size = Some(be_u64(&info, 2))
            }
            (REPLY_INFO, _) => {}
            (REPLY_ACK, _) => break,
            (code, text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                return Err(failure(format!(
                    "export {export:?} refused with {code:#x}: {text}"
                )));
            }
        }
    }
    let size = size.ok_or_else(|| failure("the server gave no size"))?;
    Ok(Agreed { size, structured })
}

fn read_option_reply(stream: &mut impl Read) -> io::Result<(u32, Vec<u8>)> {
    /// Far above any information reply.
    const LONGEST: u32 = 64 << 10;
    let header: [u8; 20] = read_array(stream)?;
    let length = be_u32(&header, 16);
    if be_u64(&header, 0) != OPTION_REPLY_MAGIC || length > LONGEST {
        return Err(failure("a malformed option reply"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((be_u32(&header, 12), data))
}
