//! Futures dropped at every await: row 15.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::add_lock::AddLock;
use crate::testing::Behaviour;

/// No request of these tests waits more often.
const POLLS_MAX: usize = 200;

type Request = Pin<Box<dyn Future<Output = ()>>>;

/// What a request finds when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// Nothing in its way.
    Alone,
    /// Blockers and adders queue for its pages.
    Contended,
    /// Others fill its pages.
    Filling,
    /// No frame is free.
    Short,
}

const SCENES: [Scene; 4] = [Scene::Alone, Scene::Contended, Scene::Filling, Scene::Short];

/// Runs `request` to its end once, and drops it after each of its polls in turn.
async fn drop_at_every_await(name: &str, make: impl Fn(&Race) -> Request) {
    for scene in SCENES {
        let mut polls = 0;
        loop {
            assert!(polls < POLLS_MAX, "{name} never ends ({scene:?})");
            if drop_after(polls, scene, &make).await {
                break;
            }
            polls += 1;
        }
        assert!(polls > 0, "{name} never waited ({scene:?})");
    }
}

/// Drops the request after that many polls; says whether it had ended.
async fn drop_after(polls: usize, scene: Scene, make: &impl Fn(&Race) -> Request) -> bool {
    let race = Race::new(512, 7);
    race.backend.behave(Behaviour {
        delay_max: Some(Duration::from_millis(4)),
        ..Behaviour::default()
    });
    for point in race.faults.points("class cache kind fault").unwrap() {
        // Every point that can wait is an await.
        let line = format!("file {} line {} delay 1ms", point.file, point.line);
        _ = race.faults.set_points(&line);
    }
    // Dirty, unsynced and clean pages where the requests go.
    done(race.write(50, &[1; 3 * PAGE_SIZE])).await;
    let others = set(&race, scene).await;
    let mut request = make(&race);
    let mut context = Context::from_waker(Waker::noop());
    let mut ended = false;
    for _ in 0..polls {
        if request.as_mut().poll(&mut context) == Poll::Ready(()) {
            ended = true;
            break;
        }
        idle().await;
    }
    drop(request);
    for other in others {
        other.await.expect("the others go on");
    }
    race.faults.reset_points();
    race.backend.behave(Behaviour::default());
    race.check_quiescent().await;
    // Whatever became of the request, each page has one of the contents that it may have.
    for byte in done(race.read(0..8 * PAGE)).await {
        assert!([0, 1, 2, 7].contains(&byte), "{byte} after {polls} polls");
    }
    assert_eq!(race.bytes(8..10).await, [7, 7]);
    ended
}

/// Sets the scene. Returns what is to end once the request is gone.
async fn set(race: &Race, scene: Scene) -> Vec<JoinHandle<()>> {
    let later = Duration::from_millis(20);
    match scene {
        Scene::Alone => Vec::new(),
        Scene::Contended => {
            let lock = Arc::clone(&race.cache.add_lock);
            let hold = lock.block(0..PAGE).await;
            let queue = |block: bool, lock: Arc<AddLock>| {
                tokio::spawn(async move {
                    if block {
                        drop(lock.block(0..PAGE).await);
                    } else {
                        drop(lock.add(0..PAGE).await);
                    }
                })
            };
            let mut others = vec![tokio::spawn(async move {
                tokio::time::sleep(later).await;
                drop(hold);
            })];
            for block in [false, true, false] {
                others.push(queue(block, Arc::clone(&lock)));
            }
            others
        }
        Scene::Filling => {
            race.evict_all();
            let reader = race.read(0..8 * PAGE);
            idle().await;
            vec![tokio::spawn(async move { drop(outcome(reader).await) })]
        }
        Scene::Short => {
            let free = usize::try_from(race.cache.stats().free_frames).unwrap();
            let hoard = race.cache.reserve(free).await;
            vec![tokio::spawn(async move {
                tokio::time::sleep(later).await;
                drop(hoard);
            })]
        }
    }
}

/// A request of the cache as a future that owns what it needs.
macro_rules! request {
    ($race:expr, $kind:ident, |$cache:ident, $context:ident| $body:expr) => {{
        let ($cache, $context) = (Arc::clone(&$race.cache), $race.context(RequestKinds::$kind));
        Box::pin(async move {
            _ = $body;
        })
    }};
}

#[tokio::test(start_paused = true)]
async fn race_15_a_read_is_dropped() {
    drop_at_every_await("read", |race| {
        request!(race, READ, |cache, context| read(
            &cache,
            &context,
            10..8 * PAGE
        )
        .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_direct_read_is_dropped() {
    drop_at_every_await("direct read", |race| {
        request!(race, READ, |cache, context| cache
            .read_direct(&context, 10, 5 * PAGE_SIZE)
            .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_write_is_dropped() {
    drop_at_every_await("write", |race| {
        request!(race, WRITE, |cache, context| write(
            &cache,
            &context,
            3 * PAGE + 100,
            &[2; 3 * PAGE_SIZE]
        )
        .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_direct_write_is_dropped() {
    drop_at_every_await("direct write", |race| {
        request!(race, WRITE, |cache, context| {
            let mut payload = cache.payload(PAGE + 100, 3 * PAGE_SIZE).await;
            payload.copy_from(&[2; 3 * PAGE_SIZE]);
            cache.write_direct(&context, payload).await
        })
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_zero_is_dropped() {
    drop_at_every_await("zero", |race| {
        request!(race, ZERO, |cache, context| cache
            .zero(&context, 100..4 * PAGE + 100, ZeroMode::MayPunch, false)
            .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_trim_is_dropped() {
    drop_at_every_await("trim", |race| {
        request!(race, TRIM, |cache, context| cache
            .trim(&context, 0..4 * PAGE)
            .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_trim_of_the_whole_device_is_dropped() {
    drop_at_every_await("whole block", |race| {
        request!(race, TRIM, |cache, _context| drop(
            cache.add_lock.block_whole(0..1 << 60).await
        ))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_flush_is_dropped() {
    drop_at_every_await("flush", |race| {
        request!(race, FLUSH, |cache, context| cache.flush(&context).await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_prefetch_is_dropped() {
    drop_at_every_await("prefetch", |race| {
        request!(race, CACHE, |cache, context| cache
            .prefetch(&context, 0..8 * PAGE)
            .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_status_is_dropped() {
    drop_at_every_await("status", |race| {
        request!(race, STATUS, |cache, context| cache
            .allocation(&context, 0..8 * PAGE, 8)
            .await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn race_15_a_resize_is_dropped() {
    drop_at_every_await("resize", |race| {
        request!(race, RESIZE, |cache, _context| cache
            .resize(600 * PAGE)
            .await)
    })
    .await;
}
