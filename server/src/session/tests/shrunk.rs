//! Devices that become smaller under a READ: the server answers what it can, and the connection lives.

use super::*;

const LENGTH: u32 = 6 << 20;
/// Beyond the data that is sent to a client that doesn't read, and within a page.
const END: u64 = (4 << 20) + 100;

/// A cache in which a slice is a few pages.
fn small() -> Setup {
    Setup {
        cache_bytes: 2 << 20,
        ..Setup::default()
    }
}

/// The cache keeps nothing, so a READ waits for the store without a guard.
fn uncached() -> Setup {
    Setup {
        mode: CacheMode::None,
        ..Setup::default()
    }
}

/// Where an error chunk says that the data ends; nothing follows it.
fn error_offset(chunk: &Chunk) -> u64 {
    assert_eq!((chunk.flags, chunk.kind), (1, 0x8002));
    let (error, offset) = (&chunk.data[..4], &chunk.data[chunk.data.len() - 8..]);
    assert_eq!(error, 22_u32.to_be_bytes());
    u64::from_be_bytes(offset.try_into().unwrap())
}

impl Server {
    async fn shrink(&self, size: u64) {
        let shrunk = soon(self.cache.resize(size)).await;
        shrunk.expect("it may shrink");
    }

    /// Lets a READ wait for the store while the device shrinks.
    async fn shrink_under(&self, client: &mut Client, read: Request, size: u64) {
        let faults = &self.context.faults;
        let point = "class backend:read pause";
        faults.set_points(point).expect("a good query");
        client.request(read).await;
        soon(faults.paused("class backend:read"))
            .await
            .expect("a good query");
        self.shrink(size).await;
        faults.reset_points();
    }
}

#[tokio::test]
async fn a_simple_reply_that_was_promised_ends_in_zeroes() {
    let server = Server::with(&small());
    let mut client = server.client(false).await;
    let data = pattern(0, LENGTH as usize);
    client.write(1, 0, &data).await;
    client.request(request(Command::READ, 2, 0, LENGTH)).await;
    assert_eq!(client.reply().await, (0, 2));
    server.shrink(END).await;
    let read = client.take(LENGTH as usize).await;
    let end = usize::try_from(END).unwrap();
    assert!(read[..end] == data[..end]);
    assert!(read[end..].iter().all(|byte| *byte == 0));
    // The client still has its device.
    assert!(client.read(3, 0, 512).await == data[..512]);
}

#[tokio::test]
async fn chunks_end_where_the_device_does() {
    for flags in [CommandFlags::EMPTY, CommandFlags::DF] {
        let server = Server::with(&small());
        let mut client = server.client(true).await;
        let data = pattern(0, LENGTH as usize);
        client.write(1, 0, &data).await;
        let read = request(Command::READ, 2, 0, LENGTH);
        client.request(Request { flags, ..read }).await;
        // A chunk is promised, but its end, or the last of the later chunks, can't have been read.
        let header = client.take(20).await;
        server.shrink(END).await;
        let length = u32::from_be_bytes(header[16..].try_into().unwrap());
        let mut chunks = vec![Chunk {
            flags: u16::from_be_bytes(header[4..6].try_into().unwrap()),
            kind: u16::from_be_bytes(header[6..8].try_into().unwrap()),
            cookie: 2,
            data: client.take(length as usize).await,
        }];
        chunks.extend(client.chunks(2).await);
        let error = chunks.pop().expect("a chunk");
        assert_eq!(error_offset(&error), END);
        let mut read: Vec<u8> = Vec::new();
        for chunk in &chunks {
            let offset = u64::from_be_bytes(chunk.data[..8].try_into().unwrap());
            assert_eq!((chunk.kind, offset), (1, read.len() as u64));
            read.extend(&chunk.data[8..]);
        }
        let end = usize::try_from(END).unwrap();
        assert!(read[..end] == data[..end]);
        if flags == CommandFlags::DF {
            assert_eq!((chunks.len(), read.len()), (1, LENGTH as usize));
        } else {
            assert_eq!(read.len(), end);
        }
        client.request(request(Command::READ, 3, 0, 512)).await;
        client.chunks(3).await;
    }
}

