use proptest::prelude::*;

use super::*;
use crate::testing::{SIZE, hex, limits, request};

const NO: CommandFlags = CommandFlags::EMPTY;

fn verdict(
    command: Command,
    flags: CommandFlags,
    offset: u64,
    length: u32,
) -> Result<(), NbdError> {
    request(command, flags, offset, length).check(&limits())
}

#[test]
fn encoding_is_byte_exact() {
    let request = Request {
        flags: CommandFlags::FUA | CommandFlags::NO_HOLE,
        command: Command::WRITE_ZEROES,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1122_3344_5566_7788,
        length: 0x99aa_bbcc,
    };
    let bytes = hex("25609513 0003 0006 0102030405060708 1122334455667788 99aabbcc");
    assert_eq!(request.encode().as_slice(), bytes);
    assert_eq!(
        Request::decode(bytes.as_slice().try_into().unwrap()),
        Ok(request)
    );
}

#[test]
fn bad_magic_is_refused() {
    let mut bytes = request(Command::READ, NO, 0, 1).encode();
    bytes[3] ^= 1;
    assert_eq!(Request::decode(&bytes), Err(BadMagic(0x2560_9512)));
}

#[test]
fn only_writes_carry_a_payload() {
    for command in 0..=9 {
        let request = request(Command(command), NO, 0, 512);
        let expected = if command == Command::WRITE.0 { 512 } else { 0 };
        assert_eq!(request.payload_length(), expected, "{:?}", request.command);
    }
}

#[test]
fn unknown_commands_are_invalid() {
    assert_eq!(verdict(Command::RESIZE, NO, 0, 0), Err(NbdError::INVALID));
    assert_eq!(verdict(Command(4711), NO, 0, 0), Err(NbdError::INVALID));
}

#[test]
fn past_the_end() {
    let ranges = [
        (SIZE - 1, 2),
        (SIZE, 1),
        (SIZE + 1, 0),
        (u64::MAX, 1),
        (u64::MAX, u32::MAX),
    ];
    let by_command = [
        (Command::READ, NbdError::INVALID),
        (Command::WRITE, NbdError::NOSPC),
        (Command::TRIM, NbdError::INVALID),
        (Command::CACHE, NbdError::INVALID),
        (Command::WRITE_ZEROES, NbdError::NOSPC),
        (Command::BLOCK_STATUS, NbdError::INVALID),
    ];
    for (command, error) in by_command {
        assert_eq!(verdict(command, NO, SIZE - 1, 1), Ok(()), "{command}");
        for (offset, length) in ranges {
            assert_eq!(
                verdict(command, NO, offset, length),
                Err(error),
                "{command} {offset}+{length}"
            );
        }
    }
}

#[test]
fn an_empty_range_is_fine_but_has_no_status() {
    for command in [
        Command::READ,
        Command::WRITE,
        Command::TRIM,
        Command::CACHE,
        Command::WRITE_ZEROES,
    ] {
        assert_eq!(verdict(command, NO, 0, 0), Ok(()), "{command}");
        assert_eq!(verdict(command, NO, SIZE, 0), Ok(()), "{command}");
    }
    assert_eq!(
        verdict(Command::BLOCK_STATUS, NO, 0, 0),
        Err(NbdError::INVALID)
    );
}

#[test]
fn reserved_fields_of_flush_and_disc_are_ignored() {
    for command in [Command::FLUSH, Command::DISC] {
        assert_eq!(
            verdict(command, NO, u64::MAX, u32::MAX),
            Ok(()),
            "{command}"
        );
    }
    assert_eq!(
        verdict(Command::DISC, CommandFlags(0xffff), 0, 0),
        Ok(()),
        "DISC has no reply"
    );
}

#[test]
fn flags_belong_to_their_commands() {
    let commands = [
        Command::READ,
        Command::WRITE,
        Command::FLUSH,
        Command::TRIM,
        Command::CACHE,
        Command::WRITE_ZEROES,
        Command::BLOCK_STATUS,
    ];
    let owners = [
        (CommandFlags::DF, vec![Command::READ]),
        (CommandFlags::REQ_ONE, vec![Command::BLOCK_STATUS]),
        (CommandFlags::NO_HOLE, vec![Command::WRITE_ZEROES]),
        (CommandFlags::FAST_ZERO, vec![Command::WRITE_ZEROES]),
        (CommandFlags::FUA, commands.to_vec()),
        (CommandFlags::PAYLOAD_LEN, vec![]),
        (CommandFlags(1 << 6), vec![]),
        (CommandFlags(1 << 15), vec![]),
    ];
    for (flag, owners) in owners {
        for command in commands {
            let expected = if owners.contains(&command) {
                Ok(())
            } else {
                Err(NbdError::INVALID)
            };
            assert_eq!(
                verdict(command, flag, 0, 512),
                expected,
                "{command} {flag:?}"
            );
        }
    }
}

