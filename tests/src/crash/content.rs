//! Bytes that name their place and the write that they come from.

/// The unit of content: small enough that most writes begin and end inside pages and sectors, large enough to be cheap.
pub const CELL: u64 = CELL_BYTES as u64;
const CELL_BYTES: usize = 128;
/// The number of the write, then the cell's own, over and over.
const STAMP_BYTES: usize = 8;

/// The write that a cell comes from; 0 is zeroes.
pub type Version = u32;

/// Zeroes.
pub const ZERO: Version = 0;

/// Neither zeroes nor what any write would have put there.
pub const GARBAGE: Version = Version::MAX;

/// The cells of a range whose ends are multiples of [`CELL`].
#[must_use]
pub fn cells(range: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    let cell = |offset: u64| {
        assert!(offset.is_multiple_of(CELL), "{offset} is inside a cell");
        usize::try_from(offset / CELL).expect("a cell of a small device")
    };
    cell(range.start)..cell(range.end)
}

/// What write `version` puts into `range`; [`ZERO`] puts zeroes.
#[must_use]
pub fn content(range: &std::ops::Range<u64>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in cells(range) {
        if version == ZERO {
            bytes.extend_from_slice(&[0; CELL_BYTES]);
            continue;
        }
        bytes.extend_from_slice(&stamp(cell, version).repeat(CELL_BYTES / STAMP_BYTES));
    }
    bytes
}

/// The versions of the cells in `bytes`, which lie at `offset`.
pub fn versions(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (usize, Version)> {
    let range = offset..offset + bytes.len() as u64;
    cells(&range)
        .zip(bytes.chunks(CELL_BYTES))
        .map(|(cell, bytes)| (cell, version(cell, bytes)))
}

fn version(cell: usize, bytes: &[u8]) -> Version {
    let (first, rest) = bytes.split_at(STAMP_BYTES);
    // Each stamp equals the one before it: all are equal.
    if rest != &bytes[..rest.len()] {
        return GARBAGE;
    }
    if first == [0; STAMP_BYTES] {
        return ZERO;
    }
    let version = Version::from_le_bytes(first[..4].try_into().expect("four bytes"));
    if first == stamp(cell, version) && version != ZERO {
        version
    } else {
        GARBAGE
    }
}

fn stamp(cell: usize, version: Version) -> [u8; STAMP_BYTES] {
    let cell = u32::try_from(cell).expect("a small device");
    let mut stamp = [0; STAMP_BYTES];
    stamp[..4].copy_from_slice(&version.to_le_bytes());
    // Never zero, so that no stamp is mistaken for zeroes.
    stamp[4..].copy_from_slice(&(cell + 1).to_le_bytes());
    stamp
}
