//! The public NBD clients against a real server: each test starts its own.

mod copy;
mod fio;
mod info;
mod persistence;
mod qemu;
mod qemu_locks;
mod shell;
mod support;
