//! Every refusal in the handshake, with its type, a text, and the connection going on or not.

use super::*;

/// The handshake isn't harmed by what came before.
fn assert_alive(peer: &mut Peer) {
    let (replies, step) = peer.ask(OptionCode::INFO, &info("disk", &[]));
    assert_eq!(replies.last(), Some(&ack()), "{replies:?}");
    assert!(matches!(step, Step::Reply));
}

fn close_reason(step: Step) -> CloseReason {
    match step {
        Step::Close(reason) => reason,
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn unsupported_options() {
    let options = [
        OptionCode(0),
        OptionCode::PEEK_EXPORT,
        OptionCode::EXTENDED_HEADERS,
        OptionCode(99),
    ];
    for option in options.into_iter().chain([OptionCode::STARTTLS]) {
        for data in [&b""[..], b"some data"] {
            let mut peer = Peer::fixed();
            assert_eq!(
                peer.refused(option, data).0,
                OptionReplyType::ERR_UNSUP,
                "{option}"
            );
            assert_alive(&mut peer);
        }
    }
    assert!(Peer::fixed().refused(OptionCode(99), b"").1.contains("99"));
}

#[test]
fn data_where_none_belongs() {
    for option in [
        OptionCode::LIST,
        OptionCode::STRUCTURED_REPLY,
        OptionCode::STARTTLS,
    ] {
        let mut peer = Peer::new(TlsPolicy::Optional, FIXED);
        let (reply_type, text) = peer.refused(option, b"abc");
        assert_eq!(reply_type, OptionReplyType::ERR_INVALID, "{option}");
        assert!(text.contains('3'), "{text}");
        assert_alive(&mut peer);
        let negotiated = peer.negotiated(OptionCode::GO, &info("disk", &[]));
        assert_eq!(
            (negotiated.reply_style, negotiated.tls),
            (ReplyStyle::Simple, false),
            "{option}"
        );
    }
}

#[test]
fn disabled_listing() {
    let mut peer = Peer::fixed();
    peer.exports.listing = false;
    let refusal = peer.refused(OptionCode::LIST, b"");
    assert_eq!(
        refusal,
        (
            OptionReplyType::ERR_POLICY,
            "listing is disabled".to_owned()
        )
    );
    assert_alive(&mut peer);
}

#[test]
fn unknown_exports() {
    let options = [
        (OptionCode::INFO, info("nowhere", &[])),
        (OptionCode::GO, info("nowhere", &[])),
        (OptionCode::LIST_META_CONTEXT, meta("nowhere", &[])),
        (OptionCode::SET_META_CONTEXT, meta("nowhere", &[])),
    ];
    for (option, data) in options {
        let mut peer = Peer::fixed();
        peer.structured();
        let (reply_type, text) = peer.refused(option, &data);
        assert_eq!(reply_type, OptionReplyType::ERR_UNKNOWN, "{option}");
        assert!(text.contains("nowhere"), "{text}");
        assert_alive(&mut peer);
    }
}

#[test]
fn bad_data() {
    let long_name = "x".repeat(MAX_NAME + 1);
    let options = [
        OptionCode::INFO,
        OptionCode::GO,
        OptionCode::LIST_META_CONTEXT,
        OptionCode::SET_META_CONTEXT,
    ];
    for option in options {
        let is_info = option == OptionCode::INFO || option == OptionCode::GO;
        let with_name = |name: &str| {
            if is_info {
                info(name, &[])
            } else {
                meta(name, &[])
            }
        };
        let mut not_utf8 = with_name("disk");
        not_utf8[4] = 0xff;
        let mut trailing = with_name("disk");
        trailing.put_u8(0);
        let cases: [&[u8]; 8] = [
            b"",
            &hex("ffffffff"),
            &hex("00000004 646973"),
            &hex("00000000 ffff"),
            &with_name("di\0sk"),
            &with_name(&long_name),
            &not_utf8,
            &trailing,
        ];
        for data in cases {
            let mut peer = Peer::fixed();
            peer.structured();
            assert_eq!(
                peer.refused(option, data).0,
                OptionReplyType::ERR_INVALID,
                "{option} {data:x?}"
            );
            assert_alive(&mut peer);
        }
    }
}

#[test]
fn contexts_need_structured_replies() {
    let mut peer = Peer::fixed();
    let (reply_type, text) = peer.refused(OptionCode::SET_META_CONTEXT, &meta("disk", &[]));
    assert_eq!(reply_type, OptionReplyType::ERR_INVALID);
    assert!(text.contains("STRUCTURED_REPLY"), "{text}");
    assert_alive(&mut peer);
}

#[test]
fn huge_data_is_drained_and_never_kept() {
    let length: u32 = 3 << 20;
    let cases = [
        (OptionCode(99), OptionReplyType::ERR_UNSUP),
        (OptionCode::LIST, OptionReplyType::ERR_INVALID),
        (OptionCode::GO, OptionReplyType::ERR_TOO_BIG),
        (OptionCode::SET_META_CONTEXT, OptionReplyType::ERR_TOO_BIG),
    ];
    for (option, expected) in cases {
        let mut peer = Peer::fixed();
        peer.say(&written(|out| OptionHeader { option, length }.encode(out)));
        let piece = [0_u8; 4096];
        for _ in 1..length / 4096 {
            let (output, step) = peer.say(&piece);
            assert!(output.is_empty() && matches!(step, Step::NeedMore));
            assert!(peer.input.is_empty(), "{option}: data is kept");
        }
        let (output, step) = peer.say(&piece);
        assert!(matches!(step, Step::Reply));
        assert_eq!(replies(option, &output)[0].0, expected, "{option}");
        assert_alive(&mut peer);
    }
}

#[test]
fn data_at_the_limit_is_waited_for() {
    let header = OptionHeader {
        option: OptionCode::GO,
        length: MAX_OPTION_DATA,
    };
    let mut peer = Peer::fixed();
    peer.say(&written(|out| header.encode(out)));
    let (_, step) = peer.say(&vec![0; MAX_OPTION_DATA as usize - 1]);
    assert!(matches!(step, Step::NeedMore));
    assert!(peer.input.len() < MAX_HANDSHAKE_BACKLOG);
    let (output, _) = peer.say(&[0]);
    assert_eq!(
        replies(OptionCode::GO, &output)[0].0,
        OptionReplyType::ERR_INVALID
    );
}

#[test]
fn tls_required() {
    let mut peer = Peer::new(TlsPolicy::Required, FIXED);
    let options = [
        (OptionCode::LIST, BytesMut::new()),
        (OptionCode::STRUCTURED_REPLY, BytesMut::new()),
        (OptionCode::GO, info("disk", &[])),
        (OptionCode(99), BytesMut::new()),
    ];
    for (option, data) in options {
        assert_eq!(
            peer.refused(option, &data).0,
            OptionReplyType::ERR_TLS_REQD,
            "{option}"
        );
    }
    let (_, step) = peer.ask(OptionCode::STARTTLS, b"");
    assert!(matches!(step, Step::StartTls));
    assert_alive(&mut peer);
    assert_eq!(
        peer.refused(OptionCode::STARTTLS, b"").0,
        OptionReplyType::ERR_INVALID,
        "a second time"
    );

    let (_, step) = Peer::new(TlsPolicy::Required, FIXED).ask(OptionCode::EXPORT_NAME, b"disk");
    let CloseReason::ExportRefused(refusal) = close_reason(step) else {
        panic!("another reason")
    };
    assert_eq!(refusal.reply_type, OptionReplyType::ERR_TLS_REQD);
    let (replies, step) = Peer::new(TlsPolicy::Required, FIXED).ask(OptionCode::ABORT, b"");
    assert_eq!(replies, [ack()]);
    assert_eq!(close_reason(step), CloseReason::Aborted);
}

#[test]
fn bytes_between_starttls_and_tls_close() {
    let mut peer = Peer::new(TlsPolicy::Optional, FIXED);
    let mut bytes = written(|out| encode_option(out, OptionCode::STARTTLS, |_| {}));
    encode_option(&mut bytes, OptionCode::LIST, |_| {});
    let (output, step) = peer.say(&bytes);
    assert!(output.is_empty());
    assert_eq!(close_reason(step), CloseReason::DataBeforeTls(16));
}

#[test]
fn shutdown() {
    let mut peer = Peer::fixed();
    peer.server.set_shutting_down();
    for option in [
        OptionCode::LIST,
        OptionCode::GO,
        OptionCode::INFO,
        OptionCode(99),
    ] {
        assert_eq!(
            peer.refused(option, b"x").0,
            OptionReplyType::ERR_SHUTDOWN,
            "{option}"
        );
    }
    let (replies, step) = peer.ask(OptionCode::ABORT, b"");
    assert_eq!(
        (replies, close_reason(step)),
        (vec![ack()], CloseReason::Aborted)
    );

    let mut peer = Peer::fixed();
    peer.server.set_shutting_down();
    let (output, step) = peer.say(&written(|out| {
        encode_option(out, OptionCode::EXPORT_NAME, |out| out.put_slice(b"disk"))
    }));
    assert!(output.is_empty());
    assert!(matches!(close_reason(step), CloseReason::ExportRefused(_)));
}

#[test]
fn unknown_client_flags_close() {
    let mut server = ServerHandshake::new(TlsPolicy::Unsupported);
    let exports = TwoExports { listing: true };
    let mut output = BytesMut::new();
    server.advance(&[], &exports, &mut output);
    let step = server.advance(&hex("00000007"), &exports, &mut output).step;
    assert_eq!(
        close_reason(step),
        CloseReason::UnknownClientFlags(ClientFlags(4))
    );
}

#[test]
fn export_name_can_only_disconnect() {
    for name in [
        &b"nowhere"[..],
        b"\xff",
        b"a\0",
        &[b'x'; MAX_NAME],
        &[b'x'; MAX_NAME + 1],
    ] {
        let (replies, step) = Peer::fixed().ask(OptionCode::EXPORT_NAME, name);
        assert_eq!(replies, []);
        assert!(matches!(close_reason(step), CloseReason::ExportRefused(_)));
    }
}

#[test]
fn plain_newstyle_has_export_name_only() {
    let options = [
        OptionCode::LIST,
        OptionCode::GO,
        OptionCode::ABORT,
        OptionCode::STARTTLS,
        OptionCode(99),
    ];
    for option in options {
        let (replies, step) = Peer::new(TlsPolicy::Optional, ClientFlags::EMPTY).ask(option, b"");
        assert_eq!(replies, []);
        assert_eq!(close_reason(step), CloseReason::NotFixedNewstyle(option));
    }
}

#[test]
fn a_stream_out_of_step_closes() {
    let (output, step) = Peer::fixed().say(&hex("0003e889045565a9 00000007 00000000"));
    assert!(output.is_empty());
    assert_eq!(
        close_reason(step),
        CloseReason::BadMagic(0x0003_e889_0455_65a9)
    );
}

#[test]
fn options_are_counted() {
    let mut peer = Peer::fixed();
    for _ in 0..MAX_OPTIONS {
        assert_eq!(
            peer.refused(OptionCode(99), b"").0,
            OptionReplyType::ERR_UNSUP
        );
    }
    let (_, step) = peer.ask(OptionCode::ABORT, b"");
    assert_eq!(close_reason(step), CloseReason::TooManyOptions);
}
