use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::codec::Truncated;
use crate::testing::{hex, written};

const COOKIE: u64 = 0x0102_0304_0506_0708;
const COOKIE_HEX: &str = "0102030405060708";

/// Decodes the one chunk that `bytes` is.
fn decode_chunk(bytes: &[u8]) -> (ChunkHeader, Result<Chunk<'_>, BadReply>) {
    let (header, size) = ReplyHeader::decode(bytes).unwrap().unwrap();
    let ReplyHeader::Chunk(header) = header else {
        panic!("not a chunk: {header:?}")
    };
    assert_eq!(
        header.length as usize,
        bytes.len() - size,
        "the length covers what follows"
    );
    (header, Chunk::decode(&header, &bytes[size..]))
}

#[test]
fn simple_replies() {
    let ok = SimpleReply {
        error: None,
        cookie: COOKIE,
    };
    assert_eq!(
        ok.encode().as_slice(),
        hex("67446698 00000000 0102030405060708")
    );
    let error = SimpleReply {
        error: Some(NbdError::NOSPC),
        cookie: COOKIE,
    };
    assert_eq!(
        error.encode().as_slice(),
        hex("67446698 0000001c 0102030405060708")
    );
    for reply in [ok, error] {
        assert_eq!(
            ReplyHeader::decode(&reply.encode()),
            Ok(Some((ReplyHeader::Simple(reply), 16)))
        );
    }
}

#[test]
fn data_chunk() {
    let header = offset_data_header(ChunkFlags::EMPTY, COOKIE, 0x1000, 3);
    assert_eq!(
        header.as_slice(),
        hex(&format!(
            "668e33ef 0000 0001 {COOKIE_HEX} 0000000b 0000000000001000"
        ))
    );
    let bytes = [&header[..], b"abc"].concat();
    let (header, chunk) = decode_chunk(&bytes);
    assert_eq!((header.cookie, header.flags), (COOKIE, ChunkFlags::EMPTY));
    assert_eq!(
        chunk,
        Ok(Chunk::Data {
            offset: 0x1000,
            data: b"abc"
        })
    );
}

#[test]
fn hole_chunk() {
    let bytes = offset_hole(ChunkFlags::DONE, COOKIE, 0x1000, 0x200);
    let expected = format!("668e33ef 0001 0002 {COOKIE_HEX} 0000000c 0000000000001000 00000200");
    assert_eq!(bytes.as_slice(), hex(&expected));
    let (header, chunk) = decode_chunk(&bytes);
    assert_eq!(header.flags, ChunkFlags::DONE);
    assert_eq!(
        chunk,
        Ok(Chunk::Hole {
            offset: 0x1000,
            length: 0x200
        })
    );
}

#[test]
fn none_chunk_is_done() {
    let bytes = none_chunk(COOKIE);
    assert_eq!(
        bytes.as_slice(),
        hex(&format!("668e33ef 0001 0000 {COOKIE_HEX} 00000000"))
    );
    assert_eq!(decode_chunk(&bytes).1, Ok(Chunk::None));
}

#[test]
fn error_chunks() {
    let bytes = written(|out| encode_error(out, ChunkFlags::DONE, COOKIE, NbdError::IO, "bad"));
    let expected = format!("668e33ef 0001 8001 {COOKIE_HEX} 00000009 00000005 0003 626164");
    assert_eq!(bytes, hex(&expected));
    let error = Chunk::Error {
        error: NbdError::IO,
        text: "bad".into(),
        offset: None,
    };
    assert_eq!(decode_chunk(&bytes).1, Ok(error));

    let bytes = written(|out| {
        encode_error_offset(out, ChunkFlags::DONE, COOKIE, NbdError::IO, "bad", 0x1200);
    });
    let expected =
        format!("668e33ef 0001 8002 {COOKIE_HEX} 00000011 00000005 0003 626164 0000000000001200");
    assert_eq!(bytes, hex(&expected));
    let error = Chunk::Error {
        error: NbdError::IO,
        text: "bad".into(),
        offset: Some(0x1200),
    };
    assert_eq!(decode_chunk(&bytes).1, Ok(error));
}

#[test]
fn long_error_texts_are_cut() {
    let text = "é".repeat(40_000);
    let bytes = written(|out| encode_error(out, ChunkFlags::DONE, COOKIE, NbdError::IO, &text));
    assert_eq!(bytes.len(), ChunkHeader::SIZE + 6 + MAX_REFUSAL_TEXT);
    assert!(decode_chunk(&bytes).1.is_ok());
}

#[test]
fn block_status_chunk() {
    let extents = [
        Extent {
            length: 0x1000,
            flags: 3,
        },
        Extent {
            length: 0x2000,
            flags: 0,
        },
    ];
    let bytes = written(|out| {
        encode_block_status(
            out,
            ChunkFlags::DONE,
            COOKIE,
            MetaContext::BASE_ALLOCATION,
            &extents,
        );
    });
    let expected = format!(
        "668e33ef 0001 0005 {COOKIE_HEX} 00000014 00000001 00001000 00000003 00002000 00000000"
    );
    assert_eq!(bytes, hex(&expected));
    let status = Chunk::BlockStatus {
        context_id: 1,
        extents: extents.to_vec(),
    };
    assert_eq!(decode_chunk(&bytes).1, Ok(status));
}

