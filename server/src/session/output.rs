//! What is to be sent.
//!
//! A [`Queue`] is a list of segments. A segment's bytes lie either in one shared byte buffer (headers, block status) or
//! in referenced pages, and one vectored write sends them from there without a copy. Neighbouring headers are one
//! segment, so the replies to thirty-two writes are a single slice to the kernel. References are given back as soon as
//! the socket has taken their bytes.
//!
//! # What is kept counts
//! A client that doesn't read must not make the server keep more than a set amount of memory for it. So the count is
//! not of the bytes that wait to be sent but of the memory that they hold: a reference pins a whole page, however
//! little of it is sent. A few bytes are therefore copied instead of referenced ([`COPIED_BYTES_MAX`]). The byte
//! buffer, which lies outside the cache, has a bound of its own, [`REPLY_BYTES_MAX`]. Data that fault rules have
//! handled is in buffers of its own, and counts for the whole export as well ([`held`](crate::held)) until it is sent.
//!
//! [`Output`] adds what streamed replies need. A simple reply's data must follow its header with nothing between them,
//! but a reply larger than memory allows is produced slice by slice. While one is being sent the output is *held*:
//! other replies wait in a second queue. Structured chunks may mix, so with them nothing is held.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::sync::Arc;

use weir_cache::{FramePool, FrameRefs, PAGE_SIZE};

use super::socket::Socket;
use crate::held::HeldBytes;
use crate::limits::{PINNED_BYTES_MAX, PINNED_BYTES_MIN, PINNED_SHARE, REPLY_BYTES_MAX};

/// The most slices that one `writev` takes (UIO_MAXIOV).
const SLICES_MAX: usize = 1024;

/// Bytes that one `writev` is offered: what a Unix socket holds with the buffer that the server gives it (see
/// `SEND_BUFFER_BYTES`). Bytes that it doesn't take are gathered, handed to the kernel and thrown away, once per
/// attempt.
const CALL_BYTES_MAX: usize = 1 << 20;

/// READs up to this length are copied into the byte buffer. Otherwise each of many waiting READs would pin a page, and
/// a slice costs the kernel more than so short a copy.
pub(super) const COPIED_BYTES_MAX: usize = PAGE_SIZE / 4;

/// A byte buffer that has grown beyond this is freed after it was sent: the memory of an occasional long block status
/// must not stay with every connection.
const KEPT_BYTES: usize = 64 << 10;

/// What all [`Place::Zeroes`] segments are sent from.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Where a segment's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the byte buffer.
    Bytes,
    /// In pages.
    Pages,
    /// In pages, but not sent: zeroes that a hole chunk stands for.
    Skipped,
    /// Nowhere: zeroes.
    Zeroes,
    /// In a buffer of its own, which is freed when all of it was sent.
    Own,
}

#[derive(Debug)]
struct Segment {
    place: Place,
    length: usize,
}

/// A reply's data in a buffer of its own, and what that counts for.
#[derive(Debug)]
struct OwnData {
    bytes: Vec<u8>,
    #[expect(dead_code, reason = "held, not read")]
    held: HeldBytes,
}

/// Staged pages that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Whether they are known to be zeroes.
    pub(super) zero: bool,
    /// Bytes.
    pub(super) length: usize,
    /// Pieces.
    pub(super) pieces: usize,
    /// Whether nothing is staged behind them.
    pub(super) is_last: bool,
}

/// Replies in the order in which they are sent.
#[derive(Debug)]
pub(super) struct Queue {
    segments: VecDeque<Segment>,
    /// What [`Place::Bytes`] segments hold, in order.
    bytes: Vec<u8>,
    /// How many of `bytes` were sent.
    bytes_sent: usize,
    /// What [`Place::Pages`] and [`Place::Skipped`] segments hold, in order.
    pages: FrameRefs,
    /// The unsent rests of [`Place::Own`] segments, in order.
    own: VecDeque<OwnData>,
    /// How many bytes these have.
    own_bytes: usize,
    /// Bytes to be sent.
    pending: usize,
    /// Empty: memory for the next vectored write's slices.
    spare: Vec<IoSlice<'static>>,
}

