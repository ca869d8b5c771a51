use std::sync::Barrier;
use std::sync::mpsc;

use super::*;

#[test]
fn jobs_run_beside_each_other_up_to_the_limit() {
    let threads = IoThreads::start(3).expect("a thread");
    let meeting = Arc::new(Barrier::new(3));
    let jobs: Vec<_> = (0..3)
        .map(|number| {
            let meeting = Arc::clone(&meeting);
            threads.run(move || {
                // Returns only when three jobs run at the same time.
                meeting.wait();
                number
            })
        })
        .collect();
    let results: Vec<_> = jobs
        .into_iter()
        .map(|job| job.blocking_recv().expect("finished"))
        .collect();
    assert_eq!(results, [0, 1, 2]);
    assert_eq!(threads.shared.lock().threads, 3);
}

#[test]
fn the_limit_holds_and_order_is_kept() {
    let threads = IoThreads::start(1).expect("a thread");
    let (send, receive) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    drop(threads.run(move || wait.recv()));
    let jobs: Vec<_> = (0..20)
        .map(|number| {
            let send = send.clone();
            threads.run(move || send.send(number).expect("the test waits"))
        })
        .collect();
    assert_eq!(threads.shared.lock().threads, 1);
    go.send(()).expect("the first job waits");
    for job in jobs {
        job.blocking_recv().expect("finished");
    }
    assert_eq!(
        receive.try_iter().collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
}

#[test]
fn idle_threads_are_used_before_new_ones_start() {
    let threads = IoThreads::start(8).expect("a thread");
    for _ in 0..50 {
        threads.run(|| ()).blocking_recv().expect("finished");
        // The thread answers before it is idle again, and only then may the next submission count on it.
        while threads.shared.lock().idle == 0 {
            thread::yield_now();
        }
    }
    assert_eq!(threads.shared.lock().threads, 1);
}

#[test]
fn what_was_submitted_is_finished_after_close_and_then_the_threads_end() {
    let threads = IoThreads::start(1).expect("a thread");
    let (go, wait) = mpsc::channel::<()>();
    drop(threads.run(move || wait.recv()));
    let last = threads.run(|| 7);
    let shared = Arc::downgrade(&threads.shared);
    threads.close();
    drop(threads);
    go.send(()).expect("the first job waits");
    assert_eq!(last.blocking_recv(), Ok(7));
    while shared.strong_count() > 0 {
        thread::yield_now();
    }
}
