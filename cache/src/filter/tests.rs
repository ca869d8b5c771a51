use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::spy::{Failing, METHODS, Spy, ask_everything, assert_everything_arrives};

/// A layer that changes nothing.
#[derive(Debug)]
struct Nothing(Arc<dyn Backend>);

impl Filter for Nothing {
    fn next(&self) -> &dyn Backend {
        &*self.0
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.next().cover(range)
    }
}

#[tokio::test]
async fn everything_arrives() {
    assert_everything_arrives(Nothing).await;
}

#[tokio::test]
async fn what_is_handed_on_is_what_was_asked_and_so_are_the_answers() {
    let (spy, below) = (Spy::default(), Arc::new(Spy::default()));
    let top = Nothing(Arc::new(Nothing(Arc::clone(&below) as _)));
    let direct = ask_everything(&spy).await;
    assert_eq!(ask_everything(&top).await, direct);
    assert_eq!(below.take_asked(), spy.take_asked());
    for spy in [&spy, &*below] {
        spy.fail(Failing::All, Errno::EDQUOT);
    }
    let refused = ask_everything(&top).await;
    assert_eq!(refused, ask_everything(&spy).await);
    assert!(
        refused
            .iter()
            .all(|(_, outcome)| *outcome == Err(Errno::EDQUOT)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn everything_is_asked() {
    let spy = Spy::default();
    Backend::geometry(&spy);
    Backend::capabilities(&spy);
    ask_everything(&spy).await;
    let asked: BTreeSet<_> = spy.take_asked().iter().map(|(method, _)| *method).collect();
    assert_eq!(asked, BTreeSet::from(METHODS));
}

/// This test alone makes sure that a new method is known to the spy, and so to the tests of every filter.
#[test]
fn the_spy_knows_every_method() {
    let text = include_str!("../backend.rs");
    let (_, body) = text.split_once("pub trait Backend").expect("the trait");
    let (body, _) = body.split_once("\n}").expect("its end");
    let declared: Vec<_> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    fn "))
        .map(|line| &line[..line.find('(').expect("arguments")])
        .collect();
    assert_eq!(declared, METHODS);
}
