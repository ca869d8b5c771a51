use super::*;

fn extent(range: Range<u64>, kind: ExtentKind) -> BackendExtent {
    BackendExtent { range, kind }
}

#[test]
fn dirty_ranges_lie_over_holes() {
    let below = [
        extent(0..100, ExtentKind::Hole),
        extent(100..200, ExtentKind::Data),
    ];
    let merged = lay_over(&below, &[10..20, 90..110]);
    assert_eq!(
        merged,
        [
            extent(0..10, ExtentKind::Hole),
            extent(10..20, ExtentKind::Data),
            extent(20..90, ExtentKind::Hole),
            extent(90..200, ExtentKind::Data),
        ]
    );
}

#[test]
fn nothing_dirty_changes_nothing() {
    let below = [
        extent(5..100, ExtentKind::Zero),
        extent(100..200, ExtentKind::Hole),
    ];
    assert_eq!(lay_over(&below, &[]), below);
}

#[test]
fn one_dirty_range_covers_many_extents() {
    let below = [
        extent(0..10, ExtentKind::Hole),
        extent(10..20, ExtentKind::Zero),
        extent(20..30, ExtentKind::Hole),
    ];
    assert_eq!(
        lay_over(&below, &std::iter::once(0..30).collect::<Vec<_>>()),
        [extent(0..30, ExtentKind::Data)]
    );
}
