//! What a client was promised is there after a restart: all of it after SIGTERM, what was flushed after SIGKILL.

use weir_tests::client::wire::{CMD_FLAG_FUA, CMD_WRITE};
use weir_tests::environment::number;
use weir_tests::pattern::{Pattern, assert_same, bytes};
use weir_tests::server::ServerBuilder;

use crate::support::Fixture;

/// How many times the server is killed, in each of [`MODES`] in turn. `WEIR_KILL_ROUNDS` asks for more,
/// `WEIR_KILL_SEED` for other requests: each round has a seed, and this is the first one's.
const KILL_ROUNDS: u64 = 60;
/// Options, and whether every write is durable when it is answered. The last two go to the file with O_DIRECT where it
/// can.
const MODES: [(&[&str], bool); 4] = [
    (&[], false),
    (&["--cache", "writethrough"], true),
    (&["--direct-threshold", "16k"], false),
    (&["--cache", "none"], false),
];
/// The unit of the model below.
const SECTOR: u64 = 512;
/// Small enough to be read whole each round, twice as large as the cache over it.
const MODEL_BYTES: u64 = 8 << 20;

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn sigterm_keeps_what_was_never_flushed() {
    let fixture = Fixture::new();
    let places: Vec<(u64, Vec<u8>)> = (0..20)
        .zip(1_usize..)
        .map(|(i, n)| (i * 1_700_001, bytes(i, 7_000 * n)))
        .collect();
    let server = fixture.serve();
    let mut client = server.client();
    for (offset, data) in &places {
        client.write(*offset, data).expect("a write");
    }
    // The client stays: a server must stop with clients attached.
    server.stop_clean();
    drop(client);

    let server = fixture.serve();
    let mut client = server.client();
    for (offset, data) in &places {
        let len = u32::try_from(data.len()).expect("small");
        assert_same(
            &client.read(*offset, len).expect("a read"),
            data,
            &format!("at {offset}"),
        );
    }
    client.disconnect();
    server.stop_clean();
}

/// A flat model: the covered version of each sector, and every later one that may have survived.
struct Model {
    covered: Vec<u64>,
    later: Vec<Vec<u64>>,
}

impl Model {
    fn new() -> Self {
        let sectors = usize::try_from(MODEL_BYTES / SECTOR).expect("64 bit");
        Self {
            covered: vec![0; sectors],
            later: vec![Vec::new(); sectors],
        }
    }

    fn wrote(&mut self, sector: usize, count: usize, version: u64) {
        self.later[sector..sector + count]
            .iter_mut()
            .for_each(|later| later.push(version));
    }

    fn cover(&mut self, sector: usize, count: usize) {
        for at in sector..sector + count {
            if let Some(&newest) = self.later[at].last() {
                self.covered[at] = newest;
                self.later[at].clear();
            }
        }
    }

    /// Compares with what is there now, which from now on is the covered version.
    #[track_caller]
    fn check(&mut self, image: &[u8], round: u64) {
        for (at, sector) in image
            .chunks(usize::try_from(SECTOR).expect("small"))
            .enumerate()
        {
            let allowed = |&version: &u64| sector == content(at, version);
            let found = Some(self.covered[at])
                .filter(allowed)
                .or_else(|| self.later[at].iter().copied().find(allowed));
            self.covered[at] = found.unwrap_or_else(|| {
                panic!(
                    "round {round}, sector {at}: neither version {} nor {:?}",
                    self.covered[at], self.later[at]
                )
            });
            self.later[at].clear();
        }
    }
}

/// The bytes of a version of a sector; version 0 is the fresh image.
fn content(sector: usize, version: u64) -> Vec<u8> {
    let len = usize::try_from(SECTOR).expect("small");
    if version == 0 {
        vec![0; len]
    } else {
        bytes(version << 32 | sector as u64, len)
    }
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn sigkill_keeps_what_was_flushed() {
    let rounds = number("WEIR_KILL_ROUNDS").unwrap_or(KILL_ROUNDS);
    let first_seed = number("WEIR_KILL_SEED").unwrap_or(0);
    let fixture = Fixture::new();
    let mut model = Model::new();
    let sectors = MODEL_BYTES / SECTOR;
    let mut version = 0;
    for round in 0..rounds {
        let mut choose = Pattern::new(first_seed.wrapping_add(round));
        let (options, durable) = MODES[usize::try_from(round).expect("few") % MODES.len()];
        let server = options
            .iter()
            .fold(ServerBuilder::new(fixture.dir()), ServerBuilder::arg)
            .file(&fixture.image(), MODEL_BYTES)
            .option("--cache-size", MODEL_BYTES / 2)
            .start();
        let mut client = server.client();
        let image = client
            .read(0, u32::try_from(MODEL_BYTES).expect("8 MiB"))
            .expect("a read");
        model.check(&image, round);

        for _ in 0..40 + choose.below(60) {
            let count = 1 + choose.below(128);
            let at = choose.below(sectors - count);
            let (first, n) = (
                usize::try_from(at).expect("64 bit"),
                usize::try_from(count).expect("64 bit"),
            );
            match choose.below(10) {
                0 => {
                    client.flush().expect("a flush");
                    model.cover(0, model.covered.len());
                }
                kind => {
                    version += 1;
                    let data: Vec<u8> = (first..first + n)
                        .flat_map(|sector| content(sector, version))
                        .collect();
                    let fua = kind == 1;
                    client
                        .write_flags(if fua { CMD_FLAG_FUA } else { 0 }, at * SECTOR, &data)
                        .expect("a write");
                    model.wrote(first, n, version);
                    if fua || durable {
                        model.cover(first, n);
                    }
                }
            }
        }
        // Some more that are in flight when it dies.
        for _ in 0..choose.below(16) {
            let at = choose.below(sectors);
            let sector = usize::try_from(at).expect("64 bit");
            version += 1;
            client.send(CMD_WRITE, 0, at * SECTOR, 512, &content(sector, version));
            model.wrote(sector, 1, version);
        }
        server.kill();
    }
}