#[tokio::test]
async fn a_simple_reply_that_was_not_promised_is_an_error() {
    // Within a slice, and over the border of two.
    for offset in [0, (1 << 20) - 50_000] {
        let server = Server::with(&uncached());
        let mut client = server.client(false).await;
        assert_eq!(client.write(1, offset, &pattern(0, 100_000)).await, 0);
        let read = request(Command::READ, 2, offset, 100_000);
        server
            .shrink_under(&mut client, read, offset + 70_000)
            .await;
        assert_eq!(client.reply().await, (22, 2));
        assert!(client.read(3, offset, 70_000).await == pattern(0, 70_000));
    }
}

#[tokio::test]
async fn chunks_of_one_slice_end_where_the_device_does() {
    for (flags, size) in [
        (CommandFlags::EMPTY, 70_000),
        (CommandFlags::EMPTY, 4096),
        (CommandFlags::DF, 70_000),
    ] {
        let server = Server::with(&uncached());
        let mut client = server.client(true).await;
        assert_eq!(client.write(1, 0, &pattern(0, 100_000)).await, 0);
        let read = request(Command::READ, 2, 4096, 50_000 + 4096);
        let read = Request { flags, ..read };
        server
            .shrink_under(&mut client, read, size.min(40_000))
            .await;
        let chunks = client.chunks(2).await;
        if flags == CommandFlags::DF || size == 4096 {
            // Nothing is there, or the reply can't say what is there.
            assert_eq!(chunks.iter().map(|c| c.kind).collect::<Vec<_>>(), [0x8001]);
        } else {
            assert_eq!(chunks.len(), 2);
            assert_eq!(error_offset(&chunks[1]), 40_000);
            assert!(chunks[0].data[8..] == pattern(4096, 40_000 - 4096));
        }
    }
}

#[tokio::test]
async fn a_device_that_is_as_large_again_is_read_again() {
    let server = Server::with(&uncached());
    let mut client = server.client(false).await;
    assert_eq!(client.write(1, 0, &pattern(0, 100_000)).await, 0);
    let faults = &server.context.faults;
    faults
        .set_points("class backend:read pause")
        .expect("a good query");
    client.request(request(Command::READ, 2, 0, 100_000)).await;
    soon(faults.paused("class backend:read"))
        .await
        .expect("a good query");
    server.shrink(40_000).await;
    server.shrink(SIZE).await;
    faults.reset_points();
    assert_eq!(client.reply().await, (0, 2));
    let read = client.take(100_000).await;
    assert!(read[..40_000] == pattern(0, 40_000));
    assert!(read[40_000..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn other_requests_over_the_new_end_get_errors() {
    let server = Server::new();
    let length = 2 << 20;
    for (rule, command, error) in [
        ("read", Command::READ, 22),
        ("write", Command::WRITE, 28),
        ("trim", Command::TRIM, 22),
        ("zero", Command::WRITE_ZEROES, 28),
        ("cache", Command::CACHE, 0),
    ] {
        server.cache.resize(SIZE).await.expect("it may grow");
        let mut client = server.client(false).await;
        // A rule has taken it when the device shrinks.
        server
            .context
            .faults
            .add_rule(&format!("{rule} hang"))
            .expect("a good rule");
        client.request(request(command, 2, 1 << 20, length)).await;
        if command == Command::WRITE {
            client.send(&vec![1; length as usize]).await;
        }
        let fired = async {
            while server.context.faults.rules()[0].fires == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(fired).await;
        server.shrink((1 << 20) + 5000).await;
        server.context.faults.clear_rules();
        assert_eq!(client.reply().await, (error, 2), "{rule}");
        assert_eq!(client.read(3, 0, 512).await.len(), 512, "{rule}");
    }
}
