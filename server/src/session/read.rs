//! READ: hits inline, misses as futures, and what is larger than a slice as a stream of slices.
//!
//! # Streams
//! A READ may be as long as the largest payload, and the cache need not have so many pages. It is therefore read slice by
//! slice, a few of them at a time, while the client takes what was read before. One such READ is under way per
//! connection; others queue behind it, and shorter requests pass it by.
//!
//! A simple reply (or the one data chunk that DF asks for) promises all its data in its header. While one is being
//! streamed other replies are held back, and an error can only disconnect. Other structured replies have a chunk per slice
//! and none of these troubles.

use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use weir_cache::{FrameRefs, SLICE_BYTES};
use weir_faults::{Errno, fault_point};
use weir_protocol::reply::{
    SimpleReply, encode_error, encode_error_offset, none_chunk, offset_data_header, offset_hole,
};
use weir_protocol::{ChunkFlags, CommandFlags, NbdError, Request};

use super::Ticket;
use super::end::End;
use super::output::Queue;
use super::slow::{self, PartFuture, wire_error};
use super::transmission::Transmission;

/// Slices of a streamed READ that are being read at a time: one on its way while the next ones come from the backend.
const SLICES_AHEAD: usize = 4;

/// How a READ's data is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// A header with an error code, then everything.
    Simple,
    /// One data chunk.
    OneChunk,
    /// Data and hole chunks.
    Chunks,
}

impl Framing {
    #[inline]
    fn of(request: &Request, structured: bool) -> Self {
        match structured {
            false => Self::Simple,
            true if request.flags.contains(CommandFlags::DF) => Self::OneChunk,
            true => Self::Chunks,
        }
    }

    /// Whether the data is promised by one header.
    fn is_contiguous(self) -> bool {
        self != Self::Chunks
    }
}

/// A READ that is larger than a slice.
pub(super) struct ReadStream {
    ticket: Ticket,
    framing: Framing,
    /// Where the next slice to be asked for begins.
    asked: u64,
    /// Where the next slice to be sent begins.
    framed: u64,
    end: u64,
    slices: FuturesOrdered<PartFuture<FrameRefs>>,
}

impl ReadStream {
    fn is_started(&self) -> bool {
        self.framed > self.ticket.request.offset
    }
}

