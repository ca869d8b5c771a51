//! Both halves against each other, and each against nonsense.

use bytes::BytesMut;
use proptest::prelude::*;

use super::client::{ClientConfig, ClientHandshake, ClientNegotiated, ClientStep, Goal};
use super::server::{Negotiated, ServerHandshake, Step, TlsPolicy};
use crate::constants::{
    MAX_HANDSHAKE_BACKLOG, MAX_OPTION_REPLY_DATA, OPTION_MAGIC, OPTION_REPLY_HEADER_SIZE,
};
use crate::flags::TransmissionFlags;
use crate::info::BlockSizes;
use crate::option::{OptionCode, OptionReplyType, encode_option, encode_reply};
use crate::reply::ReplyStyle;
use crate::testing::{SIZE, TwoExports, all_flags};

/// How bytes travel.
#[derive(Clone, Copy)]
enum Feed {
    Whole,
    ByteByByte,
}

/// One direction: what is under way, and what has arrived and isn't consumed.
#[derive(Default)]
struct Wire {
    under_way: BytesMut,
    arrived: Vec<u8>,
}

impl Wire {
    /// Lets bytes arrive; whether any did.
    fn deliver(&mut self, feed: Feed) -> bool {
        let length = match feed {
            Feed::Whole => self.under_way.len(),
            Feed::ByteByByte => self.under_way.len().min(1),
        };
        self.arrived
            .extend_from_slice(&self.under_way.split_to(length));
        length > 0
    }
}

/// Drives both halves until the client is done; what each of them says then.
fn drive(config: ClientConfig, feed: Feed) -> (ClientStep, Option<Negotiated>) {
    let exports = TwoExports { listing: true };
    let mut server = ServerHandshake::new(TlsPolicy::Unsupported);
    let mut client = ClientHandshake::new(config).unwrap();
    let (mut to_server, mut to_client) = (Wire::default(), Wire::default());
    let mut negotiated = None;
    loop {
        while negotiated.is_none() {
            let advance = server.advance(&to_server.arrived, &exports, &mut to_client.under_way);
            to_server.arrived.drain(..advance.consumed);
            match advance.step {
                Step::NeedMore if !to_server.deliver(feed) => break,
                Step::NeedMore | Step::Reply => {}
                Step::Transmission(agreed) => negotiated = Some(*agreed),
                other => panic!("server: {other:?}"),
            }
        }
        loop {
            let (consumed, step) = client
                .advance(&to_client.arrived, &mut to_server.under_way)
                .unwrap();
            to_client.arrived.drain(..consumed);
            match step {
                ClientStep::NeedMore if !to_client.deliver(feed) => break,
                ClientStep::NeedMore => {}
                done => {
                    assert!(to_client.arrived.is_empty() && to_client.under_way.is_empty());
                    return (done, negotiated);
                }
            }
        }
        assert!(!to_server.under_way.is_empty(), "both wait for each other");
    }
}

fn transmission(config: &ClientConfig) -> (ClientNegotiated, Negotiated) {
    let outcomes = [Feed::Whole, Feed::ByteByByte].map(|feed| {
        let (step, server) = drive(config.clone(), feed);
        let ClientStep::Transmission(client) = step else {
            panic!("{step:?}")
        };
        (*client, server.expect("the server is there first"))
    });
    let [whole, byte_by_byte] = outcomes;
    assert_eq!(whole, byte_by_byte);
    whole
}

#[test]
fn go_with_everything() {
    let (client, server) = transmission(&ClientConfig {
        export: "disk".into(),
        structured_replies: true,
        meta_contexts: vec![
            "x-weir:cache".into(),
            "base:allocation".into(),
            "qemu:no".into(),
        ],
        ..ClientConfig::default()
    });
    let expected = ClientNegotiated {
        size: SIZE,
        flags: all_flags(),
        name: Some("disk".into()),
        description: Some("a disk".into()),
        block_sizes: Some(BlockSizes::default()),
        reply_style: ReplyStyle::Structured,
        meta_contexts: vec![(1, "base:allocation".into()), (2, "x-weir:cache".into())],
    };
    assert_eq!(client, expected);
    assert_eq!(server.info.flags, client.flags);
    assert_eq!(server.reply_style, client.reply_style);
    assert!(
        server
            .meta_contexts
            .iter()
            .map(crate::MetaContext::id)
            .eq([1, 2])
    );
    assert!(server.no_zeroes);
}

#[test]
fn go_with_nothing() {
    let (client, server) = transmission(&ClientConfig::default());
    assert_eq!(client.reply_style, ReplyStyle::Simple);
    assert!(!client.flags.contains(TransmissionFlags::SEND_DF));
    assert!(client.meta_contexts.is_empty() && server.meta_contexts.is_empty());
    assert_eq!(client.name.as_deref(), Some("disk"));
}

