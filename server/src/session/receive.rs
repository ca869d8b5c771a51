//! WRITE: receiving payloads.
//!
//! A small payload that lies complete in the input buffer is copied into the cache at once. A larger one goes into
//! private page frames, slice by slice: first what the buffer holds already, then the rest straight from the socket. No
//! lock is held while the client sends, and a client that dies in the middle leaves only frames to be freed. A few
//! slices of one WRITE may be with the cache while the next one is received. The WRITE is answered when all of them are
//! stored.
//!
//! # Memory is for what has arrived
//! Frames for a slice that is still in the socket come from a part of the cache that is set aside for that, and only if
//! they are available at once. Otherwise the data gathers in the input buffer, which the connection has anyway. Frames
//! are then taken, and waited for, only for as much as lies there ([`GATHERED_BYTES`]). So a WRITE that waits for
//! memory waits for the store and not for a client. Clients that announce much and send little hold up no other client:
//! while other WRITEs are refused frames ahead of their data, such clients are disconnected (see
//! [`watch`](super::watch)).
//!
//! The payload of a refused WRITE is thrown away as it comes, which takes no memory. The same happens to the rest of a
//! payload after a part of it has failed.

use std::io;
use std::mem;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use weir_cache::{PAGE_BYTES, PAGE_SIZE, Payload, SLICE_BYTES};
use weir_faults::fault_point;
use weir_protocol::{CommandFlags, NbdError};

use super::Ticket;
use super::faulted::Collector;
use super::input::{INPUT_BYTES, INPUT_BYTES_BETWEEN_PAYLOADS, Input};
use super::slow::{self, PartFuture, wire_error};
use super::socket::Socket;
use super::transmission::Transmission;
use crate::held::{HeldBytes, HeldFuture};

/// Payloads up to this size are received in the input buffer, several of them per system call, and copied. Beyond this
/// size the copy costs more than the system call that it saves.
pub(super) const BUFFERED_PAYLOAD_MAX: usize = 32 << 10;

/// Slices of one WRITE that are being stored at a time.
const SLICES_STORED_MAX: usize = 4;

/// How much of a slice is gathered in the input buffer before frames are taken for it. A store takes hardly longer for
/// this much than for a page, and the buffer has room for more behind it.
const GATHERED_BYTES: usize = 64 << 10;
const _: () = assert!(GATHERED_BYTES >= PAGE_SIZE && GATHERED_BYTES < INPUT_BYTES);

/// Slices of memory that the pages of one payload make up: it may begin and end within a page.
const IO_SLICES_MAX: usize = SLICE_BYTES / PAGE_SIZE + 1;

/// A WRITE whose payload is being received.
pub(super) struct Receive {
    ticket: Ticket,
    /// Where the next slice begins.
    next: u64,
    /// Bytes of the payload that belong to no slice yet.
    left: u64,
    stage: Stage,
    /// Slices that couldn't be installed at once; hardly any WRITE has any.
    stored: Option<FuturesUnordered<PartFuture<()>>>,
    error: Option<NbdError>,
}

/// What is done with the next bytes.
enum Stage {
    /// Find memory for the next slice.
    Allocate,
    /// No memory is available ahead of the data, so the data gathers in the input buffer.
    Gathering,
    /// This many bytes have arrived; memory for them is short.
    Waiting(PartFuture<Payload>, u64),
    /// They belong to this slice.
    Filling(Payload),
    /// The memory that fault rules keep is at its limit.
    Crowded(HeldFuture, Box<Collector>),
    /// The bytes are thrown away.
    Draining,
    /// The bytes are kept, for a fault rule.
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

    /// Whether the client is to send next.
    pub(super) fn wants_input(&self) -> bool {
        matches!(
            self.stage,
            Stage::Gathering | Stage::Filling(_) | Stage::Draining | Stage::Collecting(_)
        )
    }

    /// Whether more is wanted behind what lies in the input buffer.
    pub(super) fn is_gathering(&self) -> bool {
        matches!(self.stage, Stage::Gathering)
    }

    /// Bytes of memory that are kept for what the client is to send.
    pub(super) fn held_ahead(&self) -> usize {
        match &self.stage {
            Stage::Filling(payload) => payload.len(),
            Stage::Collecting(collector) => collector.data.capacity(),
            _ => 0,
        }
    }

    /// How much of that lies outside the cache.
    pub(super) fn room_ahead(&self) -> usize {
        match &self.stage {
            Stage::Collecting(_) => self.held_ahead(),
            _ => 0,
        }
    }

