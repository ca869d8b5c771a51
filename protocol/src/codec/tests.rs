use super::*;

#[test]
fn values_are_big_endian() {
    let mut reader = Reader::new(&[1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]);
    assert_eq!(reader.get::<u16>(), Ok(0x0102));
    assert_eq!(reader.get::<u32>(), Ok(3));
    assert_eq!(reader.get::<u64>(), Ok(4));
    assert!(reader.is_empty());
}

#[test]
fn short_frames_say_how_much_is_missing() {
    let mut reader = Reader::new(&[0, 0, 0]);
    assert_eq!(reader.get::<u64>(), Err(Truncated { missing: 5 }));
    assert_eq!(reader.take(10), Err(Truncated { missing: 7 }));
    assert_eq!(reader.remaining(), 3);
}

#[test]
fn a_length_cannot_reach_past_its_frame() {
    let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(
        reader.prefixed(),
        Err(Truncated {
            missing: 0xffff_fffe
        })
    );

    let mut reader = Reader::new(&[1, 2, 3]);
    let mut sub = reader.sub(2).unwrap();
    assert_eq!(sub.take(3), Err(Truncated { missing: 1 }));
    assert_eq!(reader.rest(), [3]);
}

#[test]
fn text_is_cut_between_characters() {
    assert_eq!(truncate_text("weir", 10), "weir");
    assert_eq!(truncate_text("weir", 2), "we");
    assert_eq!(truncate_text("aéé", 2), "a");
    assert_eq!(truncate_text("é", 0), "");
}
