//! Power cuts under load, against a flat model: each sector holds what a flush has covered, or something later.

use std::fs;

use weir_tests::client::wire::*;
use weir_tests::client::{Client, Errno};
use weir_tests::environment::number;
use weir_tests::pattern::Pattern;

use crate::support::{EXPORT_BYTES, Rig};

/// How many times the power is cut in each of the runs below. `WEIR_POWER_CUT_ROUNDS` asks for more,
/// `WEIR_POWER_CUT_SEED` for other requests and other survivors.
const ROUNDS: u64 = 200;
/// Requests of a round, at most.
const REQUESTS_MAX: u64 = 60;
/// The unit of survival.
const SECTOR: u64 = 512;
/// Sectors of the export.
const SECTORS: u64 = EXPORT_BYTES / SECTOR;
/// Sectors of a page.
const PAGE_SECTORS: u64 = 8;
/// Sectors of one request, at most.
const RUN_MAX: u64 = 160;
/// The version of what was zeroed, trimmed or never written.
const ZERO: u32 = 0;

/// What each sector may hold.
struct Model {
    covered: Vec<u32>,
    /// Acknowledged since, the newest last.
    later: Vec<Vec<u32>>,
    /// Sent and not acknowledged.
    doubtful: Vec<Vec<u32>>,
}

/// The sectors of a request.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: u64,
}

impl Run {
    fn sectors(self) -> impl Iterator<Item = usize> {
        let sectors = self.first..self.first + self.count;
        sectors.map(|sector| usize::try_from(sector).expect("64 bit"))
    }

    /// The pages around it: of what is trimmed, parts of pages stay as they are.
    fn pages(self) -> Self {
        let first = self.first - self.first % PAGE_SECTORS;
        let end = (self.first + self.count).next_multiple_of(PAGE_SECTORS);
        Self {
            first,
            count: end - first,
        }
    }

    fn offset(self) -> u64 {
        self.first * SECTOR
    }

    fn length(self) -> u32 {
        u32::try_from(self.count * SECTOR).expect("small")
    }
}

const ALL: Run = Run {
    first: 0,
    count: SECTORS,
};

/// A version of a sector: its number and the sector's, over and over, so that it tells what it is.
fn content(sector: usize, version: u32) -> Vec<u8> {
    let word = match version {
        ZERO => 0,
        version => u64::from(version) << 32 | sector as u64,
    };
    word.to_le_bytes().repeat(64)
}

fn contents(run: Run, version: u32) -> Vec<u8> {
    run.sectors()
        .flat_map(|sector| content(sector, version))
        .collect()
}

/// The version that a sector holds; it must hold one, whole and in its place.
#[track_caller]
fn version_of(sector: usize, bytes: &[u8], when: &str) -> u32 {
    let word = u64::from_le_bytes(bytes[..8].try_into().expect("eight"));
    let version = u32::try_from(word >> 32).expect("32 bits");
    assert!(
        bytes == content(sector, version),
        "{when}: sector {sector} is torn or another's: {word:#x}"
    );
    version
}

impl Model {
    fn new() -> Self {
        let sectors = usize::try_from(SECTORS).expect("64 bit");
        Self {
            covered: vec![ZERO; sectors],
            later: vec![Vec::new(); sectors],
            doubtful: vec![Vec::new(); sectors],
        }
    }

    fn newest(&self, sector: usize) -> u32 {
        *self.later[sector].last().unwrap_or(&self.covered[sector])
    }

    fn change(&mut self, run: Run, version: u32) {
        for sector in run.sectors() {
            self.later[sector].push(version);
        }
    }

    fn cover(&mut self, run: Run) {
        for sector in run.sectors() {
            self.covered[sector] = self.newest(sector);
            self.later[sector].clear();
        }
    }

    /// What a READ returns while the power is on.
    #[track_caller]
    fn check_read(&self, run: Run, read: &[u8], when: &str) {
        for (sector, bytes) in run.sectors().zip(read.chunks(512)) {
            let found = version_of(sector, bytes, when);
            assert_eq!(found, self.newest(sector), "{when}: sector {sector}");
        }
    }

