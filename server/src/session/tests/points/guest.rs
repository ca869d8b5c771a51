//! A client that is thrown out now and then.

use std::collections::BTreeMap;
use std::io;

use super::*;

/// A client that expects to be thrown out.
pub(super) struct Guest {
    socket: UnixStream,
    session: JoinHandle<()>,
}

impl Guest {
    /// Returns `None` if the server closes the connection before requests can be made.
    pub(super) async fn arrive(server: &Server, structured: bool) -> Option<Self> {
        let (socket, session) = server.connect();
        let mut client = Self { socket, session };
        match soon(client.negotiate(structured)).await {
            Ok(()) => Some(client),
            Err(_) => {
                client.leave().await;
                None
            }
        }
    }

    pub(super) async fn leave(self) {
        drop(self.socket);
        soon(self.session).await.expect("a session never panics");
    }

    async fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.socket.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Sends an option and takes its replies up to the ACK.
    async fn option(&mut self, code: u32, data: &[u8]) -> io::Result<()> {
        self.socket.write_all(&option(code, data)).await?;
        loop {
            let header = self.take(20).await?;
            let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            self.take(word(16) as usize).await?;
            if word(12) == 1 {
                return Ok(());
            }
        }
    }

    async fn negotiate(&mut self, structured: bool) -> io::Result<()> {
        self.take(18).await?;
        self.socket.write_all(&3_u32.to_be_bytes()).await?;
        if structured {
            self.option(8, b"").await?;
            let mut query = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15];
            query.extend(b"base:allocation");
            self.option(10, &query).await?;
        }
        self.option(7, &[0; 6]).await
    }

    /// Sends all of `asked` at once and takes the answers; says whether the connection is still there.
    pub(super) async fn ask(&mut self, asked: &mut [Asked]) -> bool {
        let mut bytes = Vec::new();
        for one in &*asked {
            bytes.extend(one.request.encode());
            if one.request.command == Command::WRITE {
                bytes.resize(bytes.len() + one.request.length as usize, one.value);
            }
        }
        let (mut reader, mut writer) = self.socket.split();
        let sending = async { writer.write_all(&bytes).await };
        let receiving = async {
            let mut reads: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
            for _ in 0..asked.len() {
                let (cookie, outcome) = reply(&mut reader, asked, &mut reads).await?;
                let data = reads.remove(&cookie).unwrap_or_default();
                asked[index(cookie)].outcome = Some(outcome.map(|()| data));
            }
            io::Result::Ok(())
        };
        let (sent, received) = soon(async { tokio::join!(sending, receiving) }).await;
        sent.is_ok() && received.is_ok()
    }
}

/// Takes what answers one request: its cookie and its error.
async fn reply(
    reader: &mut tokio::net::unix::ReadHalf<'_>,
    asked: &[Asked],
    reads: &mut BTreeMap<u64, Vec<u8>>,
) -> io::Result<(u64, Result<(), u32>)> {
    let mut error = None;
    loop {
        let magic = reader.read_u32().await?;
        if magic == SIMPLE_REPLY_MAGIC {
            let code = reader.read_u32().await?;
            let cookie = reader.read_u64().await?;
            let request = &asked[index(cookie)].request;
            if code == 0 && request.command == Command::READ {
                let mut data = vec![0; request.length as usize];
                reader.read_exact(&mut data).await?;
                reads.insert(cookie, data);
            }
            return Ok((cookie, if code == 0 { Ok(()) } else { Err(code) }));
        }
        assert_eq!(magic, STRUCTURED_REPLY_MAGIC, "out of step");
        let flags = reader.read_u16().await?;
        let kind = reader.read_u16().await?;
        let cookie = reader.read_u64().await?;
        let mut data = vec![0; reader.read_u32().await? as usize];
        reader.read_exact(&mut data).await?;
        match kind {
            1 | 2 => {
                let request = &asked[index(cookie)].request;
                let read = reads
                    .entry(cookie)
                    .or_insert_with(|| vec![0xff; request.length as usize]);
                let offset = u64::from_be_bytes(data[..8].try_into().unwrap());
                let start = index(offset - request.offset);
                match kind {
                    1 => read[start..start + data.len() - 8].copy_from_slice(&data[8..]),
                    _ => {
                        let length = u32::from_be_bytes(data[8..].try_into().unwrap()) as usize;
                        read[start..start + length].fill(0);
                    }
                }
            }
            _ if kind & 0x8000 != 0 => {
                error = Some(u32::from_be_bytes(data[..4].try_into().unwrap()));
            }
            _ => {}
        }
        if flags & 1 != 0 {
            return Ok((cookie, error.map_or(Ok(()), Err)));
        }
    }
}
