use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;

/// A turn, if there is one at once.
fn enter(turns: &Turns, turn: Turn) -> Option<TurnGuard<'_>> {
    match pin!(turns.wait(turn)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(guard) => Some(guard),
        Poll::Pending => None,
    }
}

#[test]
fn one_kind_goes_together_and_keeps_the_others_out() {
    let kinds = [Turn::Take, Turn::Give, Turn::Count];
    for held in kinds {
        let turns = Turns::default();
        let guard = enter(&turns, held).expect("nobody is there");
        for other in kinds {
            assert_eq!(
                enter(&turns, other).is_some(),
                other == held,
                "{other:?} beside {held:?}"
            );
        }
        drop(guard);
        for other in kinds {
            assert!(enter(&turns, other).is_some(), "{other:?} after {held:?}");
        }
    }
}

/// A turn that waits between two locks holds up no other for ever.
#[tokio::test(start_paused = true)]
async fn all_kinds_get_in() {
    let turns = Arc::new(Turns::default());
    let mut running = tokio::task::JoinSet::new();
    for number in 0..60 {
        let turns = Arc::clone(&turns);
        let turn = [Turn::Take, Turn::Give, Turn::Count][number % 3];
        running.spawn(async move {
            for _ in 0..20 {
                let guard = turns.wait(turn).await;
                tokio::time::sleep(Duration::from_millis(number as u64 % 7)).await;
                drop(guard);
            }
        });
    }
    let all = async { while running.join_next().await.is_some() {} };
    let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
    ended.expect("nobody waits for ever");
}
