use super::{Pattern, assert_same, bytes};

#[test]
fn the_first_values_are_those_of_the_published_generator() {
    let mut pattern = Pattern::new(0);
    assert_eq!(pattern.next_u64(), 0xe220_a839_7b1d_cdaf);
    assert_eq!(pattern.next_u64(), 0x6e78_9e6a_a1b9_65f4);
}

#[test]
fn a_prefix_does_not_depend_on_the_length() {
    assert_same(&bytes(7, 1000)[..13], &bytes(7, 13), "prefix");
}

#[test]
#[should_panic(expected = "byte 2 is 0x00, should be 0x01")]
fn a_difference_names_its_place() {
    assert_same(&[5, 5, 0], &[5, 5, 1], "data");
}
