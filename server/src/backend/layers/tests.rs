use weir_cache::{Errno, PAGE_BYTES};
use weir_faults::PowerCutOptions;

use super::super::MemoryBackend;
use super::super::testing::{Bench, pattern};
use super::*;
use crate::cli::serve::ServeOptions;
use crate::settings::Settings;

/// The layers of an export with `--power-cut`, and the store under them.
fn layers() -> (Faults, Layers, Arc<MemoryBackend>) {
    let options = ServeOptions {
        export: vec!["db=memory:1M,power-cut".parse().unwrap()],
        ..ServeOptions::default()
    };
    let settings = Settings::resolve(options).unwrap().exports.remove(0);
    let (faults, store) = (Faults::new(), Arc::new(MemoryBackend::new(1 << 20)));
    let layers = Layers::over(Arc::clone(&store) as _, &settings, &faults).unwrap();
    (faults, layers, store)
}

/// A rule is about what the cache asks of the disk, not about what the disk's own cache writes to its platter.
#[tokio::test]
async fn rules_are_asked_before_the_disk_that_can_lose_its_power() {
    let (faults, layers, _store) = layers();
    faults.add_rule("write at=backend error=EIO").unwrap();
    let bench = Bench::over(layers.top);
    let page = pattern(1, usize::try_from(PAGE_BYTES).unwrap());
    assert_eq!(bench.write(0, &page).await, Err(Errno::EIO));
    faults.clear_rules();
    assert_eq!(bench.write(0, &page).await, Ok(()));
    // Data of the disk's cache is written down without passing the rules.
    faults.add_rule("write at=backend error=EIO").unwrap();
    assert_eq!(bench.backend.sync().await, Ok(()));
    assert_eq!(bench.backend.cover(0..PAGE_BYTES).await, Ok(()));
    assert_eq!(bench.read(0, 1).await.unwrap(), page);
}

/// A call that waits for a rule when the power goes never arrives: the rules know the disk that loses its power.
#[tokio::test]
async fn a_power_cut_ends_what_waits_for_a_rule() {
    let (faults, layers, store) = layers();
    faults.add_rule("write at=backend hang").unwrap();
    let power = layers.power_cut.expect("asked for");
    let bench = Bench::over(layers.top);
    let page = pattern(1, usize::try_from(PAGE_BYTES).unwrap());
    let cut = async {
        while faults.newest_event() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(power.switch_off());
        power
            .cut(PowerCutOptions::parse("").unwrap(), Vec::new())
            .await;
        power.switch_on();
        faults.clear_rules();
    };
    let (outcome, ()) = tokio::join!(bench.write(0, &page), cut);
    assert_eq!(outcome, Err(Errno::EIO), "it came after the cut");
    let below = Bench::over(store);
    assert_eq!(below.read(0, 1).await.unwrap(), vec![0; page.len()]);
}
