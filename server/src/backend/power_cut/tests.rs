use proptest::prelude::*;
use weir_cache::PAGE_SIZE;
use weir_cache::spy::assert_everything_arrives;

use super::super::MemoryBackend;
use super::super::testing::lasting::LastingStore;
use super::super::testing::{Bench, pattern, run_model, steps};
use super::*;

mod abandoned;

const PAGES: usize = 16;
const SIZE: u64 = (PAGES * PAGE_SIZE) as u64;

/// A backend with a volatile cache, and the store behind it.
struct Setup {
    power: Arc<PowerCutBackend>,
    bench: Bench,
    store: Bench,
}

fn setup(size: u64) -> Setup {
    over(Arc::new(MemoryBackend::new(size)))
}

fn over(store: Arc<dyn Backend>) -> Setup {
    let power =
        Arc::new(PowerCutBackend::new(Arc::clone(&store), FaultContext::disarmed()).unwrap());
    Setup {
        bench: Bench::over(Arc::clone(&power) as Arc<dyn Backend>),
        store: Bench::over(store),
        power,
    }
}

impl Setup {
    async fn cut(&self, options: &str) {
        assert!(self.power.switch_off());
        let options = PowerCutOptions::parse(options).unwrap();
        self.power.cut(options, Vec::new()).await;
        self.power.switch_on();
    }

    async fn page(&self, page: u64) -> Vec<u8> {
        self.bench.read(page * PAGE_BYTES, 1).await.unwrap()
    }
}

fn page_of(seed: u8) -> Vec<u8> {
    pattern(seed, PAGE_SIZE)
}

#[tokio::test]
async fn a_sync_is_what_brings_data_to_the_store() {
    let setup = setup(SIZE);
    setup.bench.write(0, &page_of(1)).await.unwrap();
    assert_eq!(setup.page(0).await, page_of(1));
    assert_eq!(setup.store.read(0, 1).await.unwrap(), vec![0; PAGE_SIZE]);
    setup.bench.sync().await.unwrap();
    assert_eq!(setup.store.read(0, 1).await.unwrap(), page_of(1));
    assert_eq!(setup.page(0).await, page_of(1));
}

/// This holds for trims and zeroes alike: a punch is a discard of the store.
#[tokio::test]
async fn a_sync_that_can_not_discard_says_so_and_the_next_does_it() {
    let store = Arc::new(LastingStore::new(SIZE));
    let setup = over(Arc::clone(&store) as _);
    for errno in [Errno::EIO, Errno::EROFS] {
        setup.bench.write(0, &page_of(1)).await.unwrap();
        setup.bench.sync().await.unwrap();
        setup.bench.discard(0..PAGE_BYTES).await.unwrap();
        store.fail_discards(Some(errno));
        assert_eq!(setup.bench.sync().await, Err(errno));
        assert_eq!(setup.page(0).await, vec![0; PAGE_SIZE], "it came back");
        store.fail_discards(None);
        setup.bench.sync().await.unwrap();
        assert_eq!(setup.store.read(0, 1).await.unwrap(), vec![0; PAGE_SIZE]);
    }
}

#[tokio::test]
async fn everything_arrives_when_it_is_covered() {
    let over =
        |below| PowerCutBackend::new(below, FaultContext::disarmed()).expect("address space");
    assert_everything_arrives(over).await;
}

#[tokio::test]
async fn what_a_cut_keeps() {
    for (options, expected) in [
        ("", page_of(1)),
        ("keep=none", page_of(1)),
        ("keep=all", page_of(2)),
    ] {
        let setup = setup(SIZE);
        setup.bench.write(0, &page_of(1)).await.unwrap();
        setup.bench.sync().await.unwrap();
        setup.bench.write(0, &page_of(2)).await.unwrap();
        setup.bench.write(PAGE_BYTES, &page_of(3)).await.unwrap();
        setup.cut(options).await;
        assert_eq!(setup.page(0).await, expected, "{options}");
        let other = if options == "keep=all" {
            page_of(3)
        } else {
            vec![0; PAGE_SIZE]
        };
        assert_eq!(setup.page(1).await, other, "{options}");
        assert_eq!(setup.store.read(0, 1).await.unwrap(), expected, "{options}");
    }
}

