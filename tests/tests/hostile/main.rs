//! Clients that break the rules. After each of them the server still serves, and its memory is bounded.

mod crowd;
mod flood;
mod half_sent;
mod negotiation;
mod random;
mod requests;
mod support;
