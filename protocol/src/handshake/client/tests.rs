use super::*;
use crate::constants::EXPORT_NAME_ZEROES;
use crate::option::{encode_refusal, encode_reply};
use crate::testing::{hex, written};

const GREETING: &str = "4e42444d41474943 49484156454f5054 0003";

/// A client on one end and a test on the other.
struct Peer {
    client: ClientHandshake,
}

impl Peer {
    fn new(config: ClientConfig) -> Self {
        Self {
            client: ClientHandshake::new(config).unwrap(),
        }
    }

    /// A client that wants everything, past the greeting.
    fn greeted() -> Self {
        let mut peer = Self::new(ClientConfig {
            goal: Goal::Transmission,
            export: "disk".into(),
            structured_replies: true,
            meta_contexts: vec!["base:allocation".into()],
        });
        let sent = peer.hear(&hex(GREETING)).unwrap().0;
        assert_eq!(sent, hex("00000003 49484156454f5054 00000008 00000000"));
        peer
    }

    /// What the client sends and says to `bytes`, all of which it takes.
    fn hear(&mut self, bytes: &[u8]) -> Result<(BytesMut, ClientStep), ClientError> {
        let mut output = BytesMut::new();
        let (consumed, step) = self.client.advance(bytes, &mut output)?;
        assert_eq!(consumed, bytes.len());
        Ok((output, step))
    }

    fn ack(&mut self, option: OptionCode) -> (BytesMut, ClientStep) {
        self.hear(&reply(option, OptionReplyType::ACK, &[]))
            .unwrap()
    }

    fn refuse(
        &mut self,
        option: OptionCode,
        reply_type: OptionReplyType,
    ) -> Result<(BytesMut, ClientStep), ClientError> {
        self.hear(&written(|out| {
            encode_refusal(out, option, reply_type, "no")
        }))
    }
}

fn reply(option: OptionCode, reply_type: OptionReplyType, data: &[u8]) -> BytesMut {
    written(|out| encode_reply(out, option, reply_type, |out| out.put_slice(data)))
}

fn starts_with_option(sent: &[u8], option: OptionCode) -> bool {
    sent.starts_with(&[&OPTION_MAGIC.to_be_bytes()[..], &option.0.to_be_bytes()].concat())
}

#[test]
fn go_is_byte_exact() {
    let mut peer = Peer::greeted();
    let (sent, _) = peer.ack(OptionCode::STRUCTURED_REPLY);
    let set = "49484156454f5054 0000000a 0000001f
        00000004 6469736b 00000001 0000000f 626173653a616c6c6f636174696f6e";
    assert_eq!(sent, hex(set));
    let context = [&hex("0000002a")[..], b"base:allocation"].concat();
    peer.hear(&reply(
        OptionCode::SET_META_CONTEXT,
        OptionReplyType::META_CONTEXT,
        &context,
    ))
    .unwrap();
    let (sent, _) = peer.ack(OptionCode::SET_META_CONTEXT);
    assert_eq!(
        sent,
        hex("49484156454f5054 00000007 00000010 00000004 6469736b 0003 0001 0002 0003")
    );
    peer.hear(&reply(
        OptionCode::GO,
        OptionReplyType::INFO,
        &hex("0000 0000000000001000 0001"),
    ))
    .unwrap();
    peer.hear(&reply(
        OptionCode::GO,
        OptionReplyType::INFO,
        &hex("0063 ffff"),
    ))
    .unwrap();
    let (sent, step) = peer.ack(OptionCode::GO);
    assert!(sent.is_empty());
    let expected = ClientNegotiated {
        size: 0x1000,
        flags: TransmissionFlags::HAS_FLAGS,
        reply_style: ReplyStyle::Structured,
        meta_contexts: vec![(42, "base:allocation".into())],
        ..ClientNegotiated::default()
    };
    assert_eq!(step, ClientStep::Transmission(Box::new(expected)));
    assert_eq!(peer.hear(&[]), Err(ClientError::Finished));
}

#[test]
fn what_can_be_done_without_is() {
    let mut peer = Peer::greeted();
    let (sent, _) = peer
        .refuse(OptionCode::STRUCTURED_REPLY, OptionReplyType::ERR_UNSUP)
        .unwrap();
    assert!(
        starts_with_option(&sent, OptionCode::GO),
        "no contexts without structured replies"
    );
    let (sent, _) = peer
        .refuse(OptionCode::GO, OptionReplyType::ERR_UNSUP)
        .unwrap();
    assert_eq!(sent, hex("49484156454f5054 00000001 00000004 6469736b"));
    let (_, step) = peer.hear(&hex("0000000000001000 0003")).unwrap();
    let ClientStep::Transmission(negotiated) = step else {
        panic!("{step:?}")
    };
    assert_eq!((negotiated.size, negotiated.flags.0), (0x1000, 3));
    assert_eq!(negotiated.reply_style, ReplyStyle::Simple);

    let mut peer = Peer::greeted();
    peer.ack(OptionCode::STRUCTURED_REPLY);
    let (sent, _) = peer
        .refuse(OptionCode::SET_META_CONTEXT, OptionReplyType::ERR_UNKNOWN)
        .unwrap();
    assert!(starts_with_option(&sent, OptionCode::GO));
}