    /// There is room for the payload that a fault rule wants.
    fn collect(&mut self, held: HeldBytes) {
        if let Stage::Crowded(_, mut collector) = mem::replace(&mut self.stage, Stage::Draining) {
            collector.begin(self.ticket.request.length as usize, held);
            self.stage = Stage::Collecting(collector);
        }
    }

    /// The slice that is being received, if one is.
    pub(super) fn filling(&mut self) -> Option<&mut Payload> {
        match &mut self.stage {
            Stage::Filling(payload) => Some(payload),
            _ => None,
        }
    }

    /// The next `count` bytes have got a slice.
    fn cut(&mut self, count: usize) {
        self.next += count as u64;
        self.left -= count as u64;
    }

    /// How much to read at once while this gathers: the rest of the payload, and what may follow it.
    pub(super) fn most_gathered(&self, there: usize) -> usize {
        let rest = usize::try_from(self.left).map_or(INPUT_BYTES, |left| left - there);
        (rest + INPUT_BYTES_BETWEEN_PAYLOADS).min(INPUT_BYTES)
    }

    /// The rest is of no use.
    fn fail(&mut self, error: NbdError) {
        self.error.get_or_insert(error);
        self.left = self.remaining();
        self.stage = Stage::Draining;
    }
}

/// Reads straight into `payload`, and what follows it into `input`.
pub(super) fn fill(payload: &mut Payload, input: &mut Input, stream: &Socket) -> io::Result<usize> {
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
        // Also when this payload came whole: the next one is then left in the socket, from where it isn't copied.
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
    pub(super) fn collect(&mut self, ticket: Ticket, mut collector: Collector) {
        let length = ticket.request.length as usize;
        let room = self.held.payloads();
        let stage = if let Some(held) = room.try_take(length) {
            collector.begin(length, held);
            Stage::Collecting(Box::new(collector))
        } else {
            Stage::Crowded(Box::pin(room.take(length)), Box::new(collector))
        };
        self.receiving = Some(Receive::new(ticket, stage));
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
                Stage::Waiting(..) | Stage::Crowded(..) => return Need::Wait,
                Stage::Gathering => {
                    let Some(arrived) = self.gathered(receive) else {
                        return Need::Wait;
                    };
                    self.take_memory(receive, arrived);
                }
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

    /// Takes memory for the next slice. While that slice is still in the socket, takes memory only if it is available
    /// at once.
    fn allocate(&self, receive: &mut Receive) {
        let slice = self.cache.slice_at(receive.next, receive.left);
        if self.input.unread().len() >= slice {
            self.take_memory(receive, slice);
        } else if let Some(payload) = self.cache.try_payload_ahead(receive.next, slice) {
            receive.stage = Stage::Filling(payload);
            receive.cut(slice);
        } else {
            receive.stage = Stage::Gathering;
        }
    }

    /// How much of the next slice is to be stored, once enough of it lies in the input buffer: all of it, or whole
    /// pages.
    fn gathered(&self, receive: &Receive) -> Option<usize> {
        let there = self.input.unread().len();
        let slice = self.cache.slice_at(receive.next, receive.left);
        if there >= slice {
            return Some(slice);
        }
        let partial = (receive.next + there as u64) % PAGE_BYTES;
        (there >= GATHERED_BYTES).then(|| there - usize::try_from(partial).expect("below a page"))
    }

    /// Takes memory for the next `arrived` bytes, which lie in the input buffer.
    fn take_memory(&self, receive: &mut Receive, arrived: usize) {
        let at = receive.next;
        receive.stage = if let Some(payload) = self.cache.try_payload(at, arrived) {
            Stage::Filling(payload)
        } else {
            let cache = self.cache.clone();
            Stage::Waiting(
                Box::pin(async move { Ok(cache.payload(at, arrived).await) }),
                arrived as u64,
            )
        };
        receive.cut(arrived);
    }

    /// Stores the complete slice.
    fn store(&self, receive: &mut Receive) {
        let Stage::Filling(payload) = mem::replace(&mut receive.stage, Stage::Allocate) else {
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

    /// All of a WRITE has been received: answers it when its slices are stored, and also durable if it says FUA.
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
        match &mut receive.stage {
            Stage::Waiting(memory, _) => {
                if let Poll::Ready(outcome) = memory.as_mut().poll(task) {
                    progress = true;
                    match outcome {
                        Ok(payload) => receive.stage = Stage::Filling(payload),
                        Err(errno) => receive.fail(wire_error(errno)),
                    }
                }
            }
            Stage::Crowded(room, _) => {
                if let Poll::Ready(held) = room.as_mut().poll(task) {
                    progress = true;
                    receive.collect(held);
                }
            }
            _ => {}
        }
        progress
    }
}
