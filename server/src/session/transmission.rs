//! The transmission phase: the main loop of a session.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use weir_cache::error_seq::ErrorCursor;
use weir_cache::{MemoryLine, PageCache};
use weir_faults::{Device, Screen, fault_point};
use weir_protocol::ExportLimits;
use weir_protocol::constants::MAX_PAYLOAD;
use weir_protocol::handshake::server::Negotiated;

use super::end::End;
use super::hangup::{Hangup, goodbye_ahead};
use super::input::{INPUT_BYTES, INPUT_BYTES_BETWEEN_PAYLOADS, Input};
use super::linger::linger;
use super::meter::Meter;
use super::output::Output;
use super::pending::Pending;
use super::read::SlicedRead;
use super::receive::Receive;
use super::slow::{FaultContexts, Finished};
use super::socket::Socket;
use super::watch::Watch;
use super::{SHUTDOWN_GRACE, SessionContext};
use crate::connection::Connection;
use crate::export::Export;
use crate::held::HeldMemory;
use crate::limits::{BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX};

/// Finished requests that are answered per wake-up before the replies are sent.
const FINISHED_PER_TURN: usize = 64;

/// How many of those may be READs that had to wait for the store. Some disks serve a whole queue before they report
/// anything. They give all answers at once, and stand still until new requests come. So the client gets the first
/// answers while the next ones are prepared.
const READS_PER_REPLY: usize = 8;

/// Bytes that come and go before other connections have their turn: about a millisecond of the kernel's copying.
const MOVED_PER_TURN: u64 = 4 << 20;

/// Why the session stopped taking input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Everything complete is taken: more input is needed, or memory for a payload.
    All,
    /// The turn's budget is used up.
    Budget,
    /// A limit is reached: replies have to be sent or requests to finish first.
    Limit,
}

/// How far the connection is on its way to its end.
#[derive(Debug)]
pub(super) enum Phase {
    /// Requests are served.
    Open,
    /// The server stops: requests that had begun to arrive are served, later ones are not taken.
    ShuttingDown {
        /// How far the input had been received.
        received: u64,
        /// The time that the client has to complete what it had begun to send.
        grace: Pin<Box<Sleep>>,
    },
    /// No more requests: the client said NBD_CMD_DISC.
    Disconnecting,
    /// Nothing more is answered: a fault rule drops the connection once the queued replies are sent.
    Dropping,
}

