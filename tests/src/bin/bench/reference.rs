//! The servers that others are measured against: the cost of the socket, and the additional cost of tokio.
//!
//! Both serve plain memory with simple replies, without a cache and without checks beyond the range. One read takes in
//! as many requests as the socket holds, and one vectored write answers them straight from memory. They run as child
//! processes of the benchmark (`bench ceiling`, `bench tokio-loop`), so that their CPU time can be measured separately.

mod ceiling;
mod engine;
pub(crate) mod handshake;
mod tokio_loop;

pub(crate) use ceiling::serve as serve_ceiling;
pub(crate) use tokio_loop::serve as serve_tokio_loop;