#[test]
fn list() {
    for feed in [Feed::Whole, Feed::ByteByByte] {
        let (step, _) = drive(
            ClientConfig {
                goal: Goal::List,
                ..ClientConfig::default()
            },
            feed,
        );
        let ClientStep::Listed(exports) = step else {
            panic!("{step:?}")
        };
        let exports: Vec<_> = exports
            .iter()
            .map(|e| (e.name.as_str(), e.description.as_str()))
            .collect();
        assert_eq!(exports, [("disk", "a disk"), ("other", "")]);
    }
}

/// What a hostile client may send: options with data that is right, wrong or random, and plain noise.
fn client_bytes() -> impl Strategy<Value = Vec<u8>> {
    let option = (
        0_u32..13,
        prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..40),
    )
        .prop_map(|(option, data)| {
            let mut out = BytesMut::new();
            encode_option(&mut out, OptionCode(option), |out| {
                out.extend_from_slice(&data)
            });
            out.to_vec()
        });
    let lying_option = (0_u32..13, any::<u32>()).prop_map(|(option, length)| {
        [
            &OPTION_MAGIC.to_be_bytes()[..],
            &option.to_be_bytes(),
            &length.to_be_bytes(),
        ]
        .concat()
    });
    let noise = prop::collection::vec(any::<u8>(), 0..50_000);
    let flags = prop_oneof![(0_u32..5), Just(3)];
    let parts = prop::collection::vec(
        prop_oneof![4 => option, 1 => lying_option, 1 => noise],
        0..12,
    );
    (flags, parts).prop_map(|(flags, parts)| [&flags.to_be_bytes()[..], &parts.concat()].concat())
}

proptest! {
    /// However it is cut into reads, the server keeps no more than its caps and answers the same.
    #[test]
    fn a_hostile_client_gets_no_memory(
        bytes in client_bytes(), read in 1_usize..9000, tls in 0_usize..3,
    ) {
        let run = |read: usize| {
            let policies = [TlsPolicy::Unsupported, TlsPolicy::Optional, TlsPolicy::Required];
            let mut server = ServerHandshake::new(policies[tls]);
            let exports = TwoExports { listing: true };
            let (mut backlog, mut said) = (Vec::new(), BytesMut::new());
            let mut reads = bytes.chunks(read);
            loop {
                let mut output = BytesMut::new();
                let advance = server.advance(&backlog, &exports, &mut output);
                assert!(output.len() < 8192, "one option's answer is bounded");
                backlog.drain(..advance.consumed);
                said.unsplit(output);
                match advance.step {
                    Step::NeedMore => {
                        assert!(backlog.len() < MAX_HANDSHAKE_BACKLOG);
                        let Some(bytes) = reads.next() else { break };
                        backlog.extend_from_slice(bytes);
                    }
                    Step::Reply => {}
                    // Whether bytes follow STARTTLS in the same read depends on the reads.
                    Step::StartTls | Step::Transmission(_) | Step::Close(_) => break,
                }
            }
            said
        };
        let said = run(read);
        if tls == 0 {
            prop_assert_eq!(said, run(bytes.len()));
        }
    }

    /// Random replies, with or without the right headers, never panic and are never kept.
    #[test]
    fn a_hostile_server_gets_no_memory(
        replies in prop::collection::vec(
            (0_u32..12, prop_oneof![0_u32..6, 0x8000_0000_u32..0x8000_000c], any::<bool>(),
             prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..40)),
            0..12,
        ),
        flags in 0_u16..4, list: bool,
    ) {
        let goal = if list { Goal::List } else { Goal::Transmission };
        let mut client = ClientHandshake::new(ClientConfig {
            goal,
            structured_replies: true,
            meta_contexts: vec!["base:allocation".into()],
            ..ClientConfig::default()
        }).unwrap();
        let mut input = [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat();
        let mut asked = if list { OptionCode::LIST } else { OptionCode::STRUCTURED_REPLY };
        for (option, reply_type, honest, data) in replies {
            let mut output = BytesMut::new();
            let Ok((consumed, step)) = client.advance(&input, &mut output) else { return Ok(()) };
            input.drain(..consumed);
            prop_assert!(input.len() < MAX_OPTION_REPLY_DATA as usize + OPTION_REPLY_HEADER_SIZE);
            if step != ClientStep::NeedMore {
                return Ok(());
            }
            // The option that the client sent last is the one that an honest reply names.
            let magic = OPTION_MAGIC.to_be_bytes();
            if let Some(at) = output.windows(8).rposition(|window| window == magic) {
                asked = OptionCode(u32::from_be_bytes(output[at + 8..at + 12].try_into().unwrap()));
            }
            let option = if honest { asked } else { OptionCode(option) };
            let mut out = BytesMut::new();
            let reply_type = OptionReplyType(reply_type);
            encode_reply(&mut out, option, reply_type, |out| out.extend_from_slice(&data));
            input.extend_from_slice(&out);
        }
    }
}