impl Transmission<'_> {
    /// A READ that passed all checks.
    #[inline]
    pub(super) fn read(&mut self, ticket: Ticket) {
        let length = ticket.request.length as usize;
        if length == 0 {
            return self.empty_read(&ticket);
        }
        if length <= SLICE_BYTES && self.read_inline(&ticket) {
            return;
        }
        let whole = self.cache.slice_at(ticket.request.offset, length as u64) == length;
        if whole {
            self.slow_bytes += length;
            self.slow.push(slow::read(
                self.cache.clone(),
                self.contexts.read.clone(),
                ticket,
            ));
            return;
        }
        let range = slow::range(&ticket.request);
        self.streams.push_back(ReadStream {
            ticket,
            framing: Framing::of(&ticket.request, self.limits.reply_style.is_structured()),
            asked: range.start,
            framed: range.start,
            end: range.end,
            slices: FuturesOrdered::new(),
        });
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
        let structured = self.limits.reply_style.is_structured();
        let request = &ticket.request;
        let queue = self.output.queue();
        match Framing::of(request, structured) {
            Framing::Simple => {
                queue.push_bytes(
                    &SimpleReply {
                        error: None,
                        cookie: request.cookie,
                    }
                    .encode(),
                );
                queue.commit_pages(request.length as usize);
            }
            Framing::OneChunk => {
                let header = offset_data_header(
                    ChunkFlags::DONE,
                    request.cookie,
                    request.offset,
                    request.length,
                );
                queue.push_bytes(&header);
                queue.commit_pages(request.length as usize);
            }
            Framing::Chunks => frame_chunks(queue, request.cookie, request.offset, pieces, true),
        }
        self.tally.answered(ticket, false);
    }

    /// A READ of one slice has come back from the cache.
    pub(super) fn finish_read(&mut self, ticket: &Ticket, outcome: Result<FrameRefs, NbdError>) {
        self.slow_bytes -= ticket.request.length as usize;
        match outcome {
            Ok(pages) => {
                let staging = self.output.queue().staging();
                let pieces = staging.len();
                staging.append(pages);
                self.answer_read(ticket, pieces);
            }
            Err(error) => self.refuse_read(ticket, error),
        }
    }

    /// A READ of nothing: structured replies have a chunk for that.
    fn empty_read(&mut self, ticket: &Ticket) {
        let cookie = ticket.request.cookie;
        if self.limits.reply_style.is_structured() {
            self.output.queue().push_bytes(&none_chunk(cookie));
        } else {
            self.output.queue().push_bytes(
                &SimpleReply {
                    error: None,
                    cookie,
                }
                .encode(),
            );
        }
        self.tally.answered(ticket, false);
    }

    /// An error, before anything of the reply was sent.
    pub(super) fn refuse_read(&mut self, ticket: &Ticket, error: NbdError) {
        let cookie = ticket.request.cookie;
        if self.limits.reply_style.is_structured() {
            let mut chunk = Vec::new();
            encode_error(&mut chunk, ChunkFlags::DONE, cookie, error, "");
            self.output.queue().push_bytes(&chunk);
        } else {
            self.output.queue().push_bytes(
                &SimpleReply {
                    error: Some(error),
                    cookie,
                }
                .encode(),
            );
        }
        self.tally.answered(ticket, true);
    }

    /// Moves the streamed READs on, as far as that goes without waiting.
    pub(super) fn pump_streams(&mut self) -> Result<(), End> {
        while let Some(mut stream) = self.streams.pop_front() {
            while stream.asked < stream.end
                && stream.slices.len() < SLICES_AHEAD
                && !self.output.is_stream_full()
            {
                let (at, left) = (stream.asked, stream.end - stream.asked);
                let slice = self.cache.slice_at(at, left);
                stream.asked += slice as u64;
                let staging = self.output.stream_queue().staging();
                let pieces = staging.len();
                let injected = fault_point!(self.contexts.read, "session:slice", [EIO, ENOMEM]);
                if injected.is_ok()
                    && stream.slices.is_empty()
                    && self.cache.try_read(at, slice, staging)
                {
                    self.frame_slice(&mut stream, pieces, slice);
                } else {
                    let context = self.contexts.read.clone();
                    stream.slices.push_back(slow::read_slice(
                        self.cache.clone(),
                        context,
                        stream.ticket.request,
                        at,
                        slice,
                        injected,
                    ));
                }
            }
            if stream.framed < stream.end {
                self.streams.push_front(stream);
                return Ok(());
            }
            self.finish_stream(&stream, false);
        }
        Ok(())
    }

    /// Whether [`Self::pump_streams`] has something to do: what stopped it was sent meanwhile.
    pub(super) fn can_pump(&self) -> bool {
        let room = !self.output.is_stream_full();
        self.streams.front().is_some_and(|stream| {
            stream.framed == stream.end
                || (stream.asked < stream.end && stream.slices.len() < SLICES_AHEAD && room)
        })
    }

    /// Takes finished slices of the streamed READ.
    pub(super) fn poll_streams(&mut self, task: &mut Context<'_>) -> Result<bool, End> {
        let Some(mut stream) = self.streams.pop_front() else {
            return Ok(false);
        };
        let mut progress = false;
        while let Poll::Ready(Some(outcome)) = stream.slices.poll_next_unpin(task) {
            progress = true;
            match outcome {
                Ok(pages) => {
                    let length = pages.bytes();
                    let staging = self.output.stream_queue().staging();
                    let pieces = staging.len();
                    staging.append(pages);
                    self.frame_slice(&mut stream, pieces, length);
                }
                Err(errno) => {
                    self.break_stream(&stream, errno)?;
                    return Ok(true);
                }
            }
        }
        // A finished stream is taken out by the next turn.
        self.streams.push_front(stream);
        Ok(progress)
    }

    /// Frames the next `length` bytes of a stream, staged from piece `pieces` on.
    fn frame_slice(&mut self, stream: &mut ReadStream, pieces: usize, length: usize) {
        let request = stream.ticket.request;
        if !stream.is_started() && stream.framing.is_contiguous() {
            let queue = self.output.stream_queue();
            if stream.framing == Framing::Simple {
                queue.push_bytes(
                    &SimpleReply {
                        error: None,
                        cookie: request.cookie,
                    }
                    .encode(),
                );
            } else {
                let header = offset_data_header(
                    ChunkFlags::DONE,
                    request.cookie,
                    request.offset,
                    request.length,
                );
                queue.push_bytes(&header);
            }
            self.output.hold();
        }
        let at = stream.framed;
        stream.framed += length as u64;
        let queue = self.output.stream_queue();
        if stream.framing.is_contiguous() {
            queue.commit_pages(length);
        } else {
            frame_chunks(
                queue,
                request.cookie,
                at,
                pieces,
                stream.framed == stream.end,
            );
        }
    }

    /// A slice couldn't be read.
    fn break_stream(&mut self, stream: &ReadStream, errno: Errno) -> Result<(), End> {
        let error = wire_error(errno);
        if !stream.is_started() {
            self.refuse_read(&stream.ticket, error);
            return Ok(());
        }
        if stream.framing.is_contiguous() {
            return Err(End::ReplyBroken(errno));
        }
        let mut chunk = Vec::new();
        let cookie = stream.ticket.request.cookie;
        encode_error_offset(
            &mut chunk,
            ChunkFlags::DONE,
            cookie,
            error,
            "",
            stream.framed,
        );
        self.output.stream_queue().push_bytes(&chunk);
        self.finish_stream(stream, true);
        Ok(())
    }

    fn finish_stream(&mut self, stream: &ReadStream, failed: bool) {
        self.output.resume();
        self.tally.answered(&stream.ticket, failed);
    }
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
            queue.commit_skipped(run.length);
        } else {
            queue.push_bytes(&offset_data_header(flags, cookie, at, length));
            queue.commit_pages(run.length);
        }
        at += u64::from(length);
        piece += run.pieces;
    }
}
