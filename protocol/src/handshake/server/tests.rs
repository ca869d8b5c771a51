use bytes::BufMut;

use super::*;
use crate::constants::{EXPORT_NAME_ZEROES, MAX_HANDSHAKE_BACKLOG, OPTION_REPLY_HEADER_SIZE};
use crate::flags::TransmissionFlags;
use crate::info::InfoType;
use crate::option::{InfoRequest, MetaContextRequest, OptionReplyHeader, encode_option};
use crate::testing::{SIZE, TwoExports, all_flags, hex, written};

mod refusals;

const FIXED: ClientFlags = ClientFlags::FIXED_NEWSTYLE;

/// A server on one end and a test on the other.
struct Peer {
    server: ServerHandshake,
    exports: TwoExports,
    input: Vec<u8>,
}

impl Peer {
    /// Past the greeting and the client's flags.
    fn new(tls_policy: TlsPolicy, flags: ClientFlags) -> Self {
        let server = ServerHandshake::new(tls_policy);
        let mut peer = Self {
            server,
            exports: TwoExports { listing: true },
            input: Vec::new(),
        };
        let (greeting, step) = peer.say(&[]);
        assert_eq!(greeting, hex("4e42444d41474943 49484156454f5054 0003"));
        assert!(matches!(step, Step::Reply));
        let (nothing, step) = peer.say(&written(|out| flags.encode(out)));
        assert!(
            nothing.is_empty() && matches!(step, Step::NeedMore),
            "{step:?}"
        );
        peer
    }

    fn fixed() -> Self {
        Self::new(TlsPolicy::Unsupported, FIXED | ClientFlags::NO_ZEROES)
    }

    /// One call with `bytes` behind what is left over.
    fn say(&mut self, bytes: &[u8]) -> (BytesMut, Step) {
        self.input.extend_from_slice(bytes);
        let mut output = BytesMut::new();
        let Advance { consumed, step } =
            self.server.advance(&self.input, &self.exports, &mut output);
        self.input.drain(..consumed);
        (output, step)
    }

    /// Sends an option and decodes the replies.
    fn ask(&mut self, option: OptionCode, data: &[u8]) -> (Vec<(OptionReplyType, Vec<u8>)>, Step) {
        let (output, step) = self.say(&written(|out| {
            encode_option(out, option, |out| out.put_slice(data))
        }));
        (replies(option, &output), step)
    }

    /// Sends an option that is to be refused and gives the refusal.
    fn refused(&mut self, option: OptionCode, data: &[u8]) -> (OptionReplyType, String) {
        let (replies, step) = self.ask(option, data);
        assert!(matches!(step, Step::Reply), "{option}: {step:?}");
        let [(reply_type, text)] = &replies[..] else {
            panic!("{option}: {replies:?}")
        };
        assert!(
            reply_type.is_error(),
            "{option} is answered with {reply_type}"
        );
        assert!(!text.is_empty(), "{option} is refused without a word");
        (*reply_type, String::from_utf8(text.clone()).unwrap())
    }

    fn negotiated(&mut self, option: OptionCode, data: &[u8]) -> Negotiated {
        match self.ask(option, data) {
            (_, Step::Transmission(negotiated)) => *negotiated,
            (replies, step) => panic!("{option}: {step:?}, {replies:?}"),
        }
    }

    fn structured(&mut self) {
        let (replies, _) = self.ask(OptionCode::STRUCTURED_REPLY, &[]);
        assert_eq!(replies, [ack()]);
    }

    /// The names and ids that are answered to a query.
    fn contexts(
        &mut self,
        option: OptionCode,
        export: &str,
        queries: &[&str],
    ) -> Vec<(u32, String)> {
        let (mut replies, step) = self.ask(option, &meta(export, queries));
        assert!(matches!(step, Step::Reply));
        assert_eq!(replies.pop(), Some(ack()));
        let context = |(reply_type, data): (OptionReplyType, Vec<u8>)| {
            assert_eq!(reply_type, OptionReplyType::META_CONTEXT);
            let (id, name) = data.split_first_chunk().unwrap();
            (
                u32::from_be_bytes(*id),
                String::from_utf8(name.to_vec()).unwrap(),
            )
        };
        replies.into_iter().map(context).collect()
    }
}

fn ack() -> (OptionReplyType, Vec<u8>) {
    (OptionReplyType::ACK, Vec::new())
}

fn replies(option: OptionCode, mut output: &[u8]) -> Vec<(OptionReplyType, Vec<u8>)> {
    let mut replies = Vec::new();
    while let Some((header, rest)) = output.split_first_chunk::<OPTION_REPLY_HEADER_SIZE>() {
        let header = OptionReplyHeader::decode(header).unwrap();
        assert_eq!(header.option, option);
        let (data, rest) = rest.split_at(header.length as usize);
        replies.push((header.reply_type, data.to_vec()));
        output = rest;
    }
    assert!(output.is_empty(), "half a reply");
    replies
}