/// A connection in the transmission phase.
pub(super) struct Transmission<'a> {
    pub(super) stream: &'a Socket,
    pub(super) connection: &'a Connection,
    /// The export as a device that faults can be injected into, if the server made it one.
    pub(super) device: Option<Device>,
    /// Asks the fault rules.
    pub(super) screen: Screen,
    pub(super) cache: Arc<PageCache>,
    /// What fault rules keep for the export's clients.
    pub(super) held: Arc<HeldMemory>,
    pub(super) limits: ExportLimits,
    pub(super) contexts: FaultContexts,
    pub(super) input: Input,
    pub(super) output: Output,
    /// The WRITE whose payload is being received (or drained).
    pub(super) receiving: Option<Receive>,
    /// The last payload was a large one: only little is read ahead, so that the next payload goes straight into pages.
    pub(super) large_payloads: bool,
    /// Requests under way, apart from `receiving` and `sliced_reads`.
    pub(super) slow: Pending,
    /// Bytes that these will return, and payloads that wait for a fault rule.
    pub(super) slow_bytes: usize,
    /// Where its READs wait for memory, one behind the other.
    pub(super) memory_line: MemoryLine,
    /// READs larger than a slice; the first one is under way.
    pub(super) sliced_reads: VecDeque<SlicedRead>,
    pub(super) phase: Phase,
    hangup: Hangup<'a>,
    /// The client sends no more and has said NBD_CMD_DISC, which may be unread: everything that it asked for is carried
    /// out.
    goodbye_seen: bool,
    pub(super) meter: Meter,
    /// Which losses of acknowledged data the client has been told about.
    pub(super) losses: ErrorCursor,
    taken: Taken,
    /// More READs may have finished than were answered in this turn.
    more_reads: bool,
    /// Bytes that had come and gone when others last had their turn.
    rested_at: u64,
    pub(super) watch: Watch,
    /// The shutdown, and after it the kill.
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<'a> Transmission<'a> {
    /// A connection after its handshake, which had received `rest` in advance.
    pub(super) fn new(
        stream: &'a Socket,
        connection: &'a Connection,
        context: &SessionContext,
        export: &Export,
        negotiated: &Negotiated,
        rest: &[u8],
    ) -> Self {
        let cache = Arc::clone(&export.cache);
        let device = context.faults.device(&export.name);
        let mut input = Input::default();
        input.preload(rest);
        Self {
            stream,
            connection,
            held: Arc::clone(&export.held),
            limits: negotiated.limits(MAX_PAYLOAD),
            contexts: FaultContexts::new(&context.faults, device.as_ref()),
            screen: context.faults.screen(&export.name, connection.id()),
            device,
            input,
            output: Output::new(cache.pool()),
            receiving: None,
            large_payloads: false,
            slow: Pending::default(),
            slow_bytes: 0,
            memory_line: MemoryLine::default(),
            sliced_reads: VecDeque::new(),
            phase: Phase::Open,
            hangup: Hangup::new(stream),
            goodbye_seen: false,
            meter: Meter::new(Instant::now()),
            losses: cache.lost_data().sample(),
            taken: Taken::All,
            more_reads: false,
            rested_at: 0,
            watch: Watch::new(&context.timeouts),
            stopping: Box::pin(connection.stop().clone().cancelled_owned()),
            cache,
        }
    }

    /// Serves the client until the connection ends.
    pub(super) async fn run(mut self) -> End {
        let end = self.serve().await;
        // A client that is still there should get what is answered already.
        if !matches!(end, End::Killed | End::Injected) {
            let _ = self.output.flush(self.stream);
        }
        self.publish();
        if matches!(end, End::Shutdown) {
            linger(self.stream, self.connection, SHUTDOWN_GRACE).await;
        }
        end
    }

    async fn serve(&mut self) -> End {
        loop {
            if let Err(end) = self.turn() {
                return end;
            }
            let can_go_on =
                self.taken == Taken::Budget || (self.taken == Taken::Limit && self.may_take());
            if can_go_on || self.can_pump() || self.has_moved_much() {
                // Other connections have their turn first. No event would announce the work that is left: it became
                // possible when the replies were sent.
                tokio::task::yield_now().await;
                self.rested_at = self.moved();
                // Other requests may wait for what is carried here, so it is polled however much there is to send.
                if let Err(end) = poll_fn(|task| Poll::Ready(self.poll_carried(task))).await {
                    return end;
                }
                if self.connection.is_killed() {
                    return End::Killed;
                }
            } else if let Err(end) = poll_fn(|task| self.poll_wait(task)).await {
                return end;
            }
            self.meter.begin(Instant::now());
        }
    }

    /// One round of work without waiting.
    fn turn(&mut self) -> Result<(), End> {
        self.look_for_hangup()?;
        self.limits.size = self.cache.size();
        self.taken = self.take_requests()?;
        self.pump_sliced_reads()?;
        self.flush()?;
        self.publish();
        match self.phase {
            Phase::Disconnecting if self.is_settled() => Err(End::Disconnected),
            Phase::Dropping if !self.output.can_send() => Err(End::Injected),
            _ => Ok(()),
        }
    }

    /// Sends what is pending, as far as the socket takes it.
    fn flush(&mut self) -> Result<(), End> {
        if self.output.can_send() {
            fault_point!(self.contexts.connect, "session:reply").map_err(|_| End::Injected)?;
            if let Err(error) = self.output.flush(self.stream) {
                self.end_unless_owed(error.into())?;
            }
        }
        Ok(())
    }

    /// Checks that nothing begins for a client that is gone: see [`hangup`](super::hangup).
    #[inline]
    fn look_for_hangup(&mut self) -> Result<(), End> {
        if self.hangup.has_news() && !self.goodbye_seen && self.hangup.look() {
            return self.keep_if_owed(End::ClientGone);
        }
        Ok(())
    }

    /// The client sends no more. That is the end, unless it has said goodbye and is owed what it asked for.
    #[cold]
    fn keep_if_owed(&mut self, end: End) -> Result<(), End> {
        let payload = self.receiving.as_ref().map_or(0, Receive::remaining);
        let is_owed = match self.phase {
            Phase::Disconnecting => true,
            Phase::Dropping => false,
            _ => self.goodbye_seen || goodbye_ahead(self.stream, self.input.unread(), payload),
        };
        self.goodbye_seen |= is_owed;
        if is_owed { Ok(()) } else { Err(end) }
    }

    /// The client takes no more. If it is owed what it asked for, that is carried out and the replies are thrown away.
    #[cold]
    pub(super) fn end_unless_owed(&mut self, end: End) -> Result<(), End> {
        self.keep_if_owed(end)?;
        self.sliced_reads.clear();
        self.output.mute();
        Ok(())
    }

    fn publish(&mut self) {
        let counters = self.connection.counters();
        counters.set_bytes(self.input.received(), self.output.sent());
        counters.set_under_way(self.slow.len() + self.sliced_reads.len());
        self.meter.publish(counters);
    }

    /// Whether another request may be taken.
    #[inline]
    pub(super) fn may_take(&self) -> bool {
        !self.output.is_full()
            && self.slow.len() + self.sliced_reads.len() < REQUESTS_IN_FLIGHT_MAX
            && self.slow_bytes < BYTES_IN_FLIGHT_MAX
    }

    /// Whether the client may go on.
    pub(super) fn takes_requests(&self) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::ShuttingDown { received, .. } => self.input.consumed() < received,
            Phase::Disconnecting | Phase::Dropping => false,
        }
    }

    /// Whether nothing is left to be done for the client.
    fn is_settled(&self) -> bool {
        self.slow.is_empty()
            && self.sliced_reads.is_empty()
            && self.receiving.is_none()
            && self.output.pending() == 0
    }

    /// Waits for anything that makes another turn worthwhile.
    fn poll_wait(&mut self, task: &mut Context<'_>) -> Poll<Result<(), End>> {
        let mut progress = self.poll_stop(task)?;
        progress |= self.poll_carried(task)?;
        if self.output.can_send() && self.stream.poll_write_ready(task)?.is_ready() {
            progress = true;
        }
        progress |= self.poll_input(task)?;
        progress |= self.poll_watch(task)?;
        if progress {
            Poll::Ready(Ok(()))
        } else {
            self.rested_at = self.moved();
            Poll::Pending
        }
    }

    /// Bytes that came and went so far.
    fn moved(&self) -> u64 {
        self.input.received() + self.output.sent()
    }

    /// Whether other connections should have their turn, though there is more to do and no limit is reached. Otherwise
    /// a client on another processor that keeps the socket full, or empty, would keep this processor for itself.
    fn has_moved_much(&self) -> bool {
        self.moved() - self.rested_at >= MOVED_PER_TURN
    }

    /// Polls everything that may be carrying what others wait for.
    fn poll_carried(&mut self, task: &mut Context<'_>) -> Result<bool, End> {
        self.look_for_hangup()?;
        let mut progress = self.poll_slow(task);
        progress |= self.poll_sliced_reads(task)?;
        progress |= self.poll_receiving(task);
        Ok(progress)
    }

    /// Polls the shutdown, its grace, and the kill.
    fn poll_stop(&mut self, task: &mut Context<'_>) -> Result<bool, End> {
        let mut progress = false;
        while self.stopping.as_mut().poll(task).is_ready() {
            if self.connection.is_killed() {
                return Err(End::Killed);
            }
            progress = true;
            self.stopping = Box::pin(self.connection.kill_token().clone().cancelled_owned());
            if matches!(self.phase, Phase::Open) {
                self.phase = Phase::ShuttingDown {
                    received: self.input.received(),
                    grace: Box::pin(tokio::time::sleep(SHUTDOWN_GRACE)),
                };
            }
        }
        if self.is_shut_down(task) {
            return Err(End::Shutdown);
        }
        Ok(progress)
    }

    /// Whether the server stops and every request that the client had sent is answered, or can't be because the client
    /// doesn't send the rest.
    fn is_shut_down(&mut self, task: &mut Context<'_>) -> bool {
        let clients_turn = match &self.receiving {
            Some(receive) => receive.wants_input(),
            None => self.takes_requests(),
        };
        let Phase::ShuttingDown { grace, .. } = &mut self.phase else {
            return false;
        };
        let patient = !grace.is_elapsed() && grace.as_mut().poll(task).is_pending();
        let waits = if clients_turn {
            patient
        } else {
            self.receiving.is_some()
        };
        !waits
            && self.taken == Taken::All
            && self.slow.is_empty()
            && self.sliced_reads.is_empty()
            && self.output.pending() == 0
    }

    /// Begins requests that are new, and answers those that have finished.
    fn poll_slow(&mut self, task: &mut Context<'_>) -> bool {
        let begun = self.begin_new(task);
        let (mut finished, mut reads) = (0, 0);
        while !matches!(self.phase, Phase::Dropping)
            && finished < FINISHED_PER_TURN
            && reads < READS_PER_REPLY
            && let Poll::Ready(done) = self.slow.poll_finished(task)
        {
            reads += usize::from(matches!(done, Finished::Read(..)));
            self.finish(done);
            finished += 1;
        }
        self.more_reads = reads == READS_PER_REPLY;
        begun + finished > 0
    }

    /// Begins requests that are new; says how many of them finished at once.
    fn begin_new(&mut self, task: &mut Context<'_>) -> usize {
        if !self.slow.has_new() {
            return 0;
        }
        let mut finished = 0;
        while let Some(done) = self.slow.begin(task) {
            self.finish(done);
            finished += 1;
        }
        self.cache.submit_gathered();
        finished
    }

    /// Polls for input, if it is wanted.
    fn poll_input(&mut self, task: &mut Context<'_>) -> Result<bool, End> {
        if !self.wants_input() {
            return Ok(!self.goodbye_seen && self.hangup.poll_news(task));
        }
        loop {
            let announced = self.stream.poll_read_ready(task)?.is_ready();
            // The reactor has no turn while there is more to answer. The client has some answers already, and may send
            // again.
            let expected = std::mem::take(&mut self.more_reads)
                && self.receiving.is_none()
                && tokio::task::coop::has_budget_remaining();
            let received = match (announced, expected) {
                (true, _) => self.fill(),
                (false, true) => self.input.fill_unannounced(self.stream, self.most_input()),
                (false, false) => return Ok(false),
            };
            self.watch.wake();
            match received {
                Ok(0) => return Err(End::ClientGone),
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wants_input(&self) -> bool {
        match &self.receiving {
            // Memory may just have come for a payload that begins in the buffer; that part is taken first.
            Some(receive) => {
                receive.wants_input() && (self.input.unread().is_empty() || receive.is_gathering())
            }
            None => self.taken == Taken::All && self.takes_requests() && self.may_take(),
        }
    }

    /// How much is read at once while no payload is being received.
    fn most_input(&self) -> usize {
        if self.large_payloads {
            INPUT_BYTES_BETWEEN_PAYLOADS
        } else {
            INPUT_BYTES
        }
    }

    /// Reads into the payload that is being received, or else into the buffer.
    fn fill(&mut self) -> io::Result<usize> {
        let Some(receive) = &mut self.receiving else {
            return self.input.fill(self.stream, self.most_input());
        };
        match receive.filling() {
            Some(payload) => super::receive::fill(payload, &mut self.input, self.stream),
            None => {
                let most = if receive.is_gathering() {
                    receive.most_gathered(self.input.unread().len())
                } else {
                    INPUT_BYTES
                };
                self.input.fill(self.stream, most)
            }
        }
    }
}
