//! From bytes to requests to operations, and from outcomes to replies.

use weir_faults::fault_point;
use weir_protocol::{Command, CommandFlags, NbdError, Request};

use super::end::End;
use super::receive::BUFFERED_PAYLOAD_MAX;
use super::reply::{Head, push_failure};
use super::slow::{self, Finished, wire_error};
use super::transmission::{Phase, Taken, Transmission};
use super::{Ticket, status};
use crate::limits::STATUS_BYTES_MAX;

/// Requests taken per turn: a few hundred microseconds of work, after which other connections have their turn.
const REQUESTS_PER_TURN: usize = 256;

impl Transmission<'_> {
    /// Takes what the input buffer holds, within limits.
    pub(super) fn take_requests(&mut self) -> Result<Taken, End> {
        for _ in 0..REQUESTS_PER_TURN {
            if self.receiving.is_some() && !self.receive() {
                return Ok(Taken::All);
            }
            if !self.takes_requests() {
                return Ok(Taken::All);
            }
            if !self.may_take() {
                return Ok(Taken::Limit);
            }
            if !self.take_request()? {
                return Ok(Taken::All);
            }
        }
        Ok(Taken::Budget)
    }

    /// Takes the next request if it is complete; says whether it was.
    #[inline]
    fn take_request(&mut self) -> Result<bool, End> {
        let unread = self.input.unread();
        let Some((header, payload)) = unread.split_first_chunk::<{ Request::SIZE }>() else {
            return Ok(false);
        };
        let request = Request::decode(header)?;
        let payload_length = request.payload_length() as usize;
        let complete = payload_length <= payload.len();
        if !complete && payload_length <= BUFFERED_PAYLOAD_MAX {
            // The rest of it, and of those behind it, comes with the next read.
            self.large_payloads = false;
            return Ok(false);
        }
        self.input.consume(Request::SIZE);
        let ticket = Ticket {
            request,
            arrived: self.meter.batch(),
        };
        self.dispatch(ticket, complete);
        Ok(true)
    }

    /// Begins a request. A WRITE's payload is still in the input, all of it if `complete`.
    fn dispatch(&mut self, ticket: Ticket, complete: bool) {
        let command = ticket.request.command;
        if command == Command::DISC {
            self.phase = Phase::Disconnecting;
            return;
        }
        if let Err(error) = self.admit(&ticket) {
            return self.refuse(ticket, error);
        }
        if self.consult_rules(ticket) {
            return;
        }
        match command {
            Command::READ => {
                self.large_payloads = false;
                self.read(ticket);
            }
            Command::WRITE => self.write(ticket, complete),
            _ => self.operate(ticket),
        }
    }

    /// Whether the request may be carried out.
    #[inline]
    fn admit(&self, ticket: &Ticket) -> Result<(), NbdError> {
        ticket.request.check(&self.limits)?;
        let context = self.contexts.of(ticket.request.command);
        fault_point!(
            context,
            "session:request",
            [
                EIO, ENOMEM, EINVAL, ENOSPC, EPERM, ENOTSUP, EOVERFLOW, ESHUTDOWN
            ]
        )
        .map_err(wire_error)
    }

    /// Begins a request of a kind that never has an answer at hand.
    fn operate(&mut self, ticket: Ticket) {
        let cache = self.cache.clone();
        let context = self.contexts.of(ticket.request.command).clone();
        self.slow.push(match ticket.request.command {
            Command::BLOCK_STATUS => {
                self.slow_bytes += STATUS_BYTES_MAX;
                status::report(cache, context, self.limits.meta_contexts, ticket)
            }
            _ => slow::operate(cache, context, ticket),
        });
    }

    /// Answers a request with an error; a WRITE after its payload is drained.
    fn refuse(&mut self, ticket: Ticket, error: NbdError) {
        if ticket.request.payload_length() > 0 {
            self.drain(ticket, error);
        } else {
            self.answer(&ticket, Err(error));
        }
    }

    /// Answers a request whose reply has no data.
    #[inline]
    pub(super) fn answer(&mut self, ticket: &Ticket, outcome: Result<(), NbdError>) {
        let (style, request) = (self.limits.reply_style, &ticket.request);
        let queue = self.output.queue();
        match outcome {
            Ok(()) => Head::of_success(style, request).push_to(queue),
            Err(error) => push_failure(queue, style, request, error),
        }
        if outcome.is_ok() {
            self.rewritten(&ticket.request);
        }
        self.meter.answered(ticket, outcome.is_err());
    }

    /// The outcome of a request. For a FLUSH or FUA it includes what was lost behind this client's back since its last
    /// one.
    pub(super) fn with_losses(
        &mut self,
        request: &Request,
        outcome: Result<(), NbdError>,
    ) -> Result<(), NbdError> {
        if request.command != Command::FLUSH && !request.flags.contains(CommandFlags::FUA) {
            return outcome;
        }
        // An error other than EIO (no space, not supported) doesn't tell the client of a loss, so the loss is kept for
        // a later request.
        if outcome.is_err_and(|error| error != NbdError::IO) && request.command != Command::FLUSH {
            return outcome;
        }
        // Looked at even if the request itself has failed: that failure has then told the client.
        let lost = self.cache.lost_data().check_and_advance(&mut self.losses);
        outcome.and(lost.map_or(Ok(()), |errno| Err(wire_error(errno))))
    }

    /// A request has finished: answers it.
    pub(super) fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Done(ticket, outcome) => {
                let outcome = self.with_losses(&ticket.request, outcome);
                self.answer(&ticket, outcome);
            }
            Finished::Read(ticket, outcome) => self.finish_read(&ticket, outcome),
            Finished::Status(ticket, outcome) => {
                self.slow_bytes -= STATUS_BYTES_MAX;
                match outcome {
                    Ok(chunks) => {
                        self.output.queue().push_bytes(&chunks);
                        self.meter.answered(&ticket, false);
                    }
                    Err(error) => self.answer(&ticket, Err(error)),
                }
            }
            Finished::Faulted(faulted) => self.finish_faulted(*faulted),
        }
    }
}