fn info(export: &str, wanted: &[InfoType]) -> BytesMut {
    written(|out| {
        InfoRequest {
            export,
            wanted: wanted.to_vec(),
        }
        .encode(out)
    })
}

fn meta(export: &str, queries: &[&str]) -> BytesMut {
    written(|out| {
        MetaContextRequest {
            export,
            queries: queries.to_vec(),
        }
        .encode(out)
    })
}

#[test]
fn go_answers_what_is_asked_and_always_the_size() {
    let mut peer = Peer::fixed();
    let flags = all_flags().difference(TransmissionFlags::SEND_DF);
    let export = [hex("0000 0000000000100000"), flags.0.to_be_bytes().to_vec()].concat();
    let (replies, step) = peer.ask(OptionCode::INFO, &info("", &[InfoType(77)]));
    assert!(matches!(step, Step::Reply));
    assert_eq!(replies, [(OptionReplyType::INFO, export.clone()), ack()]);

    let all = [
        InfoType::BLOCK_SIZE,
        InfoType::DESCRIPTION,
        InfoType::NAME,
        InfoType::EXPORT,
    ];
    let (asked, _) = peer.ask(OptionCode::INFO, &info("", &all));
    let expected = [
        (OptionReplyType::INFO, export),
        (OptionReplyType::INFO, [&hex("0001"), &b"disk"[..]].concat()),
        (
            OptionReplyType::INFO,
            [&hex("0002"), &b"a disk"[..]].concat(),
        ),
        (
            OptionReplyType::INFO,
            hex("0003 00000001 00001000 04000000"),
        ),
        ack(),
    ];
    assert_eq!(asked, expected);
    let (answers, step) = peer.ask(OptionCode::GO, &info("", &all));
    assert_eq!(answers, expected, "GO says the same as INFO");
    let Step::Transmission(negotiated) = step else {
        panic!("{step:?}")
    };
    assert_eq!(negotiated.export, "");
    assert_eq!(negotiated.info.name, "disk");
    assert_eq!(negotiated.limits(7).size, SIZE);
    assert!(negotiated.no_zeroes && !negotiated.tls);
}

#[test]
fn dont_fragment_is_for_structured_replies_only() {
    let go = info("disk", &[]);
    let simple = Peer::fixed().negotiated(OptionCode::GO, &go);
    assert_eq!(simple.reply_style, ReplyStyle::Simple);
    assert!(!simple.info.flags.contains(TransmissionFlags::SEND_DF));
    let mut peer = Peer::fixed();
    peer.structured();
    let structured = peer.negotiated(OptionCode::GO, &go);
    assert_eq!(structured.reply_style, ReplyStyle::Structured);
    assert!(structured.info.flags.contains(TransmissionFlags::SEND_DF));
}

#[test]
fn export_name_ends_with_zeroes_unless_agreed_otherwise() {
    let flags = all_flags()
        .difference(TransmissionFlags::SEND_DF)
        .0
        .to_be_bytes();
    let answer = [&hex("0000000000100000")[..], &flags].concat();
    let option =
        written(|out| encode_option(out, OptionCode::EXPORT_NAME, |out| out.put_slice(b"disk")));
    for plain_newstyle in [true, false] {
        let fixed = if plain_newstyle {
            ClientFlags::EMPTY
        } else {
            FIXED
        };
        let (output, step) = Peer::new(TlsPolicy::Unsupported, fixed).say(&option);
        assert_eq!(output, [&answer[..], &[0; EXPORT_NAME_ZEROES]].concat());
        assert!(matches!(step, Step::Transmission(_)));
        let (output, step) =
            Peer::new(TlsPolicy::Unsupported, fixed | ClientFlags::NO_ZEROES).say(&option);
        assert_eq!(output, answer);
        assert!(matches!(step, Step::Transmission(_)));
    }
}

#[test]
fn list_names_each_export() {
    let (replies, step) = Peer::fixed().ask(OptionCode::LIST, &[]);
    assert!(matches!(step, Step::Reply));
    let server = |data: &str| (OptionReplyType::SERVER, hex(data));
    assert_eq!(
        replies,
        [
            server("00000004 6469736b 61206469736b"),
            server("00000005 6f74686572"),
            ack()
        ]
    );
}

#[test]
fn abort_is_acknowledged_even_with_data() {
    for data in [&b""[..], b"why not"] {
        let (replies, step) = Peer::fixed().ask(OptionCode::ABORT, data);
        assert_eq!(replies, [ack()]);
        assert!(matches!(step, Step::Close(CloseReason::Aborted)));
    }
}

