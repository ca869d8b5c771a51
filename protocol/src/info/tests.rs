use proptest::prelude::*;

use super::*;
use crate::testing::{hex, written};

#[test]
fn encodings_are_byte_exact() {
    let flags = TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH;
    let cases = [
        (
            Info::Export {
                size: 0x1234,
                flags,
            },
            "0000 0000000000001234 0005",
        ),
        (Info::Name(b"disk"), "0001 6469736b"),
        (Info::Description(b"a"), "0002 61"),
        (
            Info::BlockSize(BlockSizes::default()),
            "0003 00000001 00001000 04000000",
        ),
        (Info::Unknown(InfoType(99), &[1, 2]), "0063 0102"),
    ];
    for (info, bytes) in cases {
        assert_eq!(written(|out| info.encode(out)), hex(bytes));
        assert_eq!(Info::decode(&hex(bytes)), Ok(info));
    }
}

#[test]
fn short_data_is_refused() {
    for bytes in [
        "",
        "00",
        "0000 00000000000012",
        "0003 00000001 00001000 040000",
    ] {
        assert!(Info::decode(&hex(bytes)).is_err(), "{bytes}");
    }
}

proptest! {
    #[test]
    fn random_data_never_panics(data in prop::collection::vec(any::<u8>(), 0..32)) {
        let _ = Info::decode(&data);
    }
}