impl Queue {
    pub(super) fn new(pool: Arc<FramePool>) -> Self {
        Self {
            segments: VecDeque::new(),
            bytes: Vec::new(),
            bytes_sent: 0,
            pages: FrameRefs::new(pool),
            own: VecDeque::new(),
            own_bytes: 0,
            pending: 0,
            spare: Vec::new(),
        }
    }

    /// Bytes to be sent.
    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// What is kept until it is sent: pages, in bytes.
    #[inline]
    fn pinned(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    /// What is kept until it is sent: the byte buffer, buffers of their own, and what says where everything is.
    #[inline]
    fn buffered(&self) -> usize {
        let list = self.segments.len() * size_of::<Segment>();
        self.bytes.len() - self.bytes_sent + self.own_bytes + list
    }

    /// Appends a header or any other short run of bytes.
    #[inline]
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.extend(Place::Bytes, bytes.len());
    }

    /// Appends a reply's data without copying it. `held` is given back together with its memory.
    pub(super) fn push_own(&mut self, bytes: Vec<u8>, held: HeldBytes) {
        if !bytes.is_empty() {
            self.extend(Place::Own, bytes.len());
            self.own_bytes += bytes.len();
            self.own.push_back(OwnData { bytes, held });
        }
    }

    /// Where a read's pages are appended before their segment is.
    ///
    /// What is put here becomes part of the queue by [`Self::commit_pages`] or [`Self::commit_skipped`], or is taken
    /// out again with [`FrameRefs::truncate`]. One of the two must happen before anything else is done with the queue.
    #[inline]
    pub(super) fn staging(&mut self) -> &mut FrameRefs {
        &mut self.pages
    }

    /// The longest run of staged pages from piece `first` on that are either all known to be zeroes or all not.
    pub(super) fn staged_run(&self, first: usize) -> Option<Run> {
        let mut pieces = self.pages.iter().skip(first);
        let piece = pieces.next()?;
        let mut run = Run {
            zero: piece.zero,
            length: piece.len(),
            pieces: 1,
            is_last: false,
        };
        for piece in pieces {
            if piece.zero != run.zero {
                return Some(run);
            }
            run.length += piece.len();
            run.pieces += 1;
        }
        Some(Run {
            is_last: true,
            ..run
        })
    }

    /// Appends the next `length` staged bytes.
    #[inline]
    pub(super) fn commit_pages(&mut self, length: usize) {
        self.extend(Place::Pages, length);
    }

    /// Appends a copy of all that is staged from piece `first` on, and gives the pages back.
    pub(super) fn commit_copied(&mut self, first: usize) {
        let before = self.bytes.len();
        for piece in first..self.pages.len() {
            self.bytes.extend_from_slice(self.pages.slice(piece));
        }
        self.pages.truncate(first);
        self.extend(Place::Bytes, self.bytes.len() - before);
    }

    /// Passes over the next `length` staged bytes: they are zeroes, and the client is told of them in another way.
    pub(super) fn commit_skipped(&mut self, length: usize) {
        self.extend(Place::Skipped, length);
    }

    /// Appends `length` zeroes, which take no memory.
    pub(super) fn commit_zeroes(&mut self, length: usize) {
        self.extend(Place::Zeroes, length);
    }

    #[inline]
    fn extend(&mut self, place: Place, length: usize) {
        if place != Place::Skipped {
            self.pending += length;
        }
        match self.segments.back_mut() {
            Some(last) if last.place == place && place != Place::Own => last.length += length,
            _ if length > 0 => self.segments.push_back(Segment { place, length }),
            _ => {}
        }
    }

