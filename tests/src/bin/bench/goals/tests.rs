use super::*;
use crate::load::LOADS;

fn sample(contender: &'static str, rate: f64, processor: f64) -> Sample {
    Sample {
        transport: "unix".into(),
        load: "read",
        contender,
        round: 0,
        requests_per_second: rate,
        bytes_per_second: rate * 4096.0,
        processor_us_per_request: Some(processor),
        p50_us: 1.0,
        p99_us: 2.0,
        p999_us: 3.0,
    }
}

#[test]
fn goals_name_loads_that_exist() {
    for goal in &GOALS {
        assert!(
            LOADS.iter().any(|load| load.name == goal.load),
            "{}",
            goal.load
        );
    }
}

#[test]
fn throughput_has_a_floor_and_processor_time_a_ceiling() {
    let met = |rate, processor| {
        let verdicts = verdicts(&[
            sample("ceiling", 100.0, 1.0),
            sample("weir", rate, processor),
        ]);
        verdicts
            .iter()
            .map(|verdict| verdict.met)
            .collect::<Vec<_>>()
    };
    assert_eq!(met(81.0, 1.2), [true, true]);
    assert_eq!(met(79.0, 1.4), [false, false]);
}

#[test]
fn nothing_is_said_without_samples_of_both() {
    assert!(verdicts(&[sample("weir", 1.0, 1.0)]).is_empty());
    assert_eq!(table(&[]), "");
}