#[tokio::test]
async fn trims_and_zeroes_can_be_lost_too() {
    let setup = setup(SIZE);
    setup
        .bench
        .write(0, &pattern(1, 3 * PAGE_SIZE))
        .await
        .unwrap();
    setup.bench.sync().await.unwrap();
    setup.bench.discard(0..PAGE_BYTES).await.unwrap();
    setup
        .bench
        .zero(PAGE_BYTES..2 * PAGE_BYTES, ZeroMode::MayPunch)
        .await
        .unwrap();
    assert_eq!(setup.page(0).await, vec![0; PAGE_SIZE]);
    setup.cut("keep=none").await;
    assert_eq!(
        setup.bench.read(0, 3).await.unwrap(),
        pattern(1, 3 * PAGE_SIZE)
    );
}

#[tokio::test]
async fn survivors_at_random_are_sectors_of_some_version_and_repeat_with_the_seed() {
    let mut images = Vec::new();
    for _ in 0..2 {
        let setup = setup(SIZE);
        let whole = |seed| pattern(seed, PAGES * PAGE_SIZE);
        setup.bench.write(0, &whole(1)).await.unwrap();
        setup.bench.sync().await.unwrap();
        setup.bench.write(0, &whole(2)).await.unwrap();
        setup.bench.write(0, &whole(3)).await.unwrap();
        setup.cut("keep=random seed=7").await;
        let image = setup.bench.read(0, PAGES).await.unwrap();
        assert_eq!(setup.store.read(0, PAGES).await.unwrap(), image);
        let mut seen = [false; 3];
        for (sector, bytes) in image.chunks(512).enumerate() {
            let version = (1..=3).find(|seed| bytes == &whole(*seed)[sector * 512..][..512]);
            seen[usize::from(version.expect("a sector of no version")) - 1] = true;
        }
        assert_eq!(seen, [true; 3]);
        images.push(image);
    }
    assert_eq!(images[0], images[1]);
}

#[tokio::test]
async fn nothing_works_without_power_and_older_syncs_cover_nothing() {
    let setup = setup(SIZE);
    setup.bench.write(0, &page_of(1)).await.unwrap();
    let token = {
        let state = setup.power.lock();
        state.volatile.begin_sync(state.volatile.incarnation())
    };
    assert!(setup.power.switch_off());
    assert!(!setup.power.switch_off(), "it was off already");
    assert_eq!(setup.bench.write(0, &page_of(2)).await, Err(Errno::EIO));
    assert_eq!(setup.bench.read(0, 1).await, Err(Errno::EIO));
    assert_eq!(setup.bench.sync().await, Err(Errno::EIO));
    assert_eq!(setup.bench.discard(0..SIZE).await, Err(Errno::EIO));
    let options = PowerCutOptions::parse("").unwrap();
    setup.power.cut(options, Vec::new()).await;
    setup.power.switch_on();
    let late = setup
        .power
        .lock()
        .volatile
        .complete_sync(token.unwrap(), 0..u64::MAX);
    assert!(late.is_err());
    assert_eq!(setup.page(0).await, vec![0; PAGE_SIZE]);
}

#[tokio::test]
async fn a_write_past_the_end_is_refused_at_once() {
    let setup = setup(PAGE_BYTES);
    setup.bench.write(0, &page_of(1)).await.unwrap();
    for offset in [512, PAGE_BYTES, u64::MAX - 511] {
        let refused = setup.bench.write(offset, &page_of(2)).await;
        assert_eq!(refused, Err(Errno::ENOSPC), "{offset}");
    }
    setup.bench.sync().await.unwrap();
    assert_eq!(setup.page(0).await, page_of(1));
}

#[tokio::test]
async fn extents_show_what_is_not_synced() {
    let setup = setup(SIZE);
    setup.bench.write(PAGE_BYTES, &page_of(1)).await.unwrap();
    let kinds = |extents: Vec<BackendExtent>| -> Vec<_> {
        extents
            .into_iter()
            .map(|extent| (extent.range, extent.kind))
            .collect()
    };
    let found = kinds(setup.bench.extents(0..SIZE, 16).await.unwrap());
    let expected = [
        (0..PAGE_BYTES, ExtentKind::Hole),
        (PAGE_BYTES..2 * PAGE_BYTES, ExtentKind::Data),
        (2 * PAGE_BYTES..SIZE, ExtentKind::Hole),
    ];
    assert_eq!(found, expected);
    setup.bench.sync().await.unwrap();
    setup.bench.discard(0..SIZE).await.unwrap();
    let found = kinds(setup.bench.extents(0..SIZE, 16).await.unwrap());
    assert_eq!(found, [(0..SIZE, ExtentKind::Hole)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_device_like_any_other(steps in steps(64)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let size = 64 * PAGE_BYTES - 512;
        let setup = setup(size);
        runtime.block_on(run_model(&setup.bench, size, &steps));
    }
}
