//! Helpers that several tests need.

use bytes::BytesMut;

use crate::constants::MAX_PAYLOAD;
use crate::flags::{CommandFlags, TransmissionFlags};
use crate::handshake::directory::{ExportDirectory, Refusal};
use crate::info::{BlockSizes, ExportInfo};
use crate::meta_context::MetaContextSet;
use crate::reply::ReplyStyle;
use crate::request::{Command, ExportLimits, Request};

/// Bytes from hexadecimal digits; white space is for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    assert_eq!(digits.len() % 2, 0, "odd number of digits");
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).expect("a digit")).unwrap();
    digits
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// What `write` appends.
pub(crate) fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    write(&mut out);
    out
}

pub(crate) const SIZE: u64 = 1 << 20;

/// Everything that a writable export can do.
pub(crate) fn all_flags() -> TransmissionFlags {
    TransmissionFlags::HAS_FLAGS
        | TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::SEND_TRIM
        | TransmissionFlags::SEND_WRITE_ZEROES
        | TransmissionFlags::SEND_DF
        | TransmissionFlags::CAN_MULTI_CONN
        | TransmissionFlags::SEND_CACHE
        | TransmissionFlags::SEND_FAST_ZERO
}

pub(crate) fn limits() -> ExportLimits {
    ExportLimits {
        size: SIZE,
        transmission_flags: all_flags(),
        max_payload: 64 << 10,
        reply_style: ReplyStyle::Structured,
        meta_contexts: MetaContextSet::ALL,
    }
}

pub(crate) fn request(command: Command, flags: CommandFlags, offset: u64, length: u32) -> Request {
    Request {
        flags,
        command,
        cookie: 7,
        offset,
        length,
    }
}

/// Two exports, `disk` (also the default one) and `other`, which has no metadata contexts and no description.
pub(crate) struct TwoExports {
    pub(crate) listing: bool,
}

impl ExportDirectory for TwoExports {
    fn find(&self, name: &str) -> Result<ExportInfo, Refusal> {
        let (name, description, meta_contexts) = match name {
            "" | "disk" => ("disk", "a disk", MetaContextSet::ALL),
            "other" => ("other", "", MetaContextSet::EMPTY),
            _ => return Err(Refusal::unknown_export(name)),
        };
        Ok(ExportInfo {
            name: name.into(),
            size: SIZE,
            flags: all_flags(),
            description: description.into(),
            block_sizes: BlockSizes {
                minimum: 1,
                preferred: 4096,
                maximum: MAX_PAYLOAD,
            },
            meta_contexts,
        })
    }

    fn list(&self, visit: &mut dyn FnMut(&str, &str)) -> Result<(), Refusal> {
        visit("disk", "a disk");
        if !self.listing {
            return Err(Refusal::policy("listing is disabled"));
        }
        visit("other", "");
        Ok(())
    }
}
