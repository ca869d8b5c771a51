//! The harness of Weir's end-to-end tests.
//!
//! Everything here talks to the real `weir` program from outside: [`server`] starts it as a child process, [`client`]
//! speaks NBD to it over a blocking socket, [`tools`] runs the public clients (Debian's packages), and [`guest`] boots
//! a Linux kernel as an ordinary program so that its own NBD driver can be the client. [`soak`] runs the tests that
//! have seeds for hours.
//!
//! Two rules keep the tests honest. The client shares no code with the server: a constant that is wrong in
//! `weir-protocol` must not cancel itself out. And nothing waits by sleeping: a child's end is waited for with
//! `waitid`, its readiness is a line that it prints, and every wait has a deadline. After the deadline the test fails
//! with what it had seen.

pub mod client;
pub mod crash;
pub mod environment;
pub mod guest;
pub mod pattern;
pub mod process;
pub mod server;
pub mod soak;
pub mod tools;
