//! `/v1/events`: what fired, as lines of JSON.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use weir_faults::Faults;

use super::AdminState;
use super::extract::Words;

/// Lines that go out as one piece.
const LINES_PER_PIECE: usize = 256;

/// Which events.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventQuery {
    /// Events after the one of this number; 0 for all that are kept.
    #[serde(default)]
    since: u64,
    /// Whether to go on with later events.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn stream(
    State(state): State<Arc<AdminState>>,
    Words(query): Words<EventQuery>,
) -> Response {
    let follower = Follower {
        faults: state.faults.clone(),
        until: state.faults.newest_event(),
        since: query.since,
        follow: query.follow,
    };
    let pieces = stream::unfold(follower, |mut follower| async move {
        let piece = follower.next_piece().await?;
        Some((Ok::<_, Infallible>(piece), follower))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(pieces)).into_response()
}

/// A client that reads events. It is asked for more when the socket has room, and holds up nothing else.
struct Follower {
    faults: Faults,
    /// The newest event when the client came.
    until: u64,
    /// The number of the last event that the client has seen.
    since: u64,
    follow: bool,
}

impl Follower {
    async fn next_piece(&mut self) -> Option<Bytes> {
        // Kept events go out a piece at a time, too: a request that fires a rule waits while they are copied.
        let events = if self.follow {
            self.faults.next_events(self.since, LINES_PER_PIECE).await
        } else {
            let mut kept = self.faults.some_events_since(self.since, LINES_PER_PIECE);
            kept.retain(|event| event.number <= self.until);
            kept
        };
        if events.is_empty() {
            return None;
        }
        let mut piece = Vec::new();
        for event in events {
            self.since = event.number;
            serde_json::to_writer(&mut piece, &event).expect("an event is plain data");
            piece.push(b'\n');
        }
        Some(piece.into())
    }
}
