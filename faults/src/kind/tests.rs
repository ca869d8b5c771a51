use super::{RequestKind, RequestKinds};

#[test]
fn the_table_is_in_the_order_of_the_discriminants() {
    for (position, (name, kind)) in RequestKind::NAMED.iter().enumerate() {
        assert_eq!(*kind as usize, position, "{name}");
        assert_eq!(kind.name(), *name);
        assert_eq!(RequestKind::from_name(name), Some(*kind));
        assert!(RequestKinds::ALL.contains(*kind));
    }
    assert_eq!(RequestKind::from_name("Read"), None);
}

#[test]
fn sets_unite_intersect_and_print() {
    let pass = RequestKinds::FLUSH | RequestKinds::WRITE;
    assert!(pass.intersects(RequestKinds::FLUSH));
    assert!(!pass.intersects(RequestKinds::READ));
    assert_eq!(pass.to_string(), "write,flush");
    assert_eq!(pass.without(RequestKinds::WRITE), RequestKinds::FLUSH);
    assert_eq!(pass.iter().collect::<RequestKinds>(), pass);
    assert!(RequestKinds::NONE.is_empty());
    assert!(!RequestKinds::NONE.intersects(RequestKinds::ALL));
}
