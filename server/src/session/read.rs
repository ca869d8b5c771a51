//! READ: hits inline, misses as futures, and READs larger than a slice as a stream of slices.
//!
//! # Streams
//! A READ may be as long as the largest payload, and the cache may have fewer pages than that. It is therefore read
//! slice by slice, a few of them at a time, while the client takes what was read before. One such READ is under way per
//! connection; others queue behind it, and shorter requests pass it by.
//!
//! Structured replies have one chunk per slice. A simple reply, or the one data chunk that DF asks for, promises all
//! its data in its header. While one is being streamed other replies are held back.
//!
//! # Errors in the middle
//! A chunk can say where the data ends. If the header of a DF chunk is out, zeroes fill up what was promised, and an
//! error chunk follows. A simple reply can't report an error once its header is out. So its header waits until the
//! first few slices are there ([`SLICES_AHEAD`], which for most READs is all of them), and an error before that is
//! answered as an error. The header doesn't wait while memory is short, because the slices that are there pin some.
//! After an error behind the header the server can only disconnect.
//!
//! If the device becomes smaller under a READ, the data that is there is sent. An error chunk stands for the rest, or
//! an error instead of a simple reply whose header isn't out. If the header of a simple reply is out, zeroes are sent
//! for the rest: a device that is grown again would show the same, and a kernel whose connection is closed loses its
//! device.

use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use weir_cache::{FrameRefs, SLICE_BYTES};
use weir_faults::{Errno, fault_point};
use weir_protocol::reply::{encode_error_offset, none_chunk, offset_data_header, offset_hole};
use weir_protocol::{ChunkFlags, NbdError, Request};

use super::Ticket;
use super::end::End;
use super::output::{COPIED_BYTES_MAX, Queue};
use super::reply::{Framing, Head};
use super::slow::{self, PartFuture, Reader, Slice, wire_error};
use super::transmission::Transmission;

/// Slices of a streamed READ that are being read, or kept until its header goes out: one on its way while the next ones
/// come from the backend.
const SLICES_AHEAD: usize = 4;

/// A READ that is larger than a slice.
pub(super) struct SlicedRead {
    ticket: Ticket,
    framing: Framing,
    /// Where the next slice to be requested begins.
    asked: u64,
    /// Where the next slice to be framed, or kept, begins.
    framed: u64,
    end: u64,
    slices: FuturesOrdered<PartFuture<Slice>>,
    /// Whether the header that promises all data is in the output.
    promised: bool,
    /// What a simple reply begins with, until it is promised.
    kept: FrameRefs,
    kept_slices: usize,
}

impl SlicedRead {
    fn new(ticket: Ticket, framing: Framing, kept: FrameRefs) -> Self {
        let range = slow::range(&ticket.request);
        Self {
            ticket,
            framing,
            asked: range.start,
            framed: range.start,
            end: range.end,
            slices: FuturesOrdered::new(),
            promised: false,
            kept,
            kept_slices: 0,
        }
    }

    /// Whether another slice is to be requested, as far as memory allows.
    fn wants_slice(&self) -> bool {
        self.asked < self.end && self.slices.len() + self.kept_slices < SLICES_AHEAD
    }

    fn is_whole(&self) -> bool {
        self.framed == self.end
    }
}

