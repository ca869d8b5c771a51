//! Fault rules on requests, and the state of the export as a device: what they do to a request.
//!
//! Nothing here is on the path of a request unless something is set for requests like it: asking for rules costs one
//! relaxed load, asking for a device two. A request that a rule has taken (or that a frozen device keeps waiting) is
//! carried out apart from the hot paths, with its data in one buffer of its own, so that every action is a few plain
//! lines. While it waits for delays and hangs it holds nothing but its payload.
//!
//! These buffers lie beside the cache. They count twice: for the connection, like all work in progress for it, and for
//! the export ([`held`](crate::held)). While either limit is reached the connection isn't read. A READ or BLOCK_STATUS
//! takes its room when it is about to be carried out, and gives it back when its data is sent.

use std::sync::Arc;

use futures_util::FutureExt as _;
use weir_cache::{MemoryLine, PageCache, SLICE_BYTES};
use weir_faults::{Action, Damage, Decision, Device, Errno, FaultContext};
use weir_protocol::{ChunkFlags, Command, CommandFlags, MetaContextSet, NbdError, Request};

use super::reply::Head;
use super::slow::{self, Finished, SlowFuture, wire_error};
use super::transmission::{Phase, Transmission};
use super::{Ticket, status};
use crate::commands::kind_of;
use crate::held::{HeldBytes, HeldMemory};
use crate::limits::STATUS_BYTES_MAX;

/// Turns a cookie into one that the client has hardly used.
const COOKIE_GARBAGE: u64 = 0xdead_beef_0bad_cafe;

/// Receives the payload of a WRITE that a rule has taken.
pub(super) struct Collector {
    pub(super) data: Vec<u8>,
    /// What `data` counts for.
    held: Option<HeldBytes>,
    decision: Option<Decision>,
}

impl Collector {
    /// There is room for the whole payload, which is `length` bytes long.
    pub(super) fn begin(&mut self, length: usize, held: HeldBytes) {
        // Exactly that much: a buffer that grows by itself takes twice what is in it.
        self.data.reserve_exact(length);
        self.held = Some(held);
    }
}

/// What goes into a reply, and what it counts for.
#[derive(Debug, Default)]
struct Data {
    bytes: Vec<u8>,
    held: Option<HeldBytes>,
}

/// A request that a rule has taken, once it is done.
#[derive(Debug)]
pub(super) struct Faulted {
    ticket: Ticket,
    /// What a READ has read, or the chunks of a BLOCK_STATUS.
    outcome: Result<Data, NbdError>,
    ending: Ending,
}

/// How a reply is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// As it is.
    Sound,
    /// With another cookie.
    Garbage,
    /// Not at all: the connection is closed.
    Dropped,
    /// The first half of it, then the connection is closed.
    CutOff,
}

/// The range that a request is about. A FLUSH has none, whatever its fields say.
fn range_of(request: &Request) -> (u64, u64) {
    match request.command {
        Command::FLUSH => (0, 0),
        _ => (request.offset, request.length.into()),
    }
}

/// What a request that a rule has taken counts for while it is worked on.
fn weight(request: &Request) -> usize {
    match request.command {
        Command::READ | Command::WRITE => request.length as usize,
        Command::BLOCK_STATUS => STATUS_BYTES_MAX,
        _ => 0,
    }
}