#[test]
fn a_server_without_fixed_newstyle_is_asked_by_name() {
    let mut peer = Peer::new(ClientConfig {
        export: "disk".into(),
        ..ClientConfig::default()
    });
    let (sent, _) = peer
        .hear(&hex("4e42444d41474943 49484156454f5054 0000"))
        .unwrap();
    assert_eq!(
        sent,
        hex("00000000 49484156454f5054 00000001 00000004 6469736b")
    );
    let mut output = BytesMut::new();
    let mut answer = hex("0000000000001000 0001");
    assert_eq!(
        peer.client.advance(&answer, &mut output),
        Ok((0, ClientStep::NeedMore)),
        "zeroes follow"
    );
    answer.extend_from_slice(&[0; EXPORT_NAME_ZEROES]);
    let (_, step) = peer.hear(&answer).unwrap();
    assert!(matches!(step, ClientStep::Transmission(negotiated) if negotiated.size == 0x1000));

    let mut peer = Peer::new(ClientConfig {
        goal: Goal::List,
        ..ClientConfig::default()
    });
    assert_eq!(
        peer.hear(&hex("4e42444d41474943 49484156454f5054 0002")),
        Err(ClientError::CannotList)
    );
}

#[test]
fn refusals_are_passed_on() {
    let mut peer = Peer::greeted();
    peer.refuse(OptionCode::STRUCTURED_REPLY, OptionReplyType::ERR_UNSUP)
        .unwrap();
    let refusal = Refusal::new(OptionReplyType::ERR_UNKNOWN, "no");
    let error = ClientError::Refused {
        option: OptionCode::GO,
        refusal,
    };
    assert_eq!(error.to_string(), "option GO is refused: ERR_UNKNOWN: no");
    assert_eq!(
        peer.refuse(OptionCode::GO, OptionReplyType::ERR_UNKNOWN),
        Err(error)
    );

    let refused =
        Peer::greeted().refuse(OptionCode::STRUCTURED_REPLY, OptionReplyType::ERR_TLS_REQD);
    assert!(matches!(refused, Err(ClientError::Refused { .. })));
}

#[test]
fn bad_greetings() {
    let hear = |greeting: &str| {
        Peer::new(ClientConfig::default())
            .hear(&hex(greeting))
            .unwrap_err()
    };
    let ssh = "5353482d322e302d 4f70656e5353485f 392e";
    assert_eq!(hear(ssh), ClientError::NotNbd(0x5353_482d_322e_302d));
    assert_eq!(
        hear("4e42444d41474943 0000420281861253 0000"),
        ClientError::Oldstyle
    );
    assert_eq!(
        hear("4e42444d41474943 0000000000000001 0000"),
        ClientError::NotNbd(1)
    );
}

#[test]
fn bad_replies() {
    let option = OptionCode::STRUCTURED_REPLY;
    let hear = |bytes: &[u8]| Peer::greeted().hear(bytes).unwrap_err();
    assert_eq!(
        hear(&[0; OPTION_REPLY_HEADER_SIZE]),
        ClientError::BadMagic(0)
    );
    let answered = OptionCode::GO;
    assert_eq!(
        hear(&reply(answered, OptionReplyType::ACK, &[])),
        ClientError::WrongOption {
            asked: option,
            answered
        }
    );
    for reply_type in [
        OptionReplyType::INFO,
        OptionReplyType::SERVER,
        OptionReplyType(77),
    ] {
        let error = ClientError::UnexpectedReply { option, reply_type };
        assert_eq!(hear(&reply(option, reply_type, &[])), error);
    }
    let length = MAX_OPTION_REPLY_DATA + 1;
    let header = OptionReplyHeader {
        option,
        reply_type: OptionReplyType::ACK,
        length,
    };
    assert_eq!(
        hear(&written(|out| header.encode(out))),
        ClientError::ReplyTooLong(length)
    );
}

#[test]
fn bad_infos() {
    let hear = |data: &str| {
        let mut peer = Peer::new(ClientConfig::default());
        peer.hear(&hex(GREETING)).unwrap();
        peer.hear(&reply(OptionCode::GO, OptionReplyType::INFO, &hex(data)))
    };
    assert!(matches!(
        hear("0000 00"),
        Err(ClientError::BadData {
            source: BadOption::Truncated(_),
            ..
        })
    ));
    assert!(matches!(
        hear("0001 ff"),
        Err(ClientError::BadData {
            source: BadOption::NotUtf8(0),
            ..
        })
    ));
    let mut peer = Peer::new(ClientConfig::default());
    peer.hear(&hex(GREETING)).unwrap();
    let ack = reply(OptionCode::GO, OptionReplyType::ACK, &[]);
    assert_eq!(peer.hear(&ack), Err(ClientError::NoExportInfo));
}

#[test]
fn a_list_has_an_end() {
    let mut peer = Peer::new(ClientConfig {
        goal: Goal::List,
        ..ClientConfig::default()
    });
    peer.hear(&hex(GREETING)).unwrap();
    let server = reply(
        OptionCode::LIST,
        OptionReplyType::SERVER,
        &hex("00000001 61"),
    );
    for _ in 0..MAX_OPTION_REPLIES {
        peer.hear(&server).unwrap();
    }
    assert_eq!(
        peer.hear(&server),
        Err(ClientError::TooManyReplies(OptionCode::LIST))
    );
}

#[test]
fn names_that_cannot_be_sent_are_refused_at_once() {
    let config = ClientConfig {
        export: "a\0b".into(),
        ..ClientConfig::default()
    };
    assert_eq!(ClientHandshake::new(config).unwrap_err(), BadOption::Nul(1));
    let config = ClientConfig {
        meta_contexts: vec!["x".repeat(5000)],
        ..ClientConfig::default()
    };
    assert_eq!(
        ClientHandshake::new(config).unwrap_err(),
        BadOption::TooLong(5000)
    );
}
