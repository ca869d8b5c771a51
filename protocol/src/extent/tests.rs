use proptest::prelude::*;

use super::*;
use crate::request::Command;
use crate::testing::request;

fn extent(length: u32, flags: u32) -> Extent {
    Extent { length, flags }
}

#[test]
fn neighbours_of_the_same_state_are_one_extent() {
    let mut list = ExtentList::with_limit(100, MAX_EXTENTS);
    assert_eq!(list.push(10, 0), Room::More);
    assert_eq!(list.push(10, 0), Room::More);
    assert_eq!(list.push(0, 3), Room::More);
    assert_eq!(list.push(10, 0), Room::More);
    assert_eq!(list.push(20, 3), Room::More);
    assert_eq!(list.as_slice(), [extent(30, 0), extent(20, 3)]);
    assert_eq!(list.uncovered(), 50);
}

#[test]
fn the_last_extent_ends_with_the_request() {
    let mut list = ExtentList::with_limit(100, MAX_EXTENTS);
    assert_eq!(list.push(60, 0), Room::More);
    assert_eq!(list.push(u64::MAX, 3), Room::Full);
    assert_eq!(list.push(1, 0), Room::Full);
    assert_eq!(list.as_slice(), [extent(60, 0), extent(40, 3)]);
}

#[test]
fn req_one_gives_one_extent_as_long_as_it_goes() {
    let request = request(Command::BLOCK_STATUS, CommandFlags::REQ_ONE, 4096, 100);
    let mut list = ExtentList::new(&request);
    assert_eq!(list.push(10, 2), Room::More);
    assert_eq!(list.push(10, 2), Room::More);
    assert_eq!(list.push(10, 0), Room::Full);
    assert_eq!(list.push(10, 2), Room::Full);
    assert_eq!(list.as_slice(), [extent(20, 2)]);
}

#[test]
fn a_list_has_a_limit() {
    let request = request(Command::BLOCK_STATUS, CommandFlags::EMPTY, 0, u32::MAX);
    let mut list = ExtentList::new(&request);
    let pushed = (0_u32..)
        .take_while(|&index| list.push(1, index % 2) == Room::More)
        .count();
    assert_eq!(pushed, MAX_EXTENTS);
    assert_eq!(list.as_slice().len(), MAX_EXTENTS);
}

#[test]
fn the_longest_request_fits() {
    let mut list = ExtentList::with_limit(u32::MAX, MAX_EXTENTS);
    assert_eq!(list.push(u64::from(u32::MAX) - 1, 0), Room::More);
    assert_eq!(list.push(u64::MAX, 0), Room::Full);
    assert_eq!(list.as_slice(), [extent(u32::MAX, 0)]);
}

#[test]
fn flags_are_those_of_the_protocol() {
    assert_eq!((AllocationFlags::HOLE | AllocationFlags::ZERO).0, 3);
    assert_eq!(AllocationFlags::HOLE.0, 1);
    assert_eq!(CacheFlags::CACHED.0, 1);
    assert_eq!(CacheFlags::DIRTY.0, 2);
    assert_eq!(
        format!("{:?}", AllocationFlags(7)),
        "AllocationFlags(HOLE | ZERO | 0x4)"
    );
}

proptest! {
    /// Against a flat vector with one state for each byte.
    #[test]
    fn a_list_says_what_was_pushed(
        length in 1_u32..200, limit in 1_usize..10,
        pushes in prop::collection::vec((0_u64..40, 0_u32..3), 0..20),
    ) {
        let mut list = ExtentList::with_limit(length, limit);
        let mut model = Vec::new();
        for (length, flags) in pushes {
            let _ = list.push(length, flags);
            model.extend((0..length).map(|_| flags));
        }
        let said: Vec<u32> = list
            .as_slice()
            .iter()
            .flat_map(|extent| std::iter::repeat_n(extent.flags, extent.length as usize))
            .collect();
        prop_assert!(said.len() <= length as usize);
        prop_assert!(list.as_slice().len() <= limit);
        prop_assert_eq!(&said[..], &model[..said.len()]);
        prop_assert_eq!(said.len() + list.uncovered() as usize, length as usize);
        prop_assert!(list.as_slice().iter().all(|extent| extent.length > 0));
        prop_assert!(list.as_slice().windows(2).all(|pair| pair[0].flags != pair[1].flags));
        if list.room() == Room::More {
            prop_assert_eq!(said.len(), model.len());
        }
    }
}
