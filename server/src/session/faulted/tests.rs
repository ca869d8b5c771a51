use std::pin::pin;
use std::task::{Context, Poll, Waker};

use weir_cache::CacheOptions;
use weir_faults::{Faults, RequestKinds};

use super::*;
use crate::backend::MemoryBackend;

const LENGTH: u32 = 8 << 20;

/// How often `work` lets others have their turn.
fn turns<T>(work: impl Future<Output = T>) -> (usize, T) {
    let mut work = pin!(work);
    let mut task = Context::from_waker(Waker::noop());
    let mut turns = 0;
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut task) {
            return (turns, done);
        }
        turns += 1;
    }
}

/// All of it is in the cache, and nothing has to be waited for.
#[tokio::test]
async fn others_have_their_turn_after_each_slice() {
    let faults = Faults::new();
    let options = CacheOptions {
        cache_bytes: 64 << 20,
        ..CacheOptions::default()
    };
    let backend = Arc::new(MemoryBackend::new(LENGTH.into()));
    let cache = PageCache::open(backend, &options, &faults).expect("a cache over memory");
    let work = Work {
        cache,
        faults: faults.context(RequestKinds::READ),
        device: None,
        contexts: MetaContextSet::default(),
        held: Arc::default(),
        line: MemoryLine::default(),
    };
    let request = Request {
        flags: CommandFlags::EMPTY,
        command: Command::WRITE,
        cookie: 1,
        offset: 0,
        length: LENGTH,
    };
    let data = vec![7; LENGTH as usize];
    let slices = data.len() / SLICE_BYTES;
    let (written, outcome) = turns(write(&work, &request, &data));
    assert_eq!(outcome, Ok(()));
    assert!(written >= slices, "{written} turns of {slices}");
    let (read, outcome) = turns(read(&work, &request));
    assert!(outcome == Ok(data));
    assert!(read >= slices, "{read} turns of {slices}");
}

#[tokio::test]
async fn damage_is_the_same_whatever_thread_does_it() {
    for length in [100, SLICE_BYTES + 1] {
        let data: Vec<u8> = (0..=250).cycle().take(length).collect();
        for damage in [Damage::Bits(9), Damage::Zero, Damage::Random] {
            let mut expected = data.clone();
            damage.apply(5, &mut expected);
            assert!(damaged(damage, 5, data.clone()).await == expected);
        }
    }
}
