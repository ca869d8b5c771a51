//! The transmission phase: one method per command, and any request as bytes.

use std::collections::HashMap;

use super::handshake::{Export, Handshake, Options};
use super::reply::{Chunk, Errno, Reply, one_chunk, whole};
use super::socket::Socket;
use super::wire::*;

/// A request's header.
#[must_use]
pub fn request_bytes(flags: u16, command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// A client in the transmission phase. Dropping it closes the connection without a word, as a crash would.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    export: Export,
    structured: bool,
    contexts: Vec<(u32, String)>,
    next_cookie: u64,
    /// Length of each READ that has not been answered, by cookie.
    reads: HashMap<u64, u32>,
}

impl Client {
    /// Negotiates `options` on a fresh connection.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    #[must_use]
    pub fn negotiate(socket: Socket, options: &Options) -> Self {
        Self::negotiate_from(Handshake::begin(socket), options)
    }

    /// The same for a connection whose greeting was read and answered already.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    #[must_use]
    pub fn negotiate_greeted(socket: Socket, options: &Options) -> Self {
        Self::negotiate_from(Handshake::greeted(socket), options)
    }

    #[track_caller]
    fn negotiate_from(mut handshake: Handshake, options: &Options) -> Self {
        if options.structured {
            handshake.expect(OPT_STRUCTURED_REPLY, &[], REP_ACK);
        }
        let contexts = if options.contexts.is_empty() {
            Vec::new()
        } else {
            handshake.set_contexts(&options.export, &options.contexts)
        };
        let export = handshake
            .info(OPT_GO, &options.export)
            .unwrap_or_else(|e| panic!("GO {:?}: {:#x} {}", options.export, e.kind, e.text()));
        Self {
            socket: handshake.into_socket(),
            export,
            structured: options.structured,
            contexts,
            // Far from zero, so that a reply with a forgotten cookie is seen.
            next_cookie: 0x5745_4952_0000_0000,
            reads: HashMap::new(),
        }
    }

    /// What the server said of the export.
    #[must_use]
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// The connection itself.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Sends a request and returns its cookie.
    #[track_caller]
    pub fn send(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        if command == CMD_READ {
            self.reads.insert(cookie, len);
        }
        let mut bytes = request_bytes(flags, command, cookie, offset, len);
        bytes.extend_from_slice(payload);
        self.socket.send(&bytes);
        cookie
    }

    /// Reads the next whole reply; chunks of several requests must not be mixed.
    ///
    /// # Panics
    /// When it is malformed.
    #[track_caller]
    pub fn receive(&mut self) -> Reply {
        let reads = &self.reads;
        let reply = whole(&mut self.socket, |cookie| {
            reads.get(&cookie).copied().unwrap_or(0)
        });
        self.check(&reply);
        reply
    }

    /// Reads replies until each of `cookies` is answered, in whatever order and mixture.
    ///
    /// # Panics
    /// When one is malformed, answers something else or comes twice.
    #[track_caller]
    pub fn receive_all(&mut self, cookies: &[u64]) -> HashMap<u64, Reply> {
        let mut open: HashMap<u64, Option<Reply>> = cookies.iter().map(|&c| (c, None)).collect();
        let mut done = HashMap::new();
        while !open.is_empty() {
            let reads = &self.reads;
            let (part, last) = one_chunk(&mut self.socket, &|cookie| {
                reads.get(&cookie).copied().unwrap_or(0)
            });
            let slot = open
                .get_mut(&part.cookie)
                .unwrap_or_else(|| panic!("nobody asked {:#x}", part.cookie));
            let cookie = part.cookie;
            match slot {
                Some(reply) => {
                    reply.chunks.extend(part.chunks);
                    reply.error = reply.error.or(part.error);
                }
                None => *slot = Some(part),
            }
            if last {
                let reply = open.remove(&cookie).flatten().expect("just filled");
                self.check(&reply);
                done.insert(cookie, reply);
            }
        }
        done
    }

    #[track_caller]
    fn check(&mut self, reply: &Reply) {
        let was_read = self.reads.remove(&reply.cookie).is_some();
        assert!(
            !(self.structured && was_read && reply.simple),
            "a simple reply to a READ after structured replies"
        );
        assert!(
            self.structured || reply.simple,
            "a structured reply that nobody agreed to"
        );
    }

