//! Every limit of the server, with the reason for its figure.
//!
//! The protocol's own limits (names, options, payloads) are in `weir_protocol::constants`. The cache's limits are
//! derived from `--cache-size`.

use std::time::Duration;

/// How long a peer may take from connecting to the transmission phase. An honest client needs a few round trips, and an
/// idle peer must not hold a connection's slot.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of a reply that waits for it before the connection is closed. The reply pins page
/// frames meanwhile. This is longer than any pause of a healthy client or network.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests of one connection that are being worked on. The Linux client keeps up to 128 per connection, libnbd 64.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;

/// Payload bytes of one connection that are being worked on; one request beyond the limit is always let in.
pub const BYTES_IN_FLIGHT_MAX: usize = 32 << 20;

/// Bytes of waiting WRITEs that fault rules and frozen devices keep, over all connections of an export. As many bytes
/// may be kept for replies: what READs and BLOCK_STATUS that a rule took have read and their clients have not taken
/// yet. These bytes lie beside the cache, so the cache's size doesn't matter to them. The largest request fits, and so
/// does all that one connection may have ([`BYTES_IN_FLIGHT_MAX`] and one request beyond it), so no connection takes
/// all of it.
pub const HELD_BYTES_MAX: usize = 128 << 20;

/// The least that a client must send or take in a second to count as going on. A modem does 7 KiB/s, and a bad mobile
/// link ten times as much as this limit. A slower client can't be told from one that only wants to hold what it was
/// given. The limit matters only where memory is kept for the client and others want it, and for the idle limit.
pub const PACE_BYTES_MIN: u64 = 16 << 10;
/// The time over which that is averaged: longer than a network needs to resend lost packets a few times.
pub const PACE_WINDOW: Duration = Duration::from_secs(5);
/// How long a client may take to send, or to take, all that fault rules keep for it outside the cache, if others wait
/// for that room: it may be half of all room. What common requests keep is done within this time even at the least
/// pace.
pub const ROOM_TIME_MAX: Duration = Duration::from_secs(60);

/// Replies of one connection that wait to be sent, apart from pages of the cache: headers, short data, block status.
/// This is enough for the replies to sixteen thousand writes, or to all short reads that a turn takes; one more reply
/// is always let in.
pub const REPLY_BYTES_MAX: usize = 512 << 10;

/// The most of the cache's pages that a connection pins with replies that wait. This keeps a socket busy.
pub const PINNED_BYTES_MAX: usize = 4 << 20;
/// No connection may pin more than this part of the cache's pages with replies that its client doesn't read.
pub const PINNED_SHARE: usize = 16;
/// Even over the smallest cache some replies may wait.
pub const PINNED_BYTES_MIN: usize = 64 << 10;

/// Extents of one context in the answer to a BLOCK_STATUS. The protocol lets a client continue where an answer ends,
/// and a request over a file in small pieces must not keep other requests waiting. This many extents take the store
/// about ten milliseconds.
pub const STATUS_EXTENTS_MAX: usize = 1024;

/// What a BLOCK_STATUS counts for while it is worked on ([`BYTES_IN_FLIGHT_MAX`]): its extents, as the store and the
/// cache report them, and its answer.
pub const STATUS_BYTES_MAX: usize = 128 * STATUS_EXTENTS_MAX;

/// How far the unread input of a client that sends no more is searched for its NBD_CMD_DISC. The memory for that is
/// freed at once. The figure exceeds what the kernel keeps for a socket unless it was told to keep more (6 MiB,
/// `net.ipv4.tcp_rmem`).
pub const LOOK_AHEAD_BYTES_MAX: usize = 16 << 20;

/// Connections served at a time unless `--max-connections` says otherwise. This is well below the usual 1024
/// descriptors of a process, so that exports and the admin port keep theirs.
pub const CONNECTIONS_MAX_DEFAULT: usize = 512;

/// Connections that the kernel queues until they are accepted; the kernel cuts the figure to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: u32 = 1024;

/// The send buffer requested for a Unix socket; the kernel doubles it for its bookkeeping and cuts it to
/// `net.core.wmem_max`. The default holds one and a half replies of 128 KiB, and the server is woken for each. This one
/// holds enough replies for server and client to work at the same time, and still fits a processor's cache. TCP sizes
/// its buffers by itself.
pub const SEND_BUFFER_BYTES: usize = 512 << 10;

/// How long to stop accepting after the process ran out of descriptors or memory. It is long enough not to spin, and
/// short enough not to be noticed when a connection ends.
pub const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// When a silent TCP peer is first probed. With the interval and the number of probes below, a peer that vanished is
/// noticed in about two minutes.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_IDLE`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// See [`KEEPALIVE_IDLE`].
pub const KEEPALIVE_PROBES: u32 = 4;

/// Within this time after a signal to stop, another one is the same signal sent twice: timeout(1) sends it to its child
/// and then to their process group. A person who insists first waits to see that the first signal wasn't enough.
pub const INSISTENCE_AFTER: Duration = Duration::from_millis(500);

/// How long sessions may take to answer what is in flight once the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the final flush of an export may take. Init systems usually kill after 90 s, and the message about what is
/// dirty must come before that.
pub const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// An I/O on a file or disk that takes longer is reported: a healthy disk is never so slow, and the kernel's own
/// command timeout is 30 s too.
pub const IO_REPORT_AFTER: Duration = Duration::from_secs(30);

/// I/O threads of one file or block device: the depth at which common SSDs reach their throughput, on top of all that
/// writeback has under way, so that writeback can't keep reads waiting. They start on demand.
pub const IO_THREADS_MAX: usize = 32 + weir_cache::WRITEBACK_RUNS;

/// Transfers of one file that its ring has under way: twice what NVMe drives need for their throughput. The completion
/// queue of the same ring holds them all.
pub const RING_DEPTH: u32 = 256;

/// Slices that one `preadv` or `pwritev` takes: Linux' `UIO_MAXIOV`.
pub const IO_SLICES_MAX: usize = 1024;

/// The size of `weir.img` when `weir serve` is given nothing at all. It is sparse, so it costs nothing until used.
pub const FIRST_TRY_SIZE: u64 = 1 << 30;

/// The largest device: to the kernel, offsets are signed 64-bit numbers, and the last page must end below their
/// maximum.
pub const DEVICE_BYTES_MAX: u64 = (i64::MAX as u64) & !4095;

/// The share of the machine's memory (or of the control group's limit) that all exports without a `--cache-size` of
/// their own use together: 1 / this figure.
pub const CACHE_SHARE_OF_MEMORY: u64 = 8;
/// The most that this share comes to: a server without configuration must not be the largest process of the machine.
pub const CACHE_BYTES_DEFAULT_MAX: u64 = 2 << 30;
/// The least that an export gets by default.
pub const CACHE_BYTES_DEFAULT_MIN: u64 = 16 << 20;
/// The least that `--cache-size` takes: below it a single request's pages don't fit.
pub const CACHE_BYTES_MIN: u64 = 1 << 20;

/// The largest cache: more than any machine's memory, and half of what frame numbers can address.
pub const CACHE_BYTES_MAX: u64 = 8 << 40;

/// How long each phase of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From connecting to the transmission phase.
    pub handshake: Duration,
    /// Without any request, if that time is limited at all. A part of a request that arrives at less than
    /// [`PACE_BYTES_MIN`] a second counts as none.
    pub idle: Option<Duration>,
    /// For a reply of which the peer takes nothing.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE_TIMEOUT,
            idle: None,
            write: WRITE_TIMEOUT,
        }
    }
}
