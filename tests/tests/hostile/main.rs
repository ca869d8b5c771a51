//! Clients that break the rules. After each of them the server still serves, and its memory is bounded.

mod crowd;
mod flood;
mod negotiation;
mod random;
mod requests;
mod support;
