use proptest::prelude::*;

use super::*;
use crate::testing::{hex, written};

#[test]
fn option_header() {
    let header = OptionHeader {
        option: OptionCode::GO,
        length: 0x1234,
    };
    let bytes = hex("49484156454f5054 00000007 00001234");
    assert_eq!(written(|out| header.encode(out)), bytes);
    assert_eq!(
        OptionHeader::decode(bytes.as_slice().try_into().unwrap()),
        Ok(header)
    );
    let wrong = hex("49484156454f5055 00000007 00001234");
    assert_eq!(
        OptionHeader::decode(wrong.as_slice().try_into().unwrap()),
        Err(BadOptionMagic(0x4948_4156_454f_5055))
    );
}

#[test]
fn option_reply_header() {
    let header = OptionReplyHeader {
        option: OptionCode::LIST,
        reply_type: OptionReplyType::ERR_POLICY,
        length: 3,
    };
    let bytes = hex("0003e889045565a9 00000003 80000002 00000003");
    assert_eq!(written(|out| header.encode(out)), bytes);
    assert_eq!(
        OptionReplyHeader::decode(bytes.as_slice().try_into().unwrap()),
        Ok(header)
    );
}

#[test]
fn refusals_carry_their_text() {
    let bytes =
        written(|out| encode_refusal(out, OptionCode(99), OptionReplyType::ERR_UNSUP, "no"));
    assert_eq!(
        bytes,
        hex("0003e889045565a9 00000063 80000001 00000002 6e6f")
    );
    let long = "x".repeat(100_000);
    let bytes =
        written(|out| encode_refusal(out, OptionCode(99), OptionReplyType::ERR_UNSUP, &long));
    assert_eq!(bytes.len(), OPTION_REPLY_HEADER_SIZE + MAX_REFUSAL_TEXT);
}

#[test]
fn strings_keep_the_rules() {
    assert_eq!(check_string(b""), Ok(""));
    assert_eq!(
        check_string("gr\u{f6}\u{df}e".as_bytes()),
        Ok("gr\u{f6}\u{df}e")
    );
    assert_eq!(check_string(&[b'x'; MAX_NAME]).map(str::len), Ok(MAX_NAME));
    assert_eq!(
        check_string(&[b'x'; MAX_NAME + 1]),
        Err(BadOption::TooLong(MAX_NAME + 1))
    );
    assert_eq!(check_string(b"a\0b"), Err(BadOption::Nul(1)));
    assert_eq!(check_string(b"ab\xff"), Err(BadOption::NotUtf8(2)));
}

#[test]
fn info_request() {
    let request = InfoRequest {
        export: "disk",
        wanted: vec![InfoType::NAME, InfoType(77)],
    };
    let bytes = hex("00000004 6469736b 0002 0001 004d");
    assert_eq!(written(|out| request.encode(out)), bytes);
    assert_eq!(InfoRequest::decode(&bytes), Ok(request));
}

#[test]
fn bad_info_requests() {
    let decode = |bytes: &str| {
        InfoRequest::decode(&hex(bytes))
            .map(|request| request.wanted)
            .unwrap_err()
    };
    let truncated = |missing| BadOption::Truncated(Truncated { missing });
    assert_eq!(decode(""), truncated(4));
    assert_eq!(decode("00000005 6469736b"), truncated(1));
    assert_eq!(decode("ffffffff 6469736b 0000"), truncated(0xffff_ffff - 6));
    assert_eq!(decode("00000001 61 0002 0001"), truncated(2));
    assert_eq!(decode("00000001 61 0000 0001"), BadOption::Trailing(2));
    assert_eq!(decode("00000001 00 0000"), BadOption::Nul(0));
    assert_eq!(decode("00000001 ff 0000"), BadOption::NotUtf8(0));
}

#[test]
fn meta_context_request() {
    let request = MetaContextRequest {
        export: "d",
        queries: vec!["base:", ""],
    };
    let bytes = hex("00000001 64 00000002 00000005 626173653a 00000000");
    assert_eq!(written(|out| request.encode(out)), bytes);
    assert_eq!(MetaContextRequest::decode(&bytes), Ok(request));
}

#[test]
fn bad_meta_context_requests() {
    let decode = |bytes: &str| {
        MetaContextRequest::decode(&hex(bytes))
            .map(|request| request.queries.len())
            .unwrap_err()
    };
    assert_eq!(
        decode("00000000 ffffffff"),
        BadOption::Truncated(Truncated { missing: 4 })
    );
    assert_eq!(
        decode("00000000 00000001 00000002 61"),
        BadOption::Truncated(Truncated { missing: 1 })
    );
    assert_eq!(decode("00000000 00000000 00"), BadOption::Trailing(1));
    assert_eq!(decode("00000000 00000001 00000001 00"), BadOption::Nul(0));
}

#[test]
fn unknown_codes_have_a_number_for_a_name() {
    assert_eq!(OptionCode::GO.to_string(), "GO");
    assert_eq!(OptionCode(99).to_string(), "99");
    assert_eq!(format!("{:?}", OptionCode(99)), "OptionCode(0x63)");
    assert!(OptionReplyType::ERR_TOO_BIG.is_error() && !OptionReplyType::ACK.is_error());
}

proptest! {
    #[test]
    fn requests_round_trip(
        export in "[^\0]{0,20}", wanted in prop::collection::vec(any::<u16>(), 0..10),
        queries in prop::collection::vec("[^\0]{0,20}", 0..10),
    ) {
        let wanted = wanted.into_iter().map(InfoType).collect();
        let info = InfoRequest { export: &export, wanted };
        let bytes = written(|out| info.encode(out));
        prop_assert_eq!(InfoRequest::decode(&bytes), Ok(info));
        let queries = queries.iter().map(String::as_str).collect();
        let meta = MetaContextRequest { export: &export, queries };
        let bytes = written(|out| meta.encode(out));
        prop_assert_eq!(MetaContextRequest::decode(&bytes), Ok(meta));
    }

    #[test]
    fn random_data_never_panics(
        data in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..64),
    ) {
        let _ = InfoRequest::decode(&data);
        let _ = MetaContextRequest::decode(&data);
    }
}
