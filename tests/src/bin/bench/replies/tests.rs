use super::*;

const PATTERN: Pattern = Pattern::new(99);
const READ: Request = Request {
    command: Command::Read,
    offset: 4096,
    length: 64,
};
const WRITE: Request = Request {
    command: Command::Write,
    offset: 0,
    length: 512,
};

fn simple(error: u32, cookie: u64) -> Vec<u8> {
    [
        &SIMPLE_REPLY_MAGIC.to_be_bytes()[..],
        &error.to_be_bytes(),
        &cookie.to_be_bytes(),
    ]
    .concat()
}

fn data(offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    PATTERN.fill(offset, &mut bytes);
    bytes
}

fn chunk(flags: u16, kind: u16, cookie: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let head = [
        &CHUNK_MAGIC.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
    ];
    [&head.concat()[..], &length.to_be_bytes(), body].concat()
}

fn data_chunk(flags: u16, offset: u64, length: usize) -> Vec<u8> {
    chunk(
        flags,
        CHUNK_OFFSET_DATA,
        1,
        &[&offset.to_be_bytes()[..], &data(offset, length)].concat(),
    )
}

/// Feeds `bytes` in pieces of `step` and returns the slots that were completed.
fn feed(bytes: &[u8], step: usize) -> io::Result<Vec<usize>> {
    let mut replies = Replies::new(PATTERN, 2);
    replies.expect(0, WRITE);
    replies.expect(1, READ);
    let mut completed = Vec::new();
    for piece in bytes.chunks(step) {
        replies.take(piece, |slot| completed.push(slot))?;
    }
    Ok(completed)
}

#[test]
fn replies_survive_any_cut() {
    let simple_replies = [simple(0, 1), data(4096, 64), simple(0, 0)].concat();
    let chunks = [
        data_chunk(0, 4112, 48),
        data_chunk(0, 4096, 16),
        chunk(CHUNK_DONE, CHUNK_NONE, 1, &[]),
        chunk(CHUNK_DONE, CHUNK_NONE, 0, &[]),
    ]
    .concat();
    for bytes in [simple_replies, chunks] {
        for step in 1..=bytes.len() {
            assert_eq!(feed(&bytes, step).unwrap(), [1, 0], "in pieces of {step}");
        }
    }
}

#[test]
fn whatever_is_wrong_fails() {
    let mut corrupt = [simple(0, 1), data(4096, 64)].concat();
    *corrupt.last_mut().unwrap() ^= 1;
    let cases = [
        ("a flipped bit", corrupt),
        ("an error", simple(5, 0)),
        ("an unknown cookie", simple(0, 7)),
        ("an answer twice", [simple(0, 0), simple(0, 0)].concat()),
        ("a wrong magic", vec![0; 32]),
        ("too little data", data_chunk(CHUNK_DONE, 4096, 32)),
        ("data of other places", data_chunk(CHUNK_DONE, 8192, 64)),
        (
            "a hole, where nothing is zero",
            chunk(CHUNK_DONE, 2, 1, &[0; 12]),
        ),
        (
            "an error chunk",
            chunk(CHUNK_DONE, CHUNK_ERROR_BIT | 1, 1, &[0; 6]),
        ),
    ];
    for (name, bytes) in cases {
        for step in [1, bytes.len()] {
            assert!(feed(&bytes, step).is_err(), "{name}, in pieces of {step}");
        }
    }
}
