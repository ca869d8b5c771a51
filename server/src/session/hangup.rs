//! Noticing that the client is gone, even while none of its input is wanted.
//!
//! A request of a client that is gone was never acknowledged and never will be. Another client may since have written
//! the same place and been told so. So a request of such a client must not begin if it hasn't begun yet.
//!
//! # The rule
//! The end of a connection is *known* when the kernel announces that the client sends no more (it closed, shut its half
//! down, or was reset), when a transfer fails, or when the session itself ends it (killed, stalled, an error, a fault
//! rule). The session checks for it before each turn and each time before it polls what is under way. From then on
//! nothing of the connection begins: no request that lies in the input buffer or in the socket; none that was taken and
//! not polled; none that waits for memory, for the session's limits, for the throttle, a guard, a fault rule or a
//! frozen device; and no further slice or region of a request that is under way. All of these are futures of the
//! session, which are dropped with it. Work that holds a guard or was handed to the store is completed by tasks of the
//! cache. A request that began before the end was known was allowed to begin.
//!
//! A client that said NBD_CMD_DISC is owed everything that it asked for before. A goodbye may still be unread when the
//! end is announced, behind requests that wait for limits. So the session [looks ahead](goodbye_ahead) for it before it
//! gives a client up.
//!
//! # How
//! An end of file can only be read behind everything else, and a session that wants no input doesn't read. But the
//! kernel also announces it, however much is unread. One future per connection waits for that announcement from the
//! start. It is polled with a waker that raises a flag, so a look costs one load, and a lock only when there is news.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;
use weir_protocol::{Command, Request};

use super::socket::Socket;
use crate::limits::LOOK_AHEAD_BYTES_MAX;

/// Waits for the client to send no more.
pub(super) struct Hangup<'a> {
    news: Arc<News>,
    ended: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

#[derive(Debug)]
struct News {
    /// `ended` needs to be polled.
    there: AtomicBool,
    session: AtomicWaker,
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.there.store(true, Ordering::Release);
        self.session.wake();
    }
}

impl<'a> Hangup<'a> {
    pub(super) fn new(stream: &'a Socket) -> Self {
        Self {
            news: Arc::new(News {
                // The first look begins to wait.
                there: AtomicBool::new(true),
                session: AtomicWaker::new(),
            }),
            ended: Box::pin(stream.ended()),
        }
    }

    /// Whether [`Self::look`] may have something to say: a load.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news.there.load(Ordering::Acquire)
    }

    /// Whether the client has sent its last byte. Must not be called again after it has said so.
    pub(super) fn look(&mut self) -> bool {
        self.news.there.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self.news));
        self.ended
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    }

    /// Wakes `task` at news; says whether there is some.
    pub(super) fn poll_news(&self, task: &Context<'_>) -> bool {
        self.news.session.register(task.waker());
        self.has_news()
    }
}

/// Whether the client says NBD_CMD_DISC in what was received (`unread`) and what still lies in the socket, of which the
/// first `payload` bytes belong to a request that is being received.
pub(super) fn goodbye_ahead(stream: &Socket, unread: &[u8], payload: u64) -> bool {
    let mut room = 64 << 10;
    loop {
        let mut bytes = unread.to_vec();
        bytes.resize(unread.len() + room, 0);
        // A broken connection has nothing more to say.
        let Ok(peeked) = stream.peek(&mut bytes[unread.len()..]) else {
            return says_goodbye(unread, payload);
        };
        bytes.truncate(unread.len() + peeked);
        if peeked < room || room >= LOOK_AHEAD_BYTES_MAX {
            return says_goodbye(&bytes, payload);
        }
        room *= 4;
    }
}

/// Whether there is an NBD_CMD_DISC among the requests that follow the first `payload` of `bytes`.
fn says_goodbye(mut bytes: &[u8], payload: u64) -> bool {
    let mut skipped = payload;
    loop {
        let Some(rest) = usize::try_from(skipped)
            .ok()
            .and_then(|skipped| bytes.get(skipped..))
        else {
            return false;
        };
        let Some((header, behind)) = rest.split_first_chunk::<{ Request::SIZE }>() else {
            return false;
        };
        match Request::decode(header) {
            Ok(request) if request.command == Command::DISC => return true,
            Ok(request) => skipped = request.payload_length().into(),
            Err(_) => return false,
        }
        bytes = behind;
    }
}

#[cfg(test)]
mod tests;