    /// Compares with what is there after a cut, which is covered from then on.
    #[track_caller]
    fn check_cut(&mut self, keep: &str, image: &[u8], when: &str) {
        for (sector, bytes) in ALL.sectors().zip(image.chunks(512)) {
            let found = version_of(sector, bytes, when);
            let (covered, newest) = (self.covered[sector], self.newest(sector));
            let (later, doubtful) = (&self.later[sector], &self.doubtful[sector]);
            let allowed = match keep {
                "none" => found == covered,
                "all" => found == newest || doubtful.contains(&found),
                _ => found == covered || later.contains(&found) || doubtful.contains(&found),
            };
            assert!(
                allowed,
                "{when}: sector {sector} holds {found}; covered {covered}, later {later:?}, doubtful {doubtful:?}"
            );
            self.covered[sector] = found;
            self.later[sector].clear();
            self.doubtful[sector].clear();
        }
    }
}

/// A run of rounds.
struct Load {
    choices: Pattern,
    /// What survives the first cut follows from this; one follows another.
    cut_seed: u64,
    model: Model,
    version: u32,
    /// Whether requests are sent with FUA.
    fua: bool,
}

impl Load {
    fn new(stream: u64, fua: bool) -> Self {
        let first_seed = first_seed();
        Self {
            choices: Pattern::new(first_seed.wrapping_add(stream)),
            cut_seed: first_seed,
            model: Model::new(),
            version: ZERO,
            fua,
        }
    }

    fn run(&mut self) -> Run {
        let count = 1 + self.choices.below(RUN_MAX);
        let first = self.choices.below(SECTORS - count + 1);
        Run { first, count }
    }

    fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    /// One request, acknowledged.
    #[track_caller]
    fn step(&mut self, client: &mut Client, when: &str) {
        let run = self.run();
        let (offset, length) = (run.offset(), run.length());
        let flags = if self.fua && self.choices.below(8) == 0 {
            CMD_FLAG_FUA
        } else {
            0
        };
        match self.choices.below(16) {
            0 => {
                client.flush().expect("a flush");
                return self.model.cover(ALL);
            }
            1 | 2 => {
                let read = client.read(offset, length).expect("a read");
                return self.model.check_read(run, &read, when);
            }
            3 => {
                let run = run.pages();
                let trimmed = client.trim(flags, run.offset(), run.length());
                trimmed.expect("a trim");
                self.model.change(run, ZERO);
                if flags != 0 {
                    // All that was asked for, which is more than the sectors chosen.
                    self.model.cover(run);
                }
            }
            4 => {
                let no_hole = self.choices.below(2) == 0;
                let hole = if no_hole { CMD_FLAG_NO_HOLE } else { 0 };
                let zeroed = client.write_zeroes(flags | hole, offset, length);
                zeroed.expect("zeroes");
                self.model.change(run, ZERO);
            }
            _ => {
                let version = self.next_version();
                let written = client.write_flags(flags, offset, &contents(run, version));
                written.expect("a write");
                self.model.change(run, version);
            }
        }
        if flags != 0 {
            self.model.cover(run);
        }
    }

    /// Requests whose replies nobody reads.
    fn leave_in_flight(&mut self, client: &mut Client, keep: &str) {
        for _ in 0..self.choices.below(6) {
            let run = self.run();
            let version = self.next_version();
            let data = contents(run, version);
            client.send(CMD_WRITE, 0, run.offset(), run.length(), &data);
            for sector in run.sectors() {
                self.model.doubtful[sector].push(version);
            }
        }
        // Whether it covers anything nobody knows, so it is left out where coverage decides.
        if keep == "random" && self.choices.below(2) == 0 {
            client.send(CMD_FLUSH, 0, 0, 0, &[]);
        }
    }

    #[track_caller]
    fn round(&mut self, rig: &Rig, round: u64) {
        let keep = ["random", "none", "random", "all"][usize::try_from(round % 4).expect("small")];
        let when = format!("round {round}, keep={keep}");
        let mut clients = [rig.client(), rig.client()];
        for _ in 0..self.choices.below(REQUESTS_MAX) {
            let which = usize::try_from(self.choices.below(2)).expect("small");
            self.step(&mut clients[which], &when);
        }
        self.leave_in_flight(&mut clients[0], keep);
        let seed = self.cut_seed.wrapping_add(round);
        let said = rig.ok(&format!("device power-cut \"\" keep={keep} seed={seed}"));
        assert!(
            said.starts_with(&format!("power cut: keep={keep}")),
            "{said}"
        );
        for client in &mut clients {
            client.socket().receive_to_end();
        }
        let mut client = rig.client();
        let image = client.read(0, ALL.length()).expect("all of it");
        self.model.check_cut(keep, &image, &when);
        client.disconnect();
    }
}