#[test]
fn listing_contexts() {
    let both = || {
        vec![
            (0, "base:allocation".to_owned()),
            (0, "x-weir:cache".to_owned()),
        ]
    };
    let mut peer = Peer::fixed();
    let list = OptionCode::LIST_META_CONTEXT;
    assert_eq!(peer.contexts(list, "disk", &[]), both());
    assert_eq!(
        peer.contexts(list, "disk", &["x-weir:", "base:", "base:allocation"]),
        both()
    );
    assert_eq!(peer.contexts(list, "disk", &["x-weir:cache"]), both()[1..]);
    assert_eq!(peer.contexts(list, "disk", &["qemu:", "nonsense", ""]), []);
    assert_eq!(
        peer.contexts(list, "other", &[]),
        [],
        "this export has none"
    );
}

#[test]
fn setting_contexts() {
    type Case = (&'static [&'static str], &'static [(u32, &'static str)]);
    let cases: [Case; 5] = [
        (&["base:allocation"], &[(1, "base:allocation")]),
        (
            &["x-weir:cache", "base:allocation"],
            &[(1, "base:allocation"), (2, "x-weir:cache")],
        ),
        (&["x-weir:cache", "x-weir:cache"], &[(2, "x-weir:cache")]),
        (&["base:", "x-weir:"], &[]),
        (&[], &[]),
    ];
    for (queries, expected) in cases {
        let mut peer = Peer::fixed();
        peer.structured();
        let granted = peer.contexts(OptionCode::SET_META_CONTEXT, "disk", queries);
        assert!(
            granted
                .iter()
                .map(|(id, name)| (*id, name.as_str()))
                .eq(expected.iter().copied())
        );
        let negotiated = peer.negotiated(OptionCode::GO, &info("disk", &[]));
        let ids = negotiated.meta_contexts.iter().map(crate::MetaContext::id);
        assert!(ids.eq(expected.iter().map(|(id, _)| *id)), "{queries:?}");
    }
}

#[test]
fn contexts_are_void_for_another_export() {
    let mut peer = Peer::fixed();
    peer.structured();
    assert_eq!(
        peer.contexts(OptionCode::SET_META_CONTEXT, "disk", &["base:allocation"])
            .len(),
        1
    );
    assert!(
        peer.negotiated(OptionCode::GO, &info("", &[]))
            .meta_contexts
            .is_empty()
    );
}

#[test]
fn setting_contexts_replaces_the_former_set_even_if_it_fails() {
    let set = OptionCode::SET_META_CONTEXT;
    let too_long = vec![0; MAX_OPTION_DATA as usize + 1];
    let failures: [&[u8]; 4] = [
        &meta("nowhere", &["base:allocation"]),
        b"garbage",
        b"",
        &too_long,
    ];
    for failure in failures {
        let mut peer = Peer::fixed();
        peer.structured();
        assert_eq!(peer.contexts(set, "disk", &["base:allocation"]).len(), 1);
        peer.refused(set, failure);
        assert!(
            peer.negotiated(OptionCode::GO, &info("disk", &[]))
                .meta_contexts
                .is_empty()
        );
    }
    let mut peer = Peer::fixed();
    peer.structured();
    peer.contexts(set, "disk", &["base:allocation"]);
    peer.contexts(set, "disk", &["x-weir:cache"]);
    let negotiated = peer.negotiated(OptionCode::GO, &info("disk", &[]));
    assert!(
        negotiated
            .meta_contexts
            .iter()
            .eq([crate::MetaContext::CACHE])
    );
}

#[test]
fn starttls_wipes_what_was_negotiated() {
    let mut peer = Peer::new(TlsPolicy::Optional, FIXED);
    peer.structured();
    peer.contexts(OptionCode::SET_META_CONTEXT, "disk", &["base:allocation"]);
    let (replies, step) = peer.ask(OptionCode::STARTTLS, &[]);
    assert_eq!(replies, [ack()]);
    assert!(matches!(step, Step::StartTls));
    let negotiated = peer.negotiated(OptionCode::GO, &info("disk", &[]));
    assert_eq!(negotiated.reply_style, ReplyStyle::Simple);
    assert!(negotiated.meta_contexts.is_empty());
    assert!(!negotiated.info.flags.contains(TransmissionFlags::SEND_DF));
    assert!(negotiated.tls);
}

#[test]
fn nothing_goes_past_the_end() {
    let mut peer = Peer::fixed();
    peer.negotiated(OptionCode::GO, &info("disk", &[]));
    let (output, step) = peer.say(b"IHAVEOPT and more");
    assert!(output.is_empty());
    assert!(matches!(step, Step::Close(CloseReason::Finished)));
    assert_eq!(
        peer.input, b"IHAVEOPT and more",
        "requests behind GO aren't the handshake's"
    );
}