    /// Moves all of `other` behind what is here.
    fn append(&mut self, other: &mut Self) {
        self.bytes
            .extend_from_slice(&other.bytes[other.bytes_sent..]);
        let pool = Arc::clone(other.pages.pool());
        self.pages
            .append(mem::replace(&mut other.pages, FrameRefs::new(pool)));
        self.segments.append(&mut other.segments);
        self.own.append(&mut other.own);
        self.own_bytes += mem::take(&mut other.own_bytes);
        self.pending += mem::take(&mut other.pending);
        other.bytes = Vec::new();
        other.bytes_sent = 0;
    }

    /// Gives the socket as much as one call can carry. Says how much was taken, and whether that was all of it.
    fn send(&mut self, stream: &Socket) -> io::Result<(usize, bool)> {
        self.drop_skipped();
        let mut slices = recycle(mem::take(&mut self.spare));
        let length = self.gather(&mut slices);
        if length == 0 {
            return Ok((0, false));
        }
        let outcome = stream.try_write_vectored(&slices, length);
        self.spare = recycle(slices);
        let sent = match outcome {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((0, false)),
            Err(error) => return Err(error),
        };
        self.advance(sent);
        Ok((sent, sent == length))
    }

    /// Puts the next bytes to be sent into `slices`, as many as one call should carry; says how many they are.
    fn gather<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>) -> usize {
        let mut bytes = &self.bytes[self.bytes_sent..];
        let mut pages = self.pages.io_runs();
        let mut own = self.own.iter();
        let mut total = 0;
        for segment in &self.segments {
            let mut left = segment.length;
            while left > 0 {
                if slices.len() == SLICES_MAX || total >= CALL_BYTES_MAX {
                    return total;
                }
                let slice = match segment.place {
                    Place::Bytes => {
                        let (head, tail) = bytes.split_at(left);
                        bytes = tail;
                        IoSlice::new(head)
                    }
                    Place::Pages | Place::Skipped => pages.next_run(left),
                    Place::Zeroes => IoSlice::new(&ZEROES[..left.min(ZEROES.len())]),
                    Place::Own => {
                        let bytes = &own.next().expect("one for each segment").bytes;
                        IoSlice::new(&bytes[bytes.len() - left..])
                    }
                };
                left -= slice.len();
                if segment.place != Place::Skipped {
                    total += slice.len();
                    slices.push(slice);
                }
            }
        }
        total
    }

    /// Forgets `count` sent bytes.
    fn advance(&mut self, count: usize) {
        self.pending -= count;
        let mut left = count;
        while left > 0 {
            let front = self.segments.front_mut().expect("counted in `pending`");
            let taken = match front.place {
                Place::Skipped => front.length,
                _ => front.length.min(left),
            };
            match front.place {
                Place::Bytes => self.bytes_sent += taken,
                Place::Pages | Place::Skipped => self.pages.advance(taken),
                Place::Own if taken == front.length => {
                    let own = self.own.pop_front().expect("one for each segment");
                    self.own_bytes -= own.bytes.len();
                }
                Place::Zeroes | Place::Own => {}
            }
            if front.place != Place::Skipped {
                left -= taken;
            }
            front.length -= taken;
            if front.length == 0 {
                self.segments.pop_front();
            }
        }
        self.drop_skipped();
        self.trim_bytes();
    }

    /// Gives back pages at the front that aren't sent.
    fn drop_skipped(&mut self) {
        while let Some(front) = self.segments.front()
            && front.place == Place::Skipped
        {
            self.pages.advance(front.length);
            self.segments.pop_front();
        }
    }

    /// Reuses the space of sent bytes.
    fn trim_bytes(&mut self) {
        if self.bytes_sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes_sent = 0;
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
        } else if self.bytes_sent > KEPT_BYTES {
            self.bytes.drain(..self.bytes_sent);
            self.bytes_sent = 0;
        }
    }

    /// Frees what an empty queue keeps for reuse.
    fn release(&mut self) {
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
            self.bytes = Vec::new();
            self.pages = FrameRefs::new(Arc::clone(self.pages.pool()));
            self.spare = Vec::new();
        }
    }
}

