use super::*;

#[test]
fn a_quiet_connection_keeps_only_what_is_unread() {
    let mut input = Input::default();
    input.preload(&[1, 2, 3, 4, 5]);
    assert_eq!(input.buffer.len(), INPUT_BYTES);
    input.consume(2);
    input.release();
    assert_eq!((input.unread(), input.buffer.len()), (&[3, 4, 5][..], 3));
    input.release();
    // There is room again for the rest.
    let outcome = input.fill_by(100, |buffer| {
        assert_eq!(buffer.len(), 100);
        buffer[..2].copy_from_slice(&[6, 7]);
        Ok(2)
    });
    assert_eq!(outcome.expect("it is filled"), 2);
    assert_eq!(input.unread(), [3, 4, 5, 6, 7]);
    input.consume(5);
    input.release();
    assert!(input.buffer.is_empty() && input.unread().is_empty());
}
