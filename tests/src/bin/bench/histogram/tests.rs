use super::*;

#[test]
fn buckets_hold_what_they_say() {
    for value in (0..200).chain([1000, 12_345, 1 << 40, u64::MAX]) {
        let bucket = bucket_of(value) as u64;
        let end = end_of(bucket);
        assert!(end >= value, "{value} in a bucket that ends at {end}");
        assert!(
            end - value <= value / PER_POWER,
            "{value} is far from {end}"
        );
        assert!(
            bucket == 0 || end_of(bucket - 1) < value,
            "{value} belongs to the bucket before"
        );
    }
    assert!(bucket_of(u64::MAX) < BUCKETS);
}

#[test]
fn percentiles_of_a_ramp() {
    let mut histogram = Histogram::default();
    for microseconds in 1..=1000 {
        histogram.record(Duration::from_micros(microseconds));
    }
    for (per_mille, expected) in [(500, 500.0), (990, 990.0), (999, 999.0)] {
        let found = histogram.per_mille(per_mille).as_secs_f64() * 1e6;
        assert!(
            (found / expected - 1.0).abs() < 0.035,
            "{per_mille}: {found}"
        );
    }
    assert_eq!(histogram.per_mille(1000), Duration::from_millis(1));
    assert_eq!(histogram.longest(), Duration::from_millis(1));
}

#[test]
fn merging_adds_up() {
    let (mut left, mut right) = (Histogram::default(), Histogram::default());
    left.record(Duration::from_nanos(10));
    right.record(Duration::from_secs(1));
    left.merge(&right);
    assert_eq!(left.total(), 2);
    assert_eq!(left.per_mille(500), Duration::from_nanos(10));
    assert_eq!(left.per_mille(1000), Duration::from_secs(1));
}

#[test]
fn nothing_recorded_is_zero() {
    assert_eq!(Histogram::default().per_mille(990), Duration::ZERO);
}