#[test]
fn flags_that_were_not_offered_are_invalid() {
    let cases = [
        (
            Command::WRITE,
            CommandFlags::FUA,
            TransmissionFlags::SEND_FUA,
        ),
        (
            Command::READ,
            CommandFlags::FUA,
            TransmissionFlags::SEND_FUA,
        ),
        (
            Command::WRITE_ZEROES,
            CommandFlags::FAST_ZERO,
            TransmissionFlags::SEND_FAST_ZERO,
        ),
        (Command::READ, CommandFlags::DF, TransmissionFlags::SEND_DF),
    ];
    for (command, flag, offer) in cases {
        let mut limits = limits();
        assert_eq!(request(command, flag, 0, 512).check(&limits), Ok(()));
        limits.transmission_flags = limits.transmission_flags.difference(offer);
        assert_eq!(
            request(command, flag, 0, 512).check(&limits),
            Err(NbdError::INVALID),
            "{flag:?}"
        );
    }
    let simple = ExportLimits {
        reply_style: ReplyStyle::Simple,
        ..limits()
    };
    assert_eq!(
        request(Command::READ, CommandFlags::DF, 0, 1).check(&simple),
        Err(NbdError::INVALID)
    );
}

#[test]
fn commands_that_were_not_offered_are_invalid() {
    let cases = [
        (Command::FLUSH, TransmissionFlags::SEND_FLUSH),
        (Command::TRIM, TransmissionFlags::SEND_TRIM),
        (Command::CACHE, TransmissionFlags::SEND_CACHE),
        (Command::WRITE_ZEROES, TransmissionFlags::SEND_WRITE_ZEROES),
    ];
    for (command, offer) in cases {
        let mut limits = limits();
        limits.transmission_flags = limits.transmission_flags.difference(offer);
        assert_eq!(
            request(command, NO, 0, 512).check(&limits),
            Err(NbdError::INVALID),
            "{command}"
        );
    }
}

#[test]
fn a_read_only_export_refuses_changes_whatever_it_advertises() {
    let changes = [Command::WRITE, Command::TRIM, Command::WRITE_ZEROES];
    for flags in [limits().transmission_flags, TransmissionFlags::HAS_FLAGS] {
        let limits = ExportLimits {
            transmission_flags: flags | TransmissionFlags::READ_ONLY,
            ..limits()
        };
        for command in changes {
            assert_eq!(
                request(command, NO, 0, 512).check(&limits),
                Err(NbdError::PERM),
                "{command}"
            );
            assert_eq!(
                request(command, NO, SIZE, 512).check(&limits),
                Err(NbdError::PERM),
                "{command}"
            );
        }
        assert_eq!(request(Command::READ, NO, 0, 512).check(&limits), Ok(()));
    }
}

#[test]
fn payloads_are_bounded_and_lengths_without_payload_are_not() {
    let max = limits().max_payload;
    assert_eq!(verdict(Command::READ, NO, 0, max), Ok(()));
    assert_eq!(
        verdict(Command::READ, NO, 0, max + 1),
        Err(NbdError::OVERFLOW)
    );
    assert_eq!(verdict(Command::WRITE, NO, 0, max), Ok(()));
    assert_eq!(
        verdict(Command::WRITE, NO, 0, max + 1),
        Err(NbdError::INVALID)
    );
    let huge = ExportLimits {
        size: u64::MAX,
        ..limits()
    };
    for command in [
        Command::TRIM,
        Command::WRITE_ZEROES,
        Command::CACHE,
        Command::BLOCK_STATUS,
    ] {
        assert_eq!(
            request(command, NO, 0, u32::MAX).check(&huge),
            Ok(()),
            "{command}"
        );
    }
}

#[test]
fn status_needs_a_context() {
    let limits = ExportLimits {
        meta_contexts: MetaContextSet::EMPTY,
        ..limits()
    };
    assert_eq!(
        request(Command::BLOCK_STATUS, NO, 0, 512).check(&limits),
        Err(NbdError::INVALID)
    );
}

proptest! {
    #[test]
    fn round_trip(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        let request = Request {
            flags: CommandFlags(flags), command: Command(command), cookie, offset, length,
        };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn random_bytes_decode_only_behind_the_magic(bytes: [u8; Request::SIZE]) {
        let decoded = Request::decode(&bytes);
        prop_assert_eq!(decoded.is_ok(), bytes[..4] == REQUEST_MAGIC.to_be_bytes());
    }

    /// Whatever passes lies in the export and is no longer than what may be held for it.
    #[test]
    fn what_passes_is_in_range(
        flags in 0_u16..64, command in 0_u16..10, offset: u64, length: u32, size: u64,
        export_flags: u16, near_end: bool,
    ) {
        let offset = if near_end { size.wrapping_sub(offset % 70_000) } else { offset };
        let request = request(Command(command), CommandFlags(flags), offset, length);
        let limits = ExportLimits {
            size, transmission_flags: TransmissionFlags(export_flags), ..limits()
        };
        let ranged = !matches!(request.command, Command::FLUSH | Command::DISC);
        if ranged && request.check(&limits).is_ok() {
            prop_assert!(u128::from(offset) + u128::from(length) <= u128::from(size));
            if matches!(request.command, Command::READ | Command::WRITE) {
                prop_assert!(length <= limits.max_payload);
            }
        }
    }
}
