//! WRITE: receiving payloads.
//!
//! A small payload that lies complete in the input buffer is copied into the cache at once. A larger one goes, slice by
//! slice, into private page frames: first what the buffer holds already, the rest straight from the socket. No lock
//! is held while the client sends, and a client that dies in the middle leaves only frames to be freed. Up to a few slices
//! of one WRITE are being stored while the next one is received; nothing of it is answered before all are.
//!
//! A refused WRITE's payload is thrown away as it comes, which takes no memory. So is the rest of one that has failed.

use std::io;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use weir_cache::{PAGE_SIZE, Payload, SLICE_BYTES};
use weir_faults::fault_point;
use weir_protocol::{CommandFlags, NbdError};

use super::Ticket;
use super::faulted::Collector;
use super::input::{INPUT_BYTES_BETWEEN_PAYLOADS, Input};
use super::slow::{self, PartFuture, wire_error};
use super::stream::Stream;
use super::transmission::Transmission;

/// Payloads up to this size are received in the input buffer, several of them per system call, and copied. Beyond it the
/// copy costs more than the system call that avoids it.
pub(super) const BUFFERED_PAYLOAD_MAX: usize = 32 << 10;

/// Slices of one WRITE that are being stored at a time.
const SLICES_STORED_MAX: usize = 4;

/// Slices of memory that the pages of one payload are: it may begin and end within a page.
const IO_SLICES_MAX: usize = SLICE_BYTES / PAGE_SIZE + 1;

/// A WRITE whose payload is being received.
pub(super) struct Receive {
    ticket: Ticket,
    /// Where the next slice begins.
    next: u64,
    /// Bytes of the payload that belong to no slice yet.
    left: u64,
    stage: Stage,
    /// Slices that couldn't be installed at once; hardly any WRITE has such.
    stored: Option<FuturesUnordered<PartFuture<()>>>,
    error: Option<NbdError>,
}

/// What is done with the bytes that come next.
enum Stage {
    /// Find memory for the next slice.
    Allocate,
    /// Memory is short. The slice has this many bytes.
    Waiting(PartFuture<Payload>, u64),
    /// They belong to this slice.
    Filling(Payload),
    /// They are thrown away.
    Draining,
    /// They are kept, for a fault rule.
    Collecting(Box<Collector>),
}

/// What a [`Receive`] needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// More input, memory, or a slice to be stored.
    Wait,
    /// Nothing: the payload is complete.
    Nothing,
}

impl Receive {
    fn new(ticket: Ticket, stage: Stage) -> Self {
        Self {
            ticket,
            next: ticket.request.offset,
            left: ticket.request.length.into(),
            stage,
            stored: None,
            error: None,
        }
    }

    /// How many slices are being stored.
    fn storing(&self) -> usize {
        self.stored.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// Bytes of the payload that are still to come.
    pub(super) fn remaining(&self) -> u64 {
        self.left
            + match &self.stage {
                Stage::Filling(payload) => payload.remaining() as u64,
                Stage::Waiting(_, slice) => *slice,
                _ => 0,
            }
    }

    /// Whether it is the client's turn.
    pub(super) fn wants_input(&self) -> bool {
        matches!(
            self.stage,
            Stage::Filling(_) | Stage::Draining | Stage::Collecting(_)
        )
    }

    /// The slice that is being received, if one is.
    pub(super) fn filling(&mut self) -> Option<&mut Payload> {
        match &mut self.stage {
            Stage::Filling(payload) => Some(payload),
            _ => None,
        }
    }

    /// The rest is of no use.
    fn fail(&mut self, error: NbdError) {
        self.error.get_or_insert(error);
        self.left = self.remaining();
        self.stage = Stage::Draining;
    }
}

/// Reads straight into `payload`, and what follows it into `input`.
pub(super) fn fill(payload: &mut Payload, input: &mut Input, stream: &Stream) -> io::Result<usize> {
    let wanted = payload.remaining();
    let slices = payload.io_slices_mut(IO_SLICES_MAX);
    let count = input.fill_behind(stream, slices, wanted, INPUT_BYTES_BETWEEN_PAYLOADS)?;
    payload.advance(count);
    Ok(count)
}

impl Transmission<'_> {
    /// A WRITE that passed all checks; its header is consumed. `complete` says whether the payload is in the buffer.
    pub(super) fn write(&mut self, ticket: Ticket, complete: bool) {
        let length = ticket.request.length as usize;
        if length == 0 {
            return self.answer(&ticket, Ok(()));
        }
        // Also when this one came whole: the next one is then left in the socket, from where it isn't copied.
        self.large_payloads = length > BUFFERED_PAYLOAD_MAX;
        if complete && self.cache.slice_at(ticket.request.offset, length as u64) == length {
            let data = &self.input.unread()[..length];
            if !self.cache.is_direct(length as u64)
                && self
                    .cache
                    .try_write(self.contexts.write(), ticket.request.offset, data)
            {
                self.input.consume(length);
                return self.stored(ticket, None, None);
            }
        }
        self.receiving = Some(Receive::new(ticket, Stage::Allocate));
    }

    /// A WRITE that is refused: its payload is drained, then the error goes out.
    pub(super) fn drain(&mut self, ticket: Ticket, error: NbdError) {
        let mut receive = Receive::new(ticket, Stage::Draining);
        receive.error = Some(error);
        self.receiving = Some(receive);
    }

