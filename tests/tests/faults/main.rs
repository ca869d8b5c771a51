//! What is broken on purpose, seen by a real client: everything is set with the `weir` program and undone with it.

mod actions;
mod admin;
mod api;
mod backend;
mod device;
mod documents;
mod events;
mod gone;
mod held;
mod inject;
mod order;
mod points;
mod power_cut;
mod refusals;
mod support;
mod triggers;
