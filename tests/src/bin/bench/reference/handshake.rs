//! The server's half of the smallest handshake that works: GO, ABORT, and a refusal of everything else.

use std::io::{self, Read, Write};

use crate::stream::Stream;
use crate::wire::{
    HANDSHAKE_FLAGS, INIT_MAGIC, OPTION_ABORT, OPTION_GO, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED, TRANSMISSION_FLAGS, be_u32, be_u64, failure,
    read_array,
};

/// Far above what the load generator sends.
const OPTION_LENGTH_MAX: u32 = 4096;

pub(crate) fn serve(stream: &mut Stream, size: u64) -> io::Result<()> {
    stream.without_delay()?;
    let greeting = [
        &INIT_MAGIC.to_be_bytes()[..],
        &OPTION_MAGIC.to_be_bytes(),
        &HANDSHAKE_FLAGS.to_be_bytes(),
    ];
    stream.write_all(&greeting.concat())?;
    let _client_flags: [u8; 4] = read_array(stream)?;
    loop {
        let header: [u8; 16] = read_array(stream)?;
        let (option, length) = (be_u32(&header, 8), be_u32(&header, 12));
        if be_u64(&header, 0) != OPTION_MAGIC || length > OPTION_LENGTH_MAX {
            return Err(failure("a malformed option"));
        }
        io::copy(
            &mut Read::by_ref(stream).take(u64::from(length)),
            &mut io::sink(),
        )?;
        match option {
            OPTION_GO => {
                let info = [
                    &[0, 0][..],
                    &size.to_be_bytes(),
                    &TRANSMISSION_FLAGS.to_be_bytes(),
                ]
                .concat();
                reply(stream, option, REPLY_INFO, &info)?;
                return reply(stream, option, REPLY_ACK, &[]);
            }
            OPTION_ABORT => {
                reply(stream, option, REPLY_ACK, &[])?;
                return Err(failure("the client gave up"));
            }
            _ => reply(stream, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn reply(stream: &mut Stream, option: u32, code: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).expect("a short reply");
    let head = [
        &OPTION_REPLY_MAGIC.to_be_bytes()[..],
        &option.to_be_bytes(),
        &code.to_be_bytes(),
    ]
    .concat();
    stream.write_all(&[&head[..], &length.to_be_bytes(), data].concat())
}
