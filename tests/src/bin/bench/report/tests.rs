use super::*;
use crate::load::LOADS;

fn sample(contender: &'static str, round: u32, rate: f64) -> Sample {
    Sample {
        transport: "unix".into(),
        load: LOADS[0].name,
        contender,
        round,
        requests_per_second: rate,
        bytes_per_second: rate * 4096.0,
        processor_us_per_request: Some(1.0),
        p50_us: 1.0,
        p99_us: 2.0,
        p999_us: 3.0,
    }
}

#[test]
fn medians() {
    assert_eq!(Spread::of([]), None);
    assert_eq!(
        Spread::of([3.0, 1.0, 2.0]),
        Some(Spread {
            median: 2.0,
            least: 1.0,
            greatest: 3.0
        })
    );
    assert_eq!(
        Spread::of([4.0, 1.0]).map(|spread| spread.median),
        Some(2.5)
    );
}

#[test]
fn ratios_are_taken_within_a_round() {
    // The machine halves its speed in the second round: the ratio must not move.
    let samples = [
        sample("ceiling", 0, 100.0),
        sample("weir", 0, 80.0),
        sample("weir", 1, 40.0),
        sample("ceiling", 1, 50.0),
    ];
    let groups = groups(&samples, &[&LOADS[0]]);
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].yardsticks, ["ceiling"]);
    let weir = &groups[0].rows[1];
    assert_eq!(weir.contender, "weir");
    assert_eq!(
        weir.ratios,
        [Some(Spread {
            median: 0.8,
            least: 0.8,
            greatest: 0.8
        })]
    );
    assert_eq!(weir.requests_per_second.median, 60.0);
    assert!(table(&groups).contains("0.80 (0.80..0.80)"));
}
