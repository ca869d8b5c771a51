use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::oneshot;
use weir_protocol::{Command, CommandFlags, Request};

use super::*;
use crate::session::Ticket;

fn finished() -> Finished {
    let request = Request {
        flags: CommandFlags::EMPTY,
        command: Command::FLUSH,
        cookie: 0,
        offset: 0,
        length: 0,
    };
    let ticket = Ticket {
        request,
        arrived: Instant::now(),
    };
    Finished::Done(ticket, Ok(()))
}

/// A request that counts its first poll and finishes when told to.
fn request(begun: &Arc<AtomicUsize>) -> (oneshot::Sender<()>, SlowFuture) {
    let (tell, told) = oneshot::channel();
    let begun = Arc::clone(begun);
    let future = Box::pin(async move {
        begun.fetch_add(1, Ordering::Relaxed);
        told.await.expect("told");
        finished()
    });
    (tell, future)
}

#[test]
fn all_that_are_new_are_begun_and_each_is_finished_once() {
    let mut task = Context::from_waker(Waker::noop());
    let mut under_way = Pending::default();
    assert!(under_way.is_empty() && under_way.poll_finished(&mut task).is_pending());
    let begun = Arc::default();
    let tells: Vec<_> = (0..3)
        .map(|_| {
            let (tell, future) = request(&begun);
            under_way.push(future);
            tell
        })
        .collect();
    // Asking for what has finished begins nothing.
    assert!(under_way.has_new() && under_way.poll_finished(&mut task).is_pending());
    assert_eq!(begun.load(Ordering::Relaxed), 0);
    assert!(under_way.begin(&mut task).is_none());
    assert_eq!(begun.load(Ordering::Relaxed), 3);
    assert!(!under_way.has_new() && under_way.len() == 3);
    assert!(under_way.poll_finished(&mut task).is_pending());
    for tell in tells {
        tell.send(()).expect("waited for");
    }
    for left in (0..3).rev() {
        assert!(under_way.poll_finished(&mut task).is_ready());
        assert_eq!(under_way.len(), left);
    }
    assert!(under_way.poll_finished(&mut task).is_pending());
}

#[test]
fn what_finishes_at_once_is_returned_and_the_rest_is_still_begun() {
    let mut task = Context::from_waker(Waker::noop());
    let mut under_way = Pending::default();
    let begun = Arc::default();
    let (_tell, waits) = request(&begun);
    under_way.push(Box::pin(async { finished() }));
    under_way.push(waits);
    assert!(under_way.begin(&mut task).is_some());
    assert!(under_way.has_new() && under_way.len() == 1);
    assert!(under_way.begin(&mut task).is_none());
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    under_way.clear();
    assert!(under_way.is_empty());
}