impl Transmission<'_> {
    /// A READ that passed all checks.
    #[inline]
    pub(super) fn read(&mut self, ticket: Ticket) {
        let length = ticket.request.length as usize;
        if length == 0 {
            return self.answer(&ticket, Ok(()));
        }
        if length <= SLICE_BYTES && self.read_inline(&ticket) {
            return;
        }
        let whole = self.cache.slice_at(ticket.request.offset, length as u64) == length;
        if whole {
            self.slow_bytes += length;
            self.slow.push(slow::read(self.reader(), ticket));
            return;
        }
        let framing = Framing::of(&ticket.request, self.limits.reply_style);
        let kept = FrameRefs::new(self.cache.pool().clone());
        self.sliced_reads
            .push_back(SlicedRead::new(ticket, framing, kept));
    }

    /// What its READs are carried out with.
    fn reader(&self) -> Reader {
        Reader {
            cache: self.cache.clone(),
            context: self.contexts.read().clone(),
            line: self.memory_line.clone(),
        }
    }

    /// Answers from the cache if all of it is there.
    #[inline]
    fn read_inline(&mut self, ticket: &Ticket) -> bool {
        let Request { offset, length, .. } = ticket.request;
        let end = offset + u64::from(length);
        let queue = self.output.queue();
        let pieces = queue.staging().len();
        let mut at = offset;
        while at < end {
            let slice = self.cache.slice_at(at, end - at);
            if !self.cache.try_read(at, slice, queue.staging()) {
                queue.staging().truncate(pieces);
                return false;
            }
            at += slice as u64;
        }
        self.answer_read(ticket, pieces);
        true
    }

    /// Frames the whole of a READ, whose pages were staged from piece `pieces` on.
    #[inline]
    fn answer_read(&mut self, ticket: &Ticket, pieces: usize) {
        let style = self.limits.reply_style;
        let request = &ticket.request;
        let queue = self.output.queue();
        match Framing::of(request, style) {
            Framing::Simple | Framing::OneChunk => {
                Head::of_data(style, ChunkFlags::DONE, request).push_to(queue);
                commit(queue, pieces, request.length);
            }
            Framing::Chunks => frame_chunks(queue, request.cookie, request.offset, pieces, true),
        }
        self.meter.answered(ticket, false);
    }

    /// A READ of one slice has come back from the cache.
    pub(super) fn finish_read(&mut self, ticket: &Ticket, outcome: Result<FrameRefs, NbdError>) {
        self.slow_bytes -= ticket.request.length as usize;
        match outcome {
            Ok(pages) if pages.bytes() < ticket.request.length as usize => {
                self.answer_cut_read(ticket, pages);
            }
            Ok(pages) => {
                let staging = self.output.queue().staging();
                let pieces = staging.len();
                staging.append(pages);
                self.answer_read(ticket, pieces);
            }
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    /// The device has become smaller under a READ, and only `pages` are there.
    #[cold]
    fn answer_cut_read(&mut self, ticket: &Ticket, pages: FrameRefs) {
        let request = &ticket.request;
        let framing = Framing::of(request, self.limits.reply_style);
        if framing != Framing::Chunks || pages.is_empty() {
            return self.answer(ticket, Err(NbdError::INVALID));
        }
        let end = request.offset + pages.bytes() as u64;
        let queue = self.output.queue();
        let pieces = queue.staging().len();
        queue.staging().append(pages);
        frame_chunks(queue, request.cookie, request.offset, pieces, false);
        frame_error(queue, request.cookie, NbdError::INVALID, end);
        self.meter.answered(ticket, true);
    }

    /// Moves the streamed READs on as far as possible without waiting.
    pub(super) fn pump_sliced_reads(&mut self) -> Result<(), End> {
        while let Some(mut stream) = self.sliced_reads.pop_front() {
            while stream.wants_slice() && !self.output.is_stream_full() {
                self.ask_for_slice(&mut stream);
            }
            if !stream.is_whole() {
                self.sliced_reads.push_front(stream);
                return Ok(());
            }
            self.finish_stream(&stream);
        }
        Ok(())
    }

    /// Takes the next slice of a stream from the cache, or begins to read it.
    fn ask_for_slice(&mut self, stream: &mut SlicedRead) {
        let (at, left) = (stream.asked, stream.end - stream.asked);
        let length = self.cache.slice_at(at, left);
        stream.asked += length as u64;
        let injected = fault_point!(self.contexts.read(), "session:slice", [EIO, ENOMEM]);
        if injected.is_ok() && stream.slices.is_empty() {
            let mut pages = FrameRefs::new(self.cache.pool().clone());
            if self.cache.try_read(at, length, &mut pages) {
                return self.frame_slice(stream, pages);
            }
        }
        stream.slices.push_back(slow::read_slice(
            self.reader(),
            stream.ticket.request,
            at,
            length,
            injected,
        ));
    }

    /// Whether [`Self::pump_sliced_reads`] has something to do: what stopped it has been sent meanwhile.
    pub(super) fn can_pump(&self) -> bool {
        let room = !self.output.is_stream_full();
        self.sliced_reads
            .front()
            .is_some_and(|stream| stream.is_whole() || (stream.wants_slice() && room))
    }

    /// Takes finished slices of the streamed READ.
    pub(super) fn poll_sliced_reads(&mut self, task: &mut Context<'_>) -> Result<bool, End> {
        let Some(mut stream) = self.sliced_reads.pop_front() else {
            return Ok(false);
        };
        let mut progress = false;
        while let Poll::Ready(Some(slice)) = stream.slices.poll_next_unpin(task) {
            progress = true;
            let Slice { pages, missing } = match slice {
                Ok(slice) => slice,
                Err(errno) => {
                    self.break_stream(&stream, errno)?;
                    return Ok(true);
                }
            };
            if !pages.is_empty() {
                self.frame_slice(&mut stream, pages);
            }
            if missing > 0 && !self.cut_stream(&mut stream, missing) {
                return Ok(true);
            }
        }
        // The slices that are kept pin memory that later slices may be waiting for. So the session waits only for the
        // backend then.
        if stream.kept_slices > 0 && self.cache.pool().is_short() {
            self.promise(&mut stream);
            progress = true;
        }
        // A finished stream is taken out by the next turn.
        self.sliced_reads.push_front(stream);
        Ok(progress)
    }

    /// Frames the next pages of a stream.
    fn frame_slice(&mut self, stream: &mut SlicedRead, pages: FrameRefs) {
        let at = stream.framed;
        stream.framed += pages.bytes() as u64;
        if stream.framing == Framing::Simple && !stream.promised {
            stream.kept.append(pages);
            stream.kept_slices += 1;
            if stream.is_whole() || stream.kept_slices >= SLICES_AHEAD {
                self.promise(stream);
            }
            return;
        }
        if stream.framing.is_contiguous() && !stream.promised {
            self.promise(stream);
        }
        let length = pages.bytes();
        let queue = self.output.stream_queue();
        let pieces = queue.staging().len();
        queue.staging().append(pages);
        if stream.framing.is_contiguous() {
            queue.commit_pages(length);
        } else {
            let cookie = stream.ticket.request.cookie;
            frame_chunks(queue, cookie, at, pieces, stream.is_whole());
        }
    }

    /// Sends the header that promises all data, and what was kept until then.
    fn promise(&mut self, stream: &mut SlicedRead) {
        let request = stream.ticket.request;
        let queue = self.output.stream_queue();
        // A chunk isn't the last one: an error may have to follow.
        let head = Head::of_data(self.limits.reply_style, ChunkFlags::EMPTY, &request);
        head.push_to(queue);
        let pool = self.cache.pool().clone();
        let kept = std::mem::replace(&mut stream.kept, FrameRefs::new(pool));
        let length = kept.bytes();
        queue.staging().append(kept);
        queue.commit_pages(length);
        stream.kept_slices = 0;
        stream.promised = true;
        self.output.hold();
    }

    /// The last `missing` bytes of a slice lie beyond the device's present end. Says whether the stream goes on.
    #[cold]
    fn cut_stream(&mut self, stream: &mut SlicedRead, missing: usize) -> bool {
        if stream.framing == Framing::Simple && stream.promised {
            self.output.stream_queue().commit_zeroes(missing);
            stream.framed += missing as u64;
            return true;
        }
        self.fail_stream(stream, NbdError::INVALID);
        false
    }

    /// A slice couldn't be read.
    #[cold]
    fn break_stream(&mut self, stream: &SlicedRead, errno: Errno) -> Result<(), End> {
        if stream.framing == Framing::Simple && stream.promised {
            return Err(End::ReplyBroken(errno));
        }
        self.fail_stream(stream, wire_error(errno));
        Ok(())
    }

    /// Ends a stream with an error, which its reply is able to report.
    fn fail_stream(&mut self, stream: &SlicedRead, error: NbdError) {
        let request = &stream.ticket.request;
        if !stream.promised && (stream.framing.is_contiguous() || stream.framed == request.offset) {
            return self.answer(&stream.ticket, Err(error));
        }
        let queue = self.output.stream_queue();
        if stream.promised {
            let rest = stream.end - stream.framed;
            queue.commit_zeroes(usize::try_from(rest).expect("at most a payload"));
        }
        frame_error(queue, request.cookie, error, stream.framed);
        self.close_stream(stream, true);
    }

    /// All of a stream is framed.
    fn finish_stream(&mut self, stream: &SlicedRead) {
        if stream.framing == Framing::OneChunk {
            let last = none_chunk(stream.ticket.request.cookie);
            self.output.stream_queue().push_bytes(&last);
        }
        self.close_stream(stream, false);
    }

    fn close_stream(&mut self, stream: &SlicedRead, failed: bool) {
        self.output.resume();
        self.meter.answered(&stream.ticket, failed);
    }
}

/// Appends the last `length` staged bytes, which are all from piece `pieces` on.
#[inline]
fn commit(queue: &mut Queue, pieces: usize, length: u32) {
    if length as usize <= COPIED_BYTES_MAX {
        queue.commit_copied(pieces);
    } else {
        queue.commit_pages(length as usize);
    }
}

/// Ends a reply in chunks with an error: nothing is valid from `offset` on.
fn frame_error(queue: &mut Queue, cookie: u64, error: NbdError, offset: u64) {
    let mut chunk = Vec::new();
    encode_error_offset(&mut chunk, ChunkFlags::DONE, cookie, error, "", offset);
    queue.push_bytes(&chunk);
}

/// Frames all staged pages from piece `pieces` on, which were read at `offset`, as data and hole chunks.
fn frame_chunks(queue: &mut Queue, cookie: u64, offset: u64, pieces: usize, is_last: bool) {
    let (mut at, mut piece) = (offset, pieces);
    while let Some(run) = queue.staged_run(piece) {
        let flags = if is_last && run.is_last {
            ChunkFlags::DONE
        } else {
            ChunkFlags::EMPTY
        };
        let length = u32::try_from(run.length).expect("staged pages are part of one request");
        if run.zero {
            queue.push_bytes(&offset_hole(flags, cookie, at, length));
            if run.is_last {
                // No staged page behind them has to stay in order.
                queue.staging().truncate(piece);
            } else {
                queue.commit_skipped(run.length);
            }
        } else {
            queue.push_bytes(&offset_data_header(flags, cookie, at, length));
            if run.is_last {
                commit(queue, piece, length);
            } else {
                queue.commit_pages(run.length);
            }
        }
        at += u64::from(length);
        piece += run.pieces;
    }
}
