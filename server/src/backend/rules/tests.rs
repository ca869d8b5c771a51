use weir_cache::PAGE_BYTES;
use weir_cache::spy::assert_everything_arrives;
use weir_faults::{FaultContext, PowerCutOptions};

use super::super::MemoryBackend;
use super::super::testing::{Bench, pattern};
use super::*;

const PAGES: usize = 8;
const SIZE: u64 = PAGES as u64 * PAGE_BYTES;

fn setup(rules: &[&str]) -> (Faults, Bench) {
    let (faults, bench) = over(Arc::new(MemoryBackend::new(SIZE)), None);
    for rule in rules {
        faults
            .add_rule(rule)
            .unwrap_or_else(|error| panic!("{error}"));
    }
    (faults, bench)
}

fn over(store: Arc<dyn Backend>, power: Option<Arc<PowerCutBackend>>) -> (Faults, Bench) {
    let faults = Faults::new();
    faults.add_device("db");
    let backend = RuledBackend::new(store, power, "db", &faults).unwrap();
    (faults, Bench::new(backend))
}

fn whole(seed: u8) -> Vec<u8> {
    pattern(seed, PAGES * PAGE_SIZE)
}

/// What the device holds after `whole(1)`, then `whole(2)` under `rule`.
async fn written_under(rule: &str) -> Vec<u8> {
    let (faults, bench) = setup(&[]);
    bench.write(0, &whole(1)).await.unwrap();
    faults
        .add_rule(rule)
        .unwrap_or_else(|error| panic!("{error}"));
    bench.write(0, &whole(2)).await.unwrap();
    faults.clear_rules();
    bench.read(0, PAGES).await.unwrap()
}

#[tokio::test]
async fn errors_with_and_without_effect() {
    let (faults, bench) = setup(&["write at=backend nth=1 error=ENOSPC"]);
    assert_eq!(bench.write(0, &whole(1)).await, Err(Errno::ENOSPC));
    assert_eq!(
        bench.read(0, PAGES).await.unwrap(),
        vec![0; PAGES * PAGE_SIZE]
    );
    faults.clear_rules();
    faults.add_rule("write at=backend error=EIO after").unwrap();
    assert_eq!(bench.write(0, &whole(1)).await, Err(Errno::EIO));
    assert_eq!(bench.read(0, PAGES).await.unwrap(), whole(1));
    for (rule, errno) in [
        ("read at=backend error=EIO", Errno::EIO),
        ("any at=backend error=ENOMEM", Errno::ENOMEM),
    ] {
        faults.clear_rules();
        faults.add_rule(rule).unwrap();
        assert_eq!(bench.read(0, 1).await, Err(errno), "{rule}");
    }
    assert_eq!(bench.sync().await, Err(Errno::ENOMEM));
    assert_eq!(bench.discard(0..SIZE).await, Err(Errno::ENOMEM));
    assert_eq!(bench.extents(0..SIZE, 1).await, Err(Errno::ENOMEM));
    assert!(faults.newest_event() >= 5);
    // The call was made, and fails all the same.
    faults.clear_rules();
    faults.add_rule("any at=backend error=EIO after").unwrap();
    assert_eq!(bench.read(0, 1).await, Err(Errno::EIO));
    assert_eq!(bench.extents(0..SIZE, 1).await, Err(Errno::EIO));
    assert_eq!(bench.sync().await, Err(Errno::EIO));
    assert_eq!(bench.discard(0..PAGE_BYTES).await, Err(Errno::EIO));
    faults.clear_rules();
    assert_eq!(bench.read(0, 1).await.unwrap(), vec![0; PAGE_SIZE]);
}

#[tokio::test]
async fn a_rule_on_requests_is_not_about_the_backend() {
    let (_faults, bench) = setup(&["any error=EIO", "any at=backend export=d? nth=9 error=EIO"]);
    bench.write(0, &whole(1)).await.unwrap();
    assert_eq!(bench.read(0, PAGES).await.unwrap(), whole(1));
}

#[tokio::test]
async fn lost_writes_keep_what_was_there() {
    assert_eq!(written_under("write at=backend lose").await, whole(1));
}

#[tokio::test]
async fn lost_trims_keep_what_was_there() {
    let (faults, bench) = setup(&[]);
    bench.write(0, &whole(1)).await.unwrap();
    faults.add_rule("trim at=backend lose").unwrap();
    bench.discard(0..SIZE).await.unwrap();
    assert_eq!(bench.read(0, PAGES).await.unwrap(), whole(1));
}

