use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

fn is_pending(future: &mut Pin<Box<impl Future>>) -> bool {
    let mut task = Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut task).is_pending()
}

/// Works that wait for a permit each and count themselves when they are done.
fn works(tasks: &TaskTracker, gate: &Arc<Semaphore>, done: &Arc<AtomicUsize>, n: usize) -> Works {
    let one = |_| {
        let (gate, done) = (Arc::clone(gate), Arc::clone(done));
        Transfer::new(tasks, async move {
            gate.acquire().await.expect("never closed").forget();
            done.fetch_add(1, Ordering::SeqCst);
        })
    };
    (0..n).map(one).collect()
}

#[tokio::test]
async fn all_are_begun_before_any_is_waited_for() {
    let (tasks, gate) = (TaskTracker::new(), Arc::new(Semaphore::new(0)));
    let done = Arc::new(AtomicUsize::new(0));
    let mut carrying = Box::pin(carry(works(&tasks, &gate, &done, 3)));
    assert!(is_pending(&mut carrying));
    // Only a work that waits in the semaphore's queue gets a permit: all three do.
    gate.add_permits(3);
    assert!(gate.try_acquire().is_err(), "handed to those who wait");
    carrying.await;
    assert_eq!(done.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_dropped_goes_on_and_is_waited_for() {
    let (tasks, gate) = (TaskTracker::new(), Arc::new(Semaphore::new(0)));
    let done = Arc::new(AtomicUsize::new(0));
    let mut carrying = Box::pin(carry(works(&tasks, &gate, &done, 2)));
    assert!(is_pending(&mut carrying));
    drop(carrying);
    // Never polled, and dropped all the same.
    drop(works(&tasks, &gate, &done, 1));
    tasks.close();
    let mut all = Box::pin(tasks.wait());
    assert!(is_pending(&mut all), "they are counted");
    gate.add_permits(3);
    all.await;
    assert_eq!(done.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_done_stays_done_when_the_rest_is_dropped() {
    let (tasks, gate) = (TaskTracker::new(), Arc::new(Semaphore::new(1)));
    let done = Arc::new(AtomicUsize::new(0));
    let mut carrying = Box::pin(carry(works(&tasks, &gate, &done, 2)));
    assert!(is_pending(&mut carrying));
    assert_eq!(done.load(Ordering::SeqCst), 1);
    drop(carrying);
    gate.add_permits(1);
    tasks.close();
    tasks.wait().await;
    assert_eq!(done.load(Ordering::SeqCst), 2);
}

#[test]
fn without_a_runtime_there_is_nothing_to_go_on_with() {
    let (tasks, gate) = (TaskTracker::new(), Arc::new(Semaphore::new(1)));
    let done = Arc::new(AtomicUsize::new(0));
    drop(works(&tasks, &gate, &done, 1));
    assert_eq!(done.load(Ordering::SeqCst), 0);
    assert_eq!(Arc::strong_count(&gate), 1, "it was dropped");
}
