//! Charges move with the data that a shift moves, whatever fails.

use super::*;

impl Bench {
    /// Every unit that holds data is charged, whatever else is charged too, and nothing is counted twice.
    fn check_enough(&self, what: &str) {
        let space = self.cache.quota.as_ref().unwrap();
        assert_eq!(space.charged_units(), self.charged(), "{what}");
        for (page, bytes) in self.backend.volatile().chunks(4096).enumerate() {
            let at = page as u64 * PAGE;
            let charged = space.is_charged(&(at..at + PAGE));
            assert!(
                charged || bytes.iter().all(|byte| *byte == 0),
                "{what}: page {page} holds data that is not charged"
            );
        }
    }

    async fn shift(&self, insert: bool, page: u64, pages: u64) -> Result<(), Errno> {
        let (offset, length) = (page * PAGE, pages * PAGE);
        if insert {
            self.cache.insert_range(offset, length).await
        } else {
            self.cache.collapse_range(offset, length).await
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_shift_moves_stays_charged_when_it_can_not_be_counted() {
    for insert in [true, false] {
        let bench = Bench::new(64, 4).await;
        bench.write(100..108).await.unwrap();
        bench
            .faults
            .set_points("class cache:space:count error EIO")
            .unwrap();
        bench.shift(insert, 2, 3).await.unwrap();
        bench.check_enough(if insert { "inserted" } else { "collapsed" });
        // Two of the first four have gone with what was collapsed.
        assert_eq!(bench.charged(), if insert { 12 } else { 10 });
        bench.faults.set_points("reset").unwrap();
        bench.cache.count_space().await.unwrap();
        bench.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_shift_whose_charges_can_not_follow_changes_nothing() {
    let bench = Bench::new(64, 4).await;
    bench
        .faults
        .set_points("class cache:radix:allocate error ENOMEM")
        .unwrap();
    // Into units that there are no bits for yet.
    let far = LEAF_UNITS;
    let inserted = bench.shift(true, 2, far).await;
    assert_eq!(inserted, Err(Errno::ENOMEM));
    assert_eq!(bench.cache.size(), DEVICE);
    bench.faults.set_points("reset").unwrap();
    bench.check();
}