#[tokio::test]
async fn a_torn_write_stores_its_prefix() {
    let torn = written_under("write at=backend tear=5000").await;
    assert_eq!(torn[..5000], whole(2)[..5000]);
    assert_eq!(torn[5000..], whole(1)[5000..]);
}

#[tokio::test]
async fn a_misdirected_write_lands_elsewhere_as_far_as_there_is_room() {
    let found = written_under("write at=backend misdirect=10000").await;
    assert_eq!(found[..10_000], whole(1)[..10_000]);
    assert_eq!(found[10_000..], whole(2)[..found.len() - 10_000]);
    let found = written_under("write at=backend misdirect=1T").await;
    assert_eq!(found, whole(1));
}

#[tokio::test]
async fn exactly_so_many_bits_are_damaged() {
    let differing = |left: &[u8], right: &[u8]| -> u32 {
        left.iter()
            .zip(right)
            .map(|(left, right)| (left ^ right).count_ones())
            .sum()
    };
    let stored = written_under("write at=backend corrupt=bits:3").await;
    assert_eq!(differing(&stored, &whole(2)), 3);
    let (faults, bench) = setup(&[]);
    bench.write(0, &whole(1)).await.unwrap();
    faults.add_rule("read at=backend corrupt=bits:5").unwrap();
    let read = bench.read(0, PAGES).await.unwrap();
    assert_eq!(differing(&read, &whole(1)), 5);
    faults.clear_rules();
    assert_eq!(bench.read(0, PAGES).await.unwrap(), whole(1));
}

/// The last page may reach past the end of the device, where damage would be lost.
#[tokio::test]
async fn only_what_the_device_has_is_damaged() {
    const BITS: u32 = 100;
    let (faults, bench) = over(Arc::new(MemoryBackend::new(PAGE_BYTES + 512)), None);
    faults.add_rule("read at=backend corrupt=bits:100").unwrap();
    let read = bench.read(PAGE_BYTES, 1).await.unwrap();
    let damaged: u32 = read[..512].iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(damaged, BITS);
}

/// A call that waits for a rule while the power is cut belongs to the time before the cut, and has no effect any more.
#[tokio::test(start_paused = true)]
async fn a_power_cut_ends_what_waits_for_a_rule() {
    let store = Arc::new(MemoryBackend::new(SIZE));
    let power = Arc::new(PowerCutBackend::new(store, FaultContext::disarmed()).unwrap());
    let (faults, bench) = over(Arc::clone(&power) as _, Some(Arc::clone(&power)));
    faults.add_rule("write at=backend hang").unwrap();
    let cut = async {
        while faults.newest_event() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(power.switch_off());
        let options = PowerCutOptions::parse("").unwrap();
        power.cut(options, Vec::new()).await;
        power.switch_on();
        faults.clear_rules();
    };
    let data = whole(1);
    let (outcome, ()) = tokio::join!(bench.write(0, &data), cut);
    assert_eq!(outcome, Err(Errno::EIO));
    let found = bench.read(0, PAGES).await.unwrap();
    assert_eq!(found, vec![0; PAGES * PAGE_SIZE]);
}

#[tokio::test]
async fn zeroes_are_torn_and_misdirected_too() {
    let (faults, bench) = setup(&[]);
    bench.write(0, &whole(1)).await.unwrap();
    faults.add_rule("zero at=backend tear=4100").unwrap();
    bench.zero(0..SIZE, ZeroMode::MayPunch).await.unwrap();
    let found = bench.read(0, PAGES).await.unwrap();
    assert_eq!(found[..4100], [0; 4100]);
    assert_eq!(found[4100..], whole(1)[4100..]);
}

#[tokio::test(start_paused = true)]
async fn a_hang_ends_when_the_rule_goes() {
    let (faults, bench) = setup(&["flush at=backend hang"]);
    let sync = bench.sync();
    let release = async {
        while faults.newest_event() == 0 {
            tokio::task::yield_now().await;
        }
        faults.clear_rules();
    };
    let (outcome, ()) = tokio::join!(sync, release);
    assert_eq!(outcome, Ok(()));
}

#[tokio::test]
async fn everything_arrives() {
    let faults = Faults::new();
    let over = |below| RuledBackend::new(below, None, "db", &faults).expect("address space");
    assert_everything_arrives(over).await;
    // Whether or not a rule is about a call.
    faults.add_rule("any at=backend delay=1us").expect("a rule");
    assert_everything_arrives(over).await;
}