impl Transmission<'_> {
    /// Asks rules and device about a request; says whether it is taken care of.
    #[inline]
    pub(super) fn consult_rules(&mut self, ticket: Ticket) -> bool {
        let request = &ticket.request;
        let Some(kind) = kind_of(request.command) else {
            return false;
        };
        let (offset, length) = range_of(request);
        let fua = request.flags.contains(CommandFlags::FUA);
        let decision = self.screen.decide(kind, offset, length, fua);
        let stopped = self.device.as_ref().is_some_and(|device| {
            device.check(kind, offset, length).is_err() || device.thawed().now_or_never().is_none()
        });
        if decision.is_none() && !stopped {
            return false;
        }
        self.take_over(ticket, decision);
        true
    }

    #[cold]
    fn take_over(&mut self, ticket: Ticket, decision: Option<Decision>) {
        let collector = Collector {
            data: Vec::new(),
            held: None,
            decision,
        };
        if ticket.request.command == Command::WRITE {
            self.collect(ticket, collector);
        } else {
            self.run_collected(ticket, collector);
        }
    }

    /// Carries out a request that a rule has taken; a WRITE's payload is complete.
    pub(super) fn run_collected(&mut self, ticket: Ticket, collector: Collector) {
        self.slow_bytes += weight(&ticket.request);
        let work = Work {
            cache: self.cache.clone(),
            faults: self.contexts.of(ticket.request.command).clone(),
            device: self.device.clone(),
            contexts: self.limits.meta_contexts,
            held: Arc::clone(&self.held),
            line: self.memory_line.clone(),
        };
        self.slow.push(carry_out(work, ticket, collector));
    }

    /// Answers a request that a rule has taken.
    pub(super) fn finish_faulted(&mut self, faulted: Faulted) {
        let Faulted {
            mut ticket,
            outcome,
            ending,
        } = faulted;
        self.slow_bytes -= weight(&ticket.request);
        if ending == Ending::Garbage {
            ticket.request.cookie ^= COOKIE_GARBAGE;
        }
        match ending {
            Ending::Sound | Ending::Garbage => match self.keep_losses(&ticket.request, outcome) {
                Ok(data) => {
                    self.push_reply(&ticket.request, data, false);
                    self.rewritten(&ticket.request);
                    self.meter.answered(&ticket, false);
                }
                Err(error) => self.answer(&ticket, Err(error)),
            },
            Ending::Dropped => self.drop_client(),
            Ending::CutOff => {
                self.push_reply(&ticket.request, outcome.unwrap_or_default(), true);
                self.drop_client();
            }
        }
    }

    /// Answers nothing from here on. Drops what is under way instead of keeping it unpolled: others may wait for what
    /// it reads.
    fn drop_client(&mut self) {
        self.phase = Phase::Dropping;
        self.slow.clear();
        self.sliced_reads.clear();
        self.receiving = None;
    }

    /// As [`Self::with_losses`], for an outcome with data.
    fn keep_losses(
        &mut self,
        request: &Request,
        outcome: Result<Data, NbdError>,
    ) -> Result<Data, NbdError> {
        let (data, outcome) = match outcome {
            Ok(data) => (data, Ok(())),
            Err(error) => (Data::default(), Err(error)),
        };
        self.with_losses(request, outcome).map(|()| data)
    }

    /// Sends a reply, or only the first half of it.
    fn push_reply(&mut self, request: &Request, data: Data, cut_off: bool) {
        let head = self.head_of(request, data.bytes.len());
        let head = head.as_ref().map_or(&[][..], Head::bytes);
        let Data { mut bytes, held } = data;
        let most = if cut_off {
            usize::midpoint(head.len(), bytes.len())
        } else {
            usize::MAX
        };
        let queue = self.output.queue();
        queue.push_bytes(&head[..head.len().min(most)]);
        bytes.truncate(most.saturating_sub(head.len()));
        match held {
            Some(held) => queue.push_own(bytes, held),
            None => assert!(bytes.is_empty(), "data that counts for nothing"),
        }
    }

    /// What comes before a reply's data, which is `length` bytes long. The chunks of a BLOCK_STATUS have their own.
    fn head_of(&self, request: &Request, length: usize) -> Option<Head> {
        let style = self.limits.reply_style;
        match request.command {
            Command::BLOCK_STATUS => None,
            _ if length == 0 => Some(Head::of_success(style, request)),
            _ => Some(Head::of_data(style, ChunkFlags::DONE, request)),
        }
    }

    /// Tells the device that sectors were rewritten, which repairs bad ones.
    #[inline]
    pub(super) fn rewritten(&self, request: &Request) {
        if matches!(request.command, Command::WRITE | Command::WRITE_ZEROES)
            && let Some(device) = &self.device
        {
            device.rewritten(request.offset, request.length.into());
        }
    }
}

/// What a request is carried out with.
struct Work {
    cache: Arc<PageCache>,
    faults: FaultContext,
    device: Option<Device>,
    contexts: MetaContextSet,
    held: Arc<HeldMemory>,
    line: MemoryLine,
}

/// Waits as decided, then does to the request what the decision says.
fn carry_out(work: Work, ticket: Ticket, collector: Collector) -> SlowFuture {
    Box::pin(async move {
        // `held` counts for `data` until the future is done.
        let Collector {
            data,
            held: _held,
            mut decision,
        } = collector;
        if let Some(decision) = &mut decision {
            decision.wait().await;
        }
        let action = decision.as_ref().and_then(|decision| decision.action);
        let ending = match action {
            Some(Action::Garbage) => Ending::Garbage,
            Some(Action::Drop) => Ending::Dropped,
            Some(Action::DropMid) => Ending::CutOff,
            _ => Ending::Sound,
        };
        let outcome = match admitted(&work, &ticket.request).await {
            Ok(()) if ending != Ending::Dropped => {
                act(&work, &ticket.request, decision.as_ref(), data, ending).await
            }
            outcome => outcome.map(|()| Data::default()),
        };
        Finished::Faulted(Box::new(Faulted {
            ticket,
            outcome: outcome.map_err(wire_error),
            ending,
        }))
    })
}