#[test]
fn broken_replies_are_refused() {
    assert_eq!(
        ReplyHeader::decode(&hex("67446699")),
        Err(BadReply::Magic(0x6744_6699))
    );
    let decode = |chunk_type, payload: &str| {
        let payload = hex(payload);
        let length = u32::try_from(payload.len()).unwrap();
        let header = ChunkHeader {
            flags: ChunkFlags::DONE,
            chunk_type,
            cookie: 1,
            length,
        };
        Chunk::decode(&header, &payload)
            .map(|chunk| format!("{chunk:?}"))
            .unwrap_err()
    };
    let truncated = |chunk_type, missing| BadReply::Truncated {
        chunk_type,
        source: Truncated { missing },
    };
    let (data, hole, status) = (
        ChunkType::OFFSET_DATA,
        ChunkType::OFFSET_HOLE,
        ChunkType::BLOCK_STATUS,
    );
    assert_eq!(decode(data, "00"), truncated(data, 7));
    assert_eq!(decode(data, "0000000000000000"), BadReply::Empty(data));
    assert_eq!(
        decode(hole, "0000000000000000 00000000"),
        BadReply::Empty(hole)
    );
    assert_eq!(
        decode(hole, "0000000000000000 00000001 ff"),
        BadReply::Trailing {
            chunk_type: hole,
            excess: 1
        }
    );
    assert_eq!(decode(status, "00000001"), BadReply::Empty(status));
    assert_eq!(
        decode(status, "00000001 00000000 00000000"),
        BadReply::Empty(status)
    );
    assert_eq!(
        decode(status, "00000001 00001000 000000"),
        truncated(status, 1)
    );
    assert_eq!(decode(ChunkType::ERROR, "00000000 0000"), BadReply::NoError);
    assert_eq!(
        decode(ChunkType::ERROR, "00000005 0003 61"),
        truncated(ChunkType::ERROR, 2)
    );
    assert_eq!(
        decode(ChunkType::NONE, "00"),
        BadReply::Trailing {
            chunk_type: ChunkType::NONE,
            excess: 1
        }
    );
}

#[test]
fn unknown_chunks_survive() {
    let header = |chunk_type| ChunkHeader {
        flags: ChunkFlags::DONE,
        chunk_type,
        cookie: 1,
        length: 8,
    };
    let payload = hex("00000005 0000 ffff");
    assert_eq!(
        Chunk::decode(&header(ChunkType(77)), &payload),
        Ok(Chunk::Unknown(&payload))
    );
    let error = Chunk::Error {
        error: NbdError::IO,
        text: String::new(),
        offset: None,
    };
    assert_eq!(
        Chunk::decode(&header(ChunkType(0x8077)), &payload),
        Ok(error)
    );
}

#[test]
fn a_header_in_pieces_asks_for_more() {
    for bytes in [
        &SimpleReply {
            error: None,
            cookie: 1,
        }
        .encode()[..],
        &none_chunk(1)[..],
    ] {
        for end in 0..bytes.len() {
            assert_eq!(ReplyHeader::decode(&bytes[..end]), Ok(None), "{end}");
        }
        assert!(ReplyHeader::decode(bytes).unwrap().is_some());
    }
}

proptest! {
    #[test]
    fn random_replies_never_panic(
        chunk_type in prop_oneof![0_u16..8, 0x8000_u16..0x8004, any::<u16>()],
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let length = u32::try_from(payload.len()).unwrap();
        let (flags, chunk_type) = (ChunkFlags::EMPTY, ChunkType(chunk_type));
        let header = ChunkHeader { flags, chunk_type, cookie: 1, length };
        let _ = Chunk::decode(&header, &payload);
        let _ = ReplyHeader::decode(&payload);
    }

    #[test]
    fn chunk_headers_round_trip(flags: u16, chunk_type: u16, cookie: u64, length: u32) {
        let (flags, chunk_type) = (ChunkFlags(flags), ChunkType(chunk_type));
        let header = ChunkHeader { flags, chunk_type, cookie, length };
        prop_assert_eq!(
            ReplyHeader::decode(&header.encode()),
            Ok(Some((ReplyHeader::Chunk(header), ChunkHeader::SIZE)))
        );
    }

    #[test]
    fn block_status_round_trips(extents in prop::collection::vec((1_u32.., any::<u32>()), 1..20)) {
        let extent = |(length, flags)| Extent { length, flags };
        let extents: Vec<_> = extents.into_iter().map(extent).collect();
        let mut bytes = BytesMut::new();
        encode_block_status(&mut bytes, ChunkFlags::DONE, COOKIE, MetaContext::CACHE, &extents);
        prop_assert_eq!(decode_chunk(&bytes).1, Ok(Chunk::BlockStatus { context_id: 2, extents }));
    }
}