    /// Sends a request and reads the reply to it.
    ///
    /// # Panics
    /// When another reply comes.
    #[track_caller]
    pub fn transact(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Reply {
        let cookie = self.send(command, flags, offset, len, payload);
        let mut reply = self.receive();
        assert_eq!(reply.cookie, cookie, "the reply answers something else");
        if reply.simple {
            for chunk in &mut reply.chunks {
                if let Chunk::Data { offset: at, .. } = chunk {
                    *at = offset;
                }
            }
        }
        reply
    }

    /// READ.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        self.transact(CMD_READ, 0, offset, len, &[])
            .assemble(offset, len)
    }

    /// WRITE.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.write_flags(0, offset, data)
    }

    /// WRITE with flags.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn write_flags(&mut self, flags: u16, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let len = u32::try_from(data.len()).expect("a payload of less than 4 GiB");
        self.transact(CMD_WRITE, flags, offset, len, data).result()
    }

    /// FLUSH.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn flush(&mut self) -> Result<(), Errno> {
        self.transact(CMD_FLUSH, 0, 0, 0, &[]).result()
    }

    /// TRIM.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn trim(&mut self, flags: u16, offset: u64, len: u32) -> Result<(), Errno> {
        self.transact(CMD_TRIM, flags, offset, len, &[]).result()
    }

    /// WRITE_ZEROES.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn write_zeroes(&mut self, flags: u16, offset: u64, len: u32) -> Result<(), Errno> {
        self.transact(CMD_WRITE_ZEROES, flags, offset, len, &[])
            .result()
    }

    /// CACHE.
    ///
    /// # Errors
    /// The server's.
    #[track_caller]
    pub fn cache(&mut self, offset: u64, len: u32) -> Result<(), Errno> {
        self.transact(CMD_CACHE, 0, offset, len, &[]).result()
    }

    /// BLOCK_STATUS of one of the selected contexts, after checking the properties that each of them must have.
    ///
    /// # Errors
    /// The server's.
    ///
    /// # Panics
    /// When a chunk is missing or extents are malformed.
    #[track_caller]
    pub fn block_status(
        &mut self,
        flags: u16,
        context: &str,
        offset: u64,
        len: u32,
    ) -> Result<Vec<(u32, u32)>, Errno> {
        let reply = self.transact(CMD_BLOCK_STATUS, flags, offset, len, &[]);
        reply.result()?;
        let mut by_id = HashMap::new();
        for chunk in reply.chunks {
            match chunk {
                Chunk::Status { context, extents } => {
                    check_extents(&extents, len, flags & CMD_FLAG_REQ_ONE != 0);
                    assert!(
                        by_id.insert(context, extents).is_none(),
                        "two chunks for context {context}"
                    );
                }
                Chunk::None => {}
                other => panic!("in the reply to a BLOCK_STATUS: {other:?}"),
            }
        }
        assert_eq!(
            by_id.len(),
            self.contexts.len(),
            "one chunk per selected context"
        );
        let id = self
            .contexts
            .iter()
            .find(|(_, name)| name == context)
            .unwrap_or_else(|| panic!("no {context}"))
            .0;
        Ok(by_id
            .remove(&id)
            .unwrap_or_else(|| panic!("no chunk for {context}")))
    }

    /// DISC; panics unless the server then closes without another byte.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.send(CMD_DISC, 0, 0, 0, &[]);
        self.socket.expect_closed();
    }
}

#[track_caller]
fn check_extents(extents: &[(u32, u32)], len: u32, one: bool) {
    assert!(!extents.is_empty(), "no extents");
    assert!(!one || extents.len() == 1, "REQ_ONE, but {extents:?}");
    assert!(
        extents.iter().all(|&(n, _)| n > 0),
        "an empty extent in {extents:?}"
    );
    let inside: u64 = extents[..extents.len() - 1]
        .iter()
        .map(|&(n, _)| u64::from(n))
        .sum();
    assert!(
        inside < u64::from(len),
        "all but the last lie inside the request: {extents:?}"
    );
    let total = inside + u64::from(extents[extents.len() - 1].0);
    assert!(
        !one || total <= u64::from(len),
        "REQ_ONE stays inside the request: {extents:?}"
    );
}

/// Extents clipped to the request and with equal neighbours joined, so that servers' choices don't matter.
#[must_use]
pub fn normalise(extents: &[(u32, u32)], len: u32) -> Vec<(u32, u32)> {
    let mut left = len;
    let mut out: Vec<(u32, u32)> = Vec::new();
    for &(n, flags) in extents {
        let n = n.min(left);
        left -= n;
        match out.last_mut() {
            _ if n == 0 => break,
            Some(last) if last.1 == flags => last.0 += n,
            _ => out.push((n, flags)),
        }
    }
    out
}