    /// A WRITE for which a fault rule wants the payload.
    pub(super) fn collect(&mut self, ticket: Ticket, collector: Collector) {
        self.receiving = Some(Receive::new(ticket, Stage::Collecting(Box::new(collector))));
    }

    /// Goes on with the payload that is being received; says whether it is complete.
    pub(super) fn receive(&mut self) -> bool {
        let Some(mut receive) = self.receiving.take() else {
            return true;
        };
        match self.advance(&mut receive) {
            Need::Wait => {
                self.receiving = Some(receive);
                false
            }
            Need::Nothing => {
                let Receive {
                    ticket,
                    stored,
                    error,
                    stage,
                    ..
                } = receive;
                match stage {
                    Stage::Collecting(collector) => self.run_collected(ticket, *collector),
                    _ => self.stored(ticket, stored, error),
                }
                true
            }
        }
    }

    fn advance(&mut self, receive: &mut Receive) -> Need {
        loop {
            let storing = receive.storing();
            match &mut receive.stage {
                Stage::Allocate if receive.left == 0 => return Need::Nothing,
                Stage::Allocate if storing >= SLICES_STORED_MAX => return Need::Wait,
                Stage::Allocate => self.allocate(receive),
                Stage::Waiting(..) => return Need::Wait,
                Stage::Filling(payload) => {
                    let copied = payload.copy_from(self.input.unread());
                    self.input.consume(copied);
                    if payload.remaining() > 0 {
                        return Need::Wait;
                    }
                    self.store(receive);
                }
                Stage::Draining | Stage::Collecting(_) if receive.left == 0 => {
                    return Need::Nothing;
                }
                Stage::Draining => {
                    let Some(count) = self.next_piece(receive.left) else {
                        return Need::Wait;
                    };
                    self.input.consume(count);
                    receive.left -= count as u64;
                }
                Stage::Collecting(collector) => {
                    let Some(count) = self.next_piece(receive.left) else {
                        return Need::Wait;
                    };
                    collector
                        .data
                        .extend_from_slice(&self.input.unread()[..count]);
                    self.input.consume(count);
                    receive.left -= count as u64;
                }
            }
        }
    }

    /// How many of the next `most` bytes are in the buffer, if any are.
    fn next_piece(&self, most: u64) -> Option<usize> {
        let there = self.input.unread().len();
        let count = usize::try_from(most).map_or(there, |most| most.min(there));
        (count > 0).then_some(count)
    }

    /// Takes memory for the next slice.
    fn allocate(&self, receive: &mut Receive) {
        let (at, left) = (receive.next, receive.left);
        let slice = self.cache.slice_at(at, left);
        receive.stage = if let Some(payload) = self.cache.try_payload(at, slice) {
            Stage::Filling(payload)
        } else {
            let cache = self.cache.clone();
            Stage::Waiting(
                Box::pin(async move { Ok(cache.payload(at, slice).await) }),
                slice as u64,
            )
        };
        receive.next += slice as u64;
        receive.left -= slice as u64;
    }

    /// Stores the slice that is complete.
    fn store(&self, receive: &mut Receive) {
        let Stage::Filling(payload) = std::mem::replace(&mut receive.stage, Stage::Allocate) else {
            return;
        };
        if let Err(errno) = fault_point!(
            self.contexts.write(),
            "session:store",
            [EIO, ENOSPC, ENOMEM]
        ) {
            return receive.fail(wire_error(errno));
        }
        let (cache, context) = (self.cache.clone(), self.contexts.write().clone());
        let part: PartFuture<()> = if self.cache.is_direct(receive.ticket.request.length.into()) {
            Box::pin(async move { cache.write_direct(&context, payload).await })
        } else {
            match self.cache.try_install(self.contexts.write(), payload) {
                Ok(()) => return,
                Err(payload) => Box::pin(async move { cache.write(&context, payload).await }),
            }
        };
        receive.stored.get_or_insert_default().push(part);
    }

    /// All of a WRITE has been received: answers it when its slices are stored, and durable if it says FUA.
    fn stored(
        &mut self,
        ticket: Ticket,
        parts: Option<FuturesUnordered<PartFuture<()>>>,
        error: Option<NbdError>,
    ) {
        let persist = error.is_none() && ticket.request.flags.contains(CommandFlags::FUA);
        if !persist && parts.as_ref().is_none_or(FuturesUnordered::is_empty) {
            return self.answer(&ticket, error.map_or(Ok(()), Err));
        }
        let parts = parts.unwrap_or_default();
        let (cache, context) = (self.cache.clone(), self.contexts.write().clone());
        self.slow
            .push(slow::finish_write(cache, context, ticket, parts, error));
    }

    /// Memory for a payload, and slices that are stored.
    pub(super) fn poll_receiving(&mut self, task: &mut Context<'_>) -> bool {
        let Some(receive) = &mut self.receiving else {
            return false;
        };
        let mut progress = false;
        while let Some(stored) = &mut receive.stored
            && let Poll::Ready(Some(outcome)) = stored.poll_next_unpin(task)
        {
            progress = true;
            if let Err(errno) = outcome {
                receive.fail(wire_error(errno));
            }
        }
        if let Stage::Waiting(memory, _) = &mut receive.stage
            && let Poll::Ready(outcome) = memory.as_mut().poll(task)
        {
            progress = true;
            match outcome {
                Ok(payload) => receive.stage = Stage::Filling(payload),
                Err(errno) => receive.fail(wire_error(errno)),
            }
        }
        progress
    }
}
