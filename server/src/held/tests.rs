use futures_util::FutureExt as _;

use super::*;

const LARGEST: usize = MAX_PAYLOAD as usize;

#[tokio::test]
async fn all_is_taken_at_once_and_in_turn() {
    let room = Arc::new(Room::default());
    let first = room.try_take(LARGEST).expect("it is empty");
    let second = room.try_take(LARGEST - 1).expect("there is room");
    let mut large = Box::pin(room.take(LARGEST));
    assert!(large.as_mut().now_or_never().is_none() && room.is_short());
    // There is room for a small request. But the large one came before, and would otherwise never have its turn.
    assert!(room.try_take(1).is_none(), "it was overtaken");
    let mut small = Box::pin(room.take(1));
    assert!(small.as_mut().now_or_never().is_none());
    drop(first);
    let large = large.as_mut().now_or_never().expect("its turn");
    let small = small.as_mut().now_or_never().expect("it fits, too");
    assert!(!room.is_short());
    assert_eq!(room.bytes(), HELD_BYTES_MAX);
    drop((second, large, small));
    assert_eq!(room.bytes(), 0);
}

#[tokio::test]
async fn who_gives_up_waiting_is_in_nobodys_way() {
    let room = Arc::new(Room::default());
    let all = [(); 2].map(|()| room.try_take(LARGEST).expect("two fit"));
    let mut gone = Box::pin(room.take(LARGEST));
    let mut next = Box::pin(room.take(1));
    assert!(gone.as_mut().now_or_never().is_none());
    assert!(next.as_mut().now_or_never().is_none());
    let [first, _second] = all;
    drop(gone);
    assert!(room.is_short());
    drop(first);
    assert!(next.as_mut().now_or_never().is_some());
    drop(next);
    assert!(!room.is_short());
}

/// Payloads wait for rules and data waits for clients: neither is in the way of the other.
#[test]
fn payloads_and_data_have_a_room_each() {
    let held = HeldMemory::default();
    for (full, other) in [
        (held.payloads(), held.replies()),
        (held.replies(), held.payloads()),
    ] {
        let all = full.try_take(HELD_BYTES_MAX).expect("it is empty");
        assert!(full.try_take(1).is_none());
        drop(other.try_take(HELD_BYTES_MAX).expect("it is another"));
        drop(all);
    }
    assert_eq!(held.bytes(), 0);
}
