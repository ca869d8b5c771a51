use super::*;

#[test]
fn names_and_ids() {
    assert_eq!(MetaContext::BASE_ALLOCATION.wire_name(), "base:allocation");
    assert_eq!(MetaContext::CACHE.wire_name(), "x-weir:cache");
    assert_ne!(MetaContext::BASE_ALLOCATION.id(), MetaContext::CACHE.id());
}

#[test]
fn queries() {
    let allocation = MetaContextSet::EMPTY.with(MetaContext::BASE_ALLOCATION);
    let cache = MetaContextSet::EMPTY.with(MetaContext::CACHE);
    let none = MetaContextSet::EMPTY;
    let cases = [
        // query, what it lists, what it selects
        ("base:allocation", allocation, allocation),
        ("x-weir:cache", cache, cache),
        ("base:", allocation, none),
        ("x-weir:", cache, none),
        ("base", none, none),
        ("base:alloc", none, none),
        ("base:allocation:more", none, none),
        ("BASE:ALLOCATION", none, none),
        ("qemu:dirty-bitmap:b", none, none),
        ("allocation", none, none),
        (":", none, none),
        ("", none, none),
    ];
    for (query, listed, selected) in cases {
        assert_eq!(MetaContextSet::listed_by(query), listed, "{query:?}");
        assert_eq!(MetaContextSet::selected_by(query), selected, "{query:?}");
    }
}

#[test]
fn sets() {
    let all = MetaContextSet::EMPTY
        .with(MetaContext::CACHE)
        .with(MetaContext::BASE_ALLOCATION);
    assert_eq!(all, MetaContextSet::ALL);
    assert!(all.iter().eq(MetaContext::ALL));
    assert!(MetaContextSet::EMPTY.is_empty() && !all.is_empty());
    assert_eq!(
        all.intersection(MetaContextSet::EMPTY),
        MetaContextSet::EMPTY
    );
    assert_eq!(format!("{all:?}"), "{BASE_ALLOCATION, CACHE}");
}

#[test]
fn a_foreign_context_is_in_no_set() {
    for foreign in [0, 3, 7, 8, 31, u32::MAX].map(MetaContext) {
        assert!(!MetaContextSet::ALL.contains(foreign));
        assert_eq!(MetaContextSet::EMPTY.with(foreign), MetaContextSet::EMPTY);
    }
}
