//! The kernel's own NBD driver as the client, in User-mode Linux.

mod faults;
mod filesystem;
mod readme;