/// Empties `slices` for other borrows and keeps its memory: collecting what has the same layout reuses it.
fn recycle<'to>(mut slices: Vec<IoSlice<'_>>) -> Vec<IoSlice<'to>> {
    slices.clear();
    slices
        .into_iter()
        .map(|_| -> IoSlice<'to> { unreachable!("it is empty") })
        .collect()
}

/// The replies of a connection.
#[derive(Debug)]
pub(super) struct Output {
    sending: Queue,
    /// Replies that wait until a streamed simple reply is complete.
    held: Queue,
    is_held: bool,
    /// Replies are thrown away, because no client takes them any more.
    is_muted: bool,
    /// Bytes sent on this connection so far.
    sent: u64,
    /// Bytes of pinned pages beyond which the session takes no more requests.
    pinned_max: usize,
}

impl Output {
    pub(super) fn new(pool: &Arc<FramePool>) -> Self {
        let share = pool.frames() as usize / PINNED_SHARE * PAGE_SIZE;
        Self {
            sending: Queue::new(Arc::clone(pool)),
            held: Queue::new(Arc::clone(pool)),
            is_held: false,
            is_muted: false,
            sent: 0,
            pinned_max: share.clamp(PINNED_BYTES_MIN, PINNED_BYTES_MAX),
        }
    }

    /// Where the next reply goes.
    #[inline]
    pub(super) fn queue(&mut self) -> &mut Queue {
        if self.is_held {
            &mut self.held
        } else {
            &mut self.sending
        }
    }

    /// Where the streamed reply goes.
    pub(super) fn stream_queue(&mut self) -> &mut Queue {
        &mut self.sending
    }

    /// Makes other replies wait from here on.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// The streamed reply is complete: the replies that waited follow it.
    pub(super) fn resume(&mut self) {
        if mem::take(&mut self.is_held) {
            self.sending.append(&mut self.held);
        }
    }

    /// Bytes that wait, those held included.
    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.sending.pending() + self.held.pending()
    }

    /// Whether the socket could be given something.
    #[inline]
    pub(super) fn can_send(&self) -> bool {
        self.sending.pending() > 0
    }

    /// Bytes of pages that wait.
    pub(super) fn pinned(&self) -> usize {
        self.sending.pinned() + self.held.pinned()
    }

    /// Bytes that wait in buffers of their own.
    pub(super) fn own_bytes(&self) -> usize {
        self.sending.own_bytes + self.held.own_bytes
    }

    /// Whether so much is kept that no further request may be taken.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.pinned() >= self.pinned_max
            || self.sending.buffered() + self.held.buffered() >= REPLY_BYTES_MAX
    }

    /// Whether the streamed reply must wait for the socket. Held replies don't count: the stream's end comes first.
    pub(super) fn is_stream_full(&self) -> bool {
        self.sending.pinned() >= self.pinned_max || self.sending.buffered() >= REPLY_BYTES_MAX
    }

    /// Bytes sent on this connection so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Throws away what waits and all that comes: no client takes it. A streamed reply must be over, or dropped.
    pub(super) fn mute(&mut self) {
        self.is_muted = true;
        self.resume();
        self.sending = Queue::new(Arc::clone(self.sending.pages.pool()));
    }

    /// Sends until the socket takes no more or nothing is left.
    pub(super) fn flush(&mut self, stream: &Socket) -> io::Result<()> {
        if self.is_muted {
            self.sending = Queue::new(Arc::clone(self.sending.pages.pool()));
            return Ok(());
        }
        while self.can_send() {
            let (sent, took_all) = self.sending.send(stream)?;
            self.sent += sent as u64;
            if !took_all {
                break;
            }
        }
        Ok(())
    }

    /// Frees what an empty output keeps for reuse.
    pub(super) fn release(&mut self) {
        self.sending.release();
        self.held.release();
    }
}

#[cfg(test)]
mod tests;
