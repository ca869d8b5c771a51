//! Bytes that mean nothing, at every stage of a connection.

use std::time::{Duration, Instant};

use weir_tests::client::wire::*;
use weir_tests::client::{Handshake, Socket, request_bytes};
use weir_tests::environment::number;
use weir_tests::pattern::Pattern;

use crate::support::{EXPORT_BYTES, Victim};

/// How long each stage is shaken in every run of the tests. `WEIR_FUZZ_SECONDS` asks for more, `WEIR_FUZZ_SEED` for
/// other bytes.
const SECONDS: u64 = 3;
/// How many connections a stage must have seen to count as shaken at all.
const ROUNDS_MIN: u64 = 50;

/// What is sent before the nonsense begins.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Greeting,
    Options,
    StructuredOptions,
    Requests,
}

fn reach(stage: Stage, victim: &Victim) -> Socket {
    match stage {
        Stage::Greeting => victim.server.socket(),
        Stage::Options => Handshake::begin(victim.server.socket()).into_socket(),
        Stage::StructuredOptions => {
            let mut handshake = Handshake::begin(victim.server.socket());
            handshake.expect(OPT_STRUCTURED_REPLY, b"", REP_ACK);
            handshake.into_socket()
        }
        Stage::Requests => {
            let mut handshake = Handshake::begin(victim.server.socket());
            handshake.expect(OPT_STRUCTURED_REPLY, b"", REP_ACK);
            handshake.info(OPT_GO, "").expect("the default export");
            handshake.into_socket()
        }
    }
}

/// Noise that gets further than noise alone: valid headers with random fields, cut and flipped at random.
fn nonsense(stage: Stage, random: &mut Pattern) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..1 + random.below(12) {
        let len = usize::try_from(random.below(200)).expect("small");
        let small = u32::try_from(random.below(300)).expect("small");
        match (stage, random.below(4)) {
            (_, 0) => out.extend(random.bytes(len)),
            (Stage::Requests, _) => {
                let command = u16::try_from(random.below(10)).expect("small");
                let flags = u16::try_from(random.below(1 << 6)).expect("small");
                let offset = if random.below(8) == 0 {
                    random.next_u64()
                } else {
                    random.below(EXPORT_BYTES)
                };
                let huge = random.below(16) == 0;
                let size = if huge && command != CMD_WRITE {
                    small << 22
                } else {
                    small << 4
                };
                out.extend(request_bytes(
                    flags,
                    command,
                    random.next_u64(),
                    offset,
                    size,
                ));
                if command == CMD_WRITE {
                    out.extend(random.bytes(size as usize));
                }
            }
            (_, 1) => out.extend(Handshake::option_header(small % 12, small)),
            (_, _) => {
                let mut data = random.bytes(len);
                // Lengths inside are often plausible.
                data.iter_mut()
                    .take(7)
                    .for_each(|b| *b = if *b < 200 { 0 } else { *b % 16 });
                out.extend(Handshake::option_bytes(small % 12, &data));
            }
        }
    }
    if random.below(3) == 0 {
        for _ in 0..3 {
            let at = usize::try_from(random.below(out.len().max(1) as u64)).expect("small");
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
    out
}

fn shake(stage: Stage) {
    let seconds = number("WEIR_FUZZ_SECONDS").unwrap_or(SECONDS);
    // Drawn from the seed, as neighbours among seeds must not share connections.
    let series = Pattern::new(number("WEIR_FUZZ_SEED").unwrap_or(0)).next_u64();
    let victim = Victim::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    while Instant::now() < end || round < ROUNDS_MIN {
        let mut random = Pattern::new(series ^ ((stage as u64) << 32 | round));
        let mut socket = reach(stage, &victim);
        // It may close while we send, and whatever it answers is its own business: it has to end, and to live on.
        if socket.try_send(&nonsense(stage, &mut random)).is_ok() && random.below(4) != 0 {
            socket.shutdown_write();
            socket.receive_to_end();
        }
        round += 1;
    }
    println!("{stage:?}: {round} connections");
    victim.survived();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn instead_of_the_client_flags() {
    shake(Stage::Greeting);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn instead_of_options() {
    shake(Stage::Options);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn instead_of_options_after_structured_replies() {
    shake(Stage::StructuredOptions);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn instead_of_requests() {
    shake(Stage::Requests);
}