fn rounds() -> u64 {
    number("WEIR_POWER_CUT_ROUNDS").unwrap_or(ROUNDS)
}

fn first_seed() -> u64 {
    number("WEIR_POWER_CUT_SEED").unwrap_or(0)
}

fn rig(cache: &str) -> Rig {
    Rig::with(|builder| builder.arg("--power-cut").option("--cache-size", cache))
}

#[track_caller]
fn survive(cache: &str, mut load: Load) {
    let rig = rig(cache);
    for round in 0..rounds() {
        load.round(&rig, round);
    }
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn flushes_alone_decide_exactly_what_is_covered() {
    survive("32M", Load::new(1, false));
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn flushes_and_forced_unit_access() {
    survive("32M", Load::new(2, true));
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_cache_far_smaller_than_the_data() {
    survive("1M", Load::new(3, true));
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn what_survived_is_in_the_file_and_nothing_else() {
    let rig = rig("32M");
    let image = rig.folder().join("disk.img");
    let mut load = Load::new(4, false);
    for round in 0..8 {
        load.round(&rig, round);
        let stored = fs::read(&image).expect("the image");
        load.model.check_cut("none", &stored, "the file");
    }
    let mut client = rig.client();
    let run = Run { first: 0, count: 9 };
    client.write(0, &contents(run, 1 << 30)).expect("a write");
    rig.server.kill();
    let stored = fs::read(&image).expect("the image");
    load.model.check_cut("none", &stored, "after SIGKILL");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_same_seed_loses_the_same() {
    let survivors = || {
        let rig = rig("32M");
        let mut client = rig.client();
        for version in 1..4 {
            client
                .write(
                    0,
                    &contents(
                        Run {
                            first: 0,
                            count: 64,
                        },
                        version,
                    ),
                )
                .expect("a write");
            client.read(0, 512).expect("a read");
        }
        rig.ok("device power-cut \"\" keep=random seed=9");
        let image = rig.client().read(0, 64 * 512).expect("a read");
        rig.finish();
        let versions: Vec<u32> = image
            .chunks(512)
            .enumerate()
            .map(|(sector, bytes)| version_of(sector, bytes, "after the cut"))
            .collect();
        versions
    };
    let first = survivors();
    assert!(first.contains(&ZERO), "{first:?}");
    assert!(first.iter().any(|version| *version != ZERO), "{first:?}");
    assert_eq!(survivors(), first);
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn injected_waits_end_and_other_exports_go_on() {
    let rig = rig("4M");
    let mut other = rig.client_of("db");
    other.write(0, &[3; 4096]).expect("a write");
    let mut client = rig.client();
    client.write(0, &[7; 4096]).expect("a write");
    client.flush().expect("a flush");
    client.write(0, &[8; 4096]).expect("a write");
    rig.add("read export= hang");
    rig.add("flush at=backend export= delay=1h");
    rig.ok("point set class cache:flush:snapshot pause");
    client.send(CMD_READ, 0, 0, 512, &[]);
    client.send(CMD_FLUSH, 0, 0, 0, &[]);
    let said = rig.ok("device power-cut \"\"");
    assert!(said.contains("1 connection closed"), "{said}");
    client.socket().expect_closed();
    rig.clear();
    rig.ok("point reset");
    let mut client = rig.client();
    assert_eq!(client.read(0, 4096), Ok(vec![7; 4096]));
    assert_eq!(other.read(0, 4096), Ok(vec![3; 4096]));
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn a_flush_that_failed_covers_nothing() {
    let rig = rig("4M");
    let mut client = rig.client();
    client.write(0, &[7; 4096]).expect("a write");
    client.flush().expect("a flush");
    client.write(0, &[8; 4096]).expect("a write");
    rig.add("flush at=backend export= error=EIO");
    assert_eq!(client.flush(), Err(Errno(EIO)));
    rig.clear();
    rig.ok("device power-cut \"\" keep=none");
    assert_eq!(rig.client().read(0, 4096), Ok(vec![7; 4096]));
    rig.finish();
}
