//! The `weir` server: everything between the command line and the cache.
//!
//! - [`cli`] and [`config`] say what is wanted, [`settings`] works out what that means, [`serve`] does it, [`shutdown`]
//!   ends it; [`signals`] says what each signal means.
//! - [`listener`] takes connections, [`session`] speaks NBD on each, [`connection`] counts them, [`export`] is what
//!   they are served.
//! - [`admin`] is the port for scripts, statistics and faults.
//! - [`backend`] has the stores behind the cache.
//! - [`held`] counts what fault rules keep of clients' data beside the cache.
//! - [`limits`], [`resources`] and [`descriptors`] say how much of anything there may be.

pub mod admin;
pub mod backend;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connection;
pub mod descriptors;
pub mod error;
pub mod export;
pub mod held;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod process;
pub mod resources;
pub mod serve;
pub mod server;
pub mod session;
pub mod settings;
pub mod shutdown;
pub mod signals;
pub mod size;
pub mod source;
