use super::*;

const PATTERN: Pattern = Pattern::new(7);

#[test]
fn pieces_agree_with_the_whole_at_any_alignment() {
    let mut whole = vec![0; 64];
    PATTERN.fill(0, &mut whole);
    for start in 0..24 {
        for end in start..64 {
            let mut piece = vec![0; end - start];
            PATTERN.fill(start as u64, &mut piece);
            assert_eq!(piece, whole[start..end], "{start}..{end}");
            assert!(PATTERN.holds(start as u64, &piece), "{start}..{end}");
        }
    }
}

#[test]
fn every_flipped_bit_is_seen() {
    let mut found = vec![0; 41];
    PATTERN.fill(3, &mut found);
    for byte in 0..found.len() {
        found[byte] ^= 0x10;
        assert!(!PATTERN.holds(3, &found), "byte {byte}");
        found[byte] ^= 0x10;
    }
}

#[test]
fn data_from_another_place_or_seed_does_not_pass() {
    let mut found = vec![0; 4096];
    PATTERN.fill(8192, &mut found);
    assert!(PATTERN.holds(8192, &found));
    assert!(!PATTERN.holds(4096, &found));
    assert!(!Pattern::new(8).holds(8192, &found));
    assert!(!PATTERN.holds(8192, &vec![0; 4096]));
}

#[test]
fn a_permutation_has_each_number_once() {
    let mut order = Random::new(1).permutation(1000);
    assert!(
        order.windows(2).any(|pair| pair[0] > pair[1]),
        "it is shuffled"
    );
    order.sort_unstable();
    assert_eq!(order, (0..1000).collect::<Vec<_>>());
}

#[test]
fn below_stays_below_and_reaches_both_ends() {
    let mut random = Random::new(3);
    let drawn: Vec<u64> = (0..1000).map(|_| random.below(10)).collect();
    assert_eq!(drawn.iter().min(), Some(&0));
    assert_eq!(drawn.iter().max(), Some(&9));
}