/// Waits for the device and asks it.
async fn admitted(work: &Work, request: &Request) -> Result<(), Errno> {
    let (Some(device), Some(kind)) = (&work.device, kind_of(request.command)) else {
        return Ok(());
    };
    device.thawed().await;
    let (offset, length) = range_of(request);
    device.check(kind, offset, length)
}

/// Carries the request out, changed as decided.
async fn act(
    work: &Work,
    request: &Request,
    decision: Option<&Decision>,
    mut data: Vec<u8>,
    ending: Ending,
) -> Result<Data, Errno> {
    let mut changed = *request;
    if ending == Ending::Garbage {
        changed.cookie ^= COOKIE_GARBAGE;
    }
    let action = decision.and_then(|decision| decision.action);
    let damage = decision.and_then(|decision| Some((decision.damage()?, decision.seed)));
    match action {
        Some(Action::Error {
            errno,
            applied: false,
        }) => return Err(errno),
        Some(Action::Lose) => return Ok(Data::default()),
        Some(Action::Tear(most)) => {
            changed.length =
                u32::try_from(most).map_or(changed.length, |most| most.min(changed.length));
        }
        Some(Action::Misdirect(offset)) => {
            // Data beyond the end is lost.
            let room = work.cache.size().saturating_sub(offset);
            changed.offset = offset;
            changed.length =
                u32::try_from(room).map_or(changed.length, |room| room.min(changed.length));
        }
        _ => {}
    }
    if request.command == Command::WRITE {
        data.truncate(changed.length as usize);
        if let Some((damage, seed)) = damage {
            data = damaged(damage, seed, data).await;
        }
    }
    let mut outcome = apply(work, &changed, &data).await?;
    if let Some(Action::Error {
        errno,
        applied: true,
    }) = action
    {
        return Err(errno);
    }
    if request.command == Command::READ
        && let Some((damage, seed)) = damage
    {
        outcome.bytes = damaged(damage, seed, outcome.bytes).await;
    }
    Ok(outcome)
}

/// Damages `data`. Long data is damaged beside the threads that serve clients.
async fn damaged(damage: Damage, seed: u64, mut data: Vec<u8>) -> Vec<u8> {
    let is_short = data.len() <= SLICE_BYTES;
    let apply = move || {
        damage.apply(seed, &mut data);
        data
    };
    if is_short {
        return apply();
    }
    let work = tokio::task::spawn_blocking(apply);
    work.await.expect("a panic aborts the process")
}

/// Carries a request out; returns what goes into its reply.
async fn apply(work: &Work, request: &Request, data: &[u8]) -> Result<Data, Errno> {
    let (cache, faults) = (&work.cache, &work.faults);
    match request.command {
        Command::WRITE => write(work, request, data).await?,
        Command::READ | Command::BLOCK_STATUS => {
            let held = Some(work.held.replies().take(weight(request)).await);
            let bytes = if request.command == Command::READ {
                read(work, request).await?
            } else {
                status::chunks(cache, faults, work.contexts, request).await?
            };
            return Ok(Data { bytes, held });
        }
        _ => slow::apply(cache, faults, request).await?,
    }
    Ok(Data::default())
}

async fn read(work: &Work, request: &Request) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::with_capacity(request.length as usize);
    let range = slow::range(request);
    let mut at = range.start;
    while at < range.end {
        let slice = work.cache.slice_at(at, range.end - at);
        let pages = work
            .cache
            .read_in(Some(&work.line), &work.faults, at, slice)
            .await?;
        let start = data.len();
        data.resize(start + slice, 0);
        pages.copy_to(&mut data[start..]);
        at += slice as u64;
        // Data in the cache is read without waiting, so others get their turn after each slice.
        tokio::task::yield_now().await;
    }
    Ok(data)
}

async fn write(work: &Work, request: &Request, data: &[u8]) -> Result<(), Errno> {
    let (mut at, mut left) = (request.offset, data);
    while !left.is_empty() {
        let slice = work.cache.slice_at(at, left.len() as u64);
        let mut payload = work.cache.payload(at, slice).await;
        payload.copy_from(&left[..slice]);
        work.cache.write(&work.faults, payload).await?;
        at += slice as u64;
        left = &left[slice..];
        // As for reads.
        tokio::task::yield_now().await;
    }
    slow::persist_if_asked(&work.cache, &work.faults, request).await
}

#[cfg(test)]
mod tests;
