use super::Rng;

#[test]
fn figures_are_those_of_the_reference() {
    // The reference's output for seed 1234567 (prng.di.unimi.it/splitmix64.c).
    let mut rng = Rng::new(1_234_567);
    let figures: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
    assert_eq!(
        figures,
        [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821
        ]
    );
}

#[test]
fn a_decision_depends_on_seed_name_and_number() {
    let draw = |seed, name, number| Rng::of(seed, name, number).next_u64();
    assert_eq!(draw(1, "a", 1), draw(1, "a", 1));
    assert_ne!(draw(1, "a", 1), draw(2, "a", 1));
    assert_ne!(draw(1, "a", 1), draw(1, "b", 1));
    assert_ne!(draw(1, "a", 1), draw(1, "a", 2));
}

#[test]
fn figures_stay_below_their_bound_and_reach_all_of_it() {
    let mut rng = Rng::new(7);
    for bound in [1, 2, 3, 10, 1 << 40, u64::MAX] {
        for _ in 0..100 {
            assert!(rng.below(bound) < bound);
        }
    }
    let mut seen = [0_u32; 10];
    for _ in 0..10_000 {
        let figure = usize::try_from(rng.below(10)).expect("small");
        seen[figure] += 1;
    }
    assert!(
        seen.iter().all(|count| (800..1200).contains(count)),
        "{seen:?}"
    );
}

#[test]
fn unit_is_in_range_and_fill_fills_odd_lengths() {
    let mut rng = Rng::new(9);
    assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.unit())));
    let mut bytes = [0_u8; 13];
    rng.fill(&mut bytes);
    assert!(bytes[8..].iter().any(|byte| *byte != 0));
}
