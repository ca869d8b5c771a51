//! Every error at every point outside the cache, one at a time, while a client is at work.
//!
//! The registry says which points there are. The cache's model sweeps those of the cache, and this module sweeps all
//! others. Both sweep what the store is asked, so each new point is in one of the two by itself. Each point must have
//! fired. Whatever fails in the middle, nothing aborts and nothing hangs, and a request that fails reports that error.
//! What was answered and flushed is there: afterwards, in the file, and after a power cut.
//!
//! `WEIR_POINTS_SEED=N` sets the first seed, and `WEIR_POINTS_SEEDS=N` the number of seeds.

use std::ops::Range;
use std::path::Path;

use weir_cache::{CacheMode, CloseError};
use weir_faults::rng::Rng;
use weir_faults::{
    Errno, FaultContext, FaultPoint, PointKind, PointListing, PowerCutOptions, RequestKinds,
};
use weir_protocol::NbdError;

use super::*;
use crate::backend::file::Engine;
use crate::export::{OpenExportError, open};
use crate::settings::ExportSettings;
use crate::size::Size;

mod allowed;
mod guest;
mod trigger;

use allowed::Allowed;
use guest::Guest;
use trigger::Trigger;

/// The points of the crates whose own tests sweep them.
const SWEPT_ELSEWHERE: &str = "weir_cache";
/// Except these: what the cache asks of its store.
const ASKED_OF_STORES: &str = "weir_cache::faulted_backend";
/// This point is reached once, before there is an export.
const AT_OPEN: &str = "backend:open";

/// The device: a few slices, and no whole number of pages.
const DEVICE: u64 = (1 << 19) + 512;
/// Requests under way together, each in its own part of the device.
const PARTS: u64 = 6;
const BATCHES: u64 = 5;
/// Cases for the first error of a point over a store: at random, and at one hit. The other errors have one case.
const CASES_MIN: u64 = 2;
/// More cases, until the point has fired, over a store that reaches it.
const CASES_MAX: u64 = 12;
/// A byte that was written is one of these, so the possible bytes are a set of bits.
const VALUES: u64 = 64;
const EIO: u32 = 5;

/// What the export is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    File,
    Memory,
    MemoryThatLosesPower,
}

const STORES: [Store; 3] = [Store::File, Store::Memory, Store::MemoryThatLosesPower];

fn settings(store: Store, image: &Path) -> ExportSettings {
    let (source, size) = match store {
        Store::File => (image.display().to_string(), Some(Size(DEVICE))),
        Store::Memory | Store::MemoryThatLosesPower => (format!("memory:{DEVICE}"), None),
    };
    ExportSettings {
        name: String::new(),
        description: String::new(),
        source: source.parse().expect("a source"),
        size,
        create_size: None,
        cache_bytes: 1 << 20,
        mode: CacheMode::Writeback,
        read_only: false,
        direct_threshold: Some(100 << 10),
        quota: None,
        engine: Engine::default(),
        power_cut: store == Store::MemoryThatLosesPower,
        keys: false,
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at).expect("small")
}

/// What was asked for and its outcome: none, if the connection ended before.
struct Asked {
    request: Request,
    value: u8,
    outcome: Option<Result<Vec<u8>, u32>>,
}

impl Asked {
    fn range(&self) -> Range<u64> {
        self.request.offset..self.request.offset + u64::from(self.request.length)
    }
}

/// One server, one point that fails, and the possible contents of the device.
struct Case {
    server: Server,
    store: Store,
    allowed: Allowed,
    rng: Rng,
    errno: Errno,
    structured: bool,
    guest: Option<Guest>,
}

impl Case {
    fn draw(&mut self, cookie: u64, room: &Range<u64>, most: u64) -> Asked {
        let start = room.start + self.rng.below(room.end - room.start - 1);
        let length = 1 + self.rng.below(most.min(room.end - start));
        let command = match self.rng.below(10) {
            0..3 => Command::WRITE,
            3..5 => Command::READ,
            5 => Command::WRITE_ZEROES,
            6..8 => Command::TRIM,
            8 if self.structured => Command::BLOCK_STATUS,
            8 => Command::CACHE,
            _ => Command::FLUSH,
        };
        let changes = matches!(
            command,
            Command::WRITE | Command::WRITE_ZEROES | Command::TRIM
        );
        let value = if command == Command::WRITE {
            u8::try_from(1 + self.rng.below(VALUES - 1)).unwrap()
        } else {
            0
        };
        let mut request = request(command, cookie, start, u32::try_from(length).unwrap());
        match command {
            Command::FLUSH => (request.offset, request.length) = (0, 0),
            _ if changes && self.rng.below(3) == 0 => request.flags = CommandFlags::FUA,
            _ => {}
        }
        Asked {
            request,
            value,
            outcome: None,
        }
    }

    /// Requests that may be carried out in any order.
    fn batch(&mut self, number: u64) -> Vec<Asked> {
        let size = self.server.cache.size();
        if number == 0 {
            return self.one_of_each(size / PARTS);
        }
        if number % 3 == 2 {
            // One of more than a slice; a READ of this size is a stream.
            let mut large = self.draw(0, &(0..size / 4), size);
            large.request.length = u32::try_from(size / 2).unwrap();
            if large.request.command == Command::FLUSH {
                large.request.command = Command::READ;
            }
            return vec![large];
        }
        let part = size / PARTS;
        (0..PARTS)
            .map(|i| {
                let most = if self.rng.below(2) == 0 { 9000 } else { part };
                self.draw(i, &(i * part..(i + 1) * part), most)
            })
            .collect()
    }

    /// Every command on a whole part of the device: so each case reaches every point that can be reached.
    fn one_of_each(&self, part: u64) -> Vec<Asked> {
        let status = match self.structured {
            true => Command::BLOCK_STATUS,
            false => Command::CACHE,
        };
        let commands = [
            Command::WRITE,
            Command::READ,
            Command::WRITE_ZEROES,
            Command::TRIM,
            status,
            Command::FLUSH,
        ];
        let ask = |(i, command): (u64, Command)| {
            let length = u32::try_from(part).unwrap();
            let mut request = request(command, i, i * part, length);
            match command {
                Command::FLUSH => (request.offset, request.length) = (0, 0),
                Command::WRITE => request.flags = CommandFlags::FUA,
                _ => {}
            }
            Asked {
                request,
                value: u8::from(command == Command::WRITE),
                outcome: None,
            }
        };
        (0..PARTS).zip(commands).map(ask).collect()
    }

    /// Sends a batch and notes what it may have changed.
    async fn round(&mut self, number: u64) {
        if self.guest.is_none() {
            self.guest = Guest::arrive(&self.server, self.structured).await;
        }
        let Some(mut guest) = self.guest.take() else {
            return;
        };
        let mut asked = self.batch(number);
        if guest.ask(&mut asked).await {
            self.guest = Some(guest);
        } else {
            guest.leave().await;
        }
        for one in &asked {
            self.note(one);
        }
    }

    fn note(&mut self, asked: &Asked) {
        let command = asked.request.command;
        let outcome = asked.outcome.as_ref();
        if let Some(Err(code)) = outcome {
            let told = NbdError::from_os(self.errno.0).code();
            // Whatever went wrong, EIO is right for what others made dirty again, and for what a failed sync may have
            // undone.
            assert!([told, EIO].contains(code), "{command:?} fails with {code}");
        }
        match (command, outcome) {
            (Command::READ, Some(Ok(data))) => {
                self.allowed.check(asked.request.offset, data, "a READ");
            }
            // A trim may leave its edges, or all of it, as they are.
            (Command::TRIM, outcome) => {
                let done = outcome.map(|_| false);
                self.allowed.changed(&asked.range(), 0, done);
            }
            (Command::WRITE | Command::WRITE_ZEROES, outcome) => {
                let done = outcome.map(Result::is_ok);
                self.allowed.changed(&asked.range(), asked.value, done);
            }
            _ => {}
        }
    }

    /// What an operator does between the requests.
    async fn operate(&mut self, context: &FaultContext) {
        let cache = Arc::clone(&self.server.cache);
        let size = if cache.size() == DEVICE {
            DEVICE - 5000
        } else {
            DEVICE
        };
        if soon(cache.resize(size)).await.is_ok() {
            self.allowed.resized(size);
        }
        // The next read asks the store for its data.
        _ = soon(cache.drop_clean()).await;
        let backend = cache.backend();
        if backend.capabilities().shift {
            if soon(cache.insert_range(4096, 8192)).await.is_ok() {
                self.allowed.inserted(index(4096), index(8192));
            }
            if soon(cache.collapse_range(8192, 4096)).await.is_ok() {
                self.allowed.collapsed(index(8192), index(4096));
            }
        } else {
            // Few file systems can do this, and asking is enough to reach the points.
            soon(backend.insert_range(context, 0, 4096))
                .await
                .expect_err("it can't");
            soon(backend.collapse_range(context, 0, 4096))
                .await
                .expect_err("it can't");
        }
    }

    /// Nothing fails any more: all data is there, can be made durable, and is.
    async fn end(mut self, image: &Path) {
        if let Some(guest) = self.guest.take() {
            guest.leave().await;
        }
        let mut client = self.server.client(false).await;
        let mut flushes = Vec::new();
        for _ in 0..2 {
            client.request(request(Command::FLUSH, 1, 0, 0)).await;
            flushes.push(client.reply().await.0);
        }
        // The first may report what a failed sync has lost of zeroes and direct writes; each loss is reported once.
        let told = [0, EIO, NbdError::from_os(self.errno.0).code()];
        assert!(told.contains(&flushes[0]) && flushes[1] == 0, "{flushes:?}");
        let size = self.server.cache.size();
        let now = client.read(2, 0, u32::try_from(size).unwrap()).await;
        self.allowed.check(0, &now, "afterwards");
        drop(client.socket);
        soon(client.session).await.expect("a session never panics");
        if self.store == Store::MemoryThatLosesPower {
            self.cut_power().await;
            let mut client = self.server.client(false).await;
            let kept = client.read(2, 0, u32::try_from(size).unwrap()).await;
            assert!(kept == now, "a power cut took what was flushed");
        }
        let stats = self.server.cache.stats();
        let unclean = [
            stats.dirty_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.unstable_pages,
        ];
        assert_eq!(unclean, [0; 4], "left over after a flush");
        let closed = soon(self.server.cache.close(PATIENCE)).await;
        assert!(
            matches!(closed, Ok(()) | Err(CloseError::Lost(_))),
            "{closed:?}"
        );
        if self.store == Store::File {
            let stored = std::fs::read(image).expect("the image");
            assert!(stored == now, "the file is not what was flushed");
        }
    }

    async fn cut_power(&self) {
        let export = self.server.context.exports.get("").expect("served");
        let power = export.power_cut.clone().expect("with a power cut");
        let options = PowerCutOptions::parse("keep=none").expect("options");
        assert!(power.switch_off(), "the power is on");
        let cut = self.server.cache.lose_power(async move |newest| {
            power.cut(options, newest).await;
            power.switch_on();
        });
        soon(cut).await;
    }
}

fn serving(export: Export, faults: Faults) -> Server {
    let cache = Arc::clone(&export.cache);
    let context = SessionContext {
        exports: Arc::new([export].into_iter().collect::<ExportTable>()),
        faults,
        timeouts: Timeouts::default(),
        connections: Arc::new(ConnectionTable::new()),
        shutdown: CancellationToken::new(),
    };
    Server {
        context: Arc::new(context),
        cache,
    }
}

/// Runs a load with the point armed; returns what the registry then says of it.
async fn play(
    store: Store,
    place: &str,
    trigger: Trigger,
    errno: Errno,
    seed: u64,
    structured: bool,
) -> Vec<PointListing> {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("image");
    let faults = Faults::new();
    let export = open(&settings(store, &image), &faults)
        .await
        .expect("an export");
    let mut case = Case {
        server: serving(export, faults.clone()),
        store,
        allowed: Allowed::new(),
        rng: Rng::new(seed),
        errno,
        structured,
        guest: None,
    };
    let context = faults.context(RequestKinds::RESIZE);
    for number in 0..BATCHES {
        let query = format!("{place} {} error {errno}", trigger.words(seed, number));
        faults.set_points(&query).expect("it allows that");
        case.round(number).await;
        if number % 2 == 1 {
            case.operate(&context).await;
        }
    }
    let disarm = format!("{place} disable");
    faults.set_points(&disarm).expect("it can be disarmed");
    let listed = faults.points(place).expect("it is listed");
    case.end(&image).await;
    listed
}

/// Plays cases with `errno` at `point`, over the first store where it fires; says whether it has fired.
fn sweep(point: &FaultPoint, errno: Errno, seed: u64) -> bool {
    let place = format!("file {} line {}", point.file, point.line);
    let is_first = point.errors.first() == Some(&errno);
    let cases_min = if is_first { CASES_MIN } else { 1 };
    for store in STORES {
        let mut fired = 0;
        let mut hits = 0;
        for case in 0..CASES_MAX {
            if (case >= 1 && hits == 0) || (case >= cases_min && fired > 0) {
                break;
            }
            let seed = seed.wrapping_add(case);
            let trigger = match case % 2 {
                0 => Trigger::Chance,
                // Each twice, at the first hit: with structured replies and without.
                _ => Trigger::After(case / 4),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            // This is shown if the test fails.
            println!("{store:?}, seed {seed}: {place} {trigger:?} error {errno}");
            let listed = runtime.block_on(play(store, &place, trigger, errno, seed, case % 4 != 1));
            hits += listed.iter().map(|point| point.hits).sum::<u64>();
            fired += listed.iter().map(|point| point.fires).sum::<u64>();
        }
        if fired > 0 {
            return true;
        }
    }
    false
}

/// The points that no other crate sweeps.
fn swept_here() -> impl Iterator<Item = &'static FaultPoint> {
    FaultPoint::all().filter(|point| {
        point.module == ASKED_OF_STORES || point.module.split("::").next() != Some(SWEPT_ELSEWHERE)
    })
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn every_point_with_every_error() {
    let first = number("WEIR_POINTS_SEED").unwrap_or(0);
    let seeds = number("WEIR_POINTS_SEEDS").unwrap_or(1);
    let mut silent = Vec::new();
    for point in swept_here().filter(|point| point.class != AT_OPEN) {
        assert_ne!(
            point.kind,
            PointKind::Race,
            "{point}: nothing here loses it on purpose"
        );
        for errno in point.errors {
            let mut fired = false;
            for run in 0..seeds {
                fired |= sweep(point, *errno, first.wrapping_add(run));
            }
            if !fired {
                silent.push(format!("{point} ({}) with {errno}", point.class));
            }
        }
    }
    assert!(silent.is_empty(), "never come by: {silent:#?}");
}

#[tokio::test]
async fn a_store_that_can_not_be_opened_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(Store::File, &folder.path().join("image"));
    let points = swept_here().filter(|point| point.class == AT_OPEN);
    for (point, errno) in points.flat_map(|point| point.errors.iter().map(move |e| (point, e))) {
        let faults = Faults::new();
        let query = format!(
            "file {} line {} oneshot error {errno}",
            point.file, point.line
        );
        faults.set_points(&query).expect("it allows that");
        let opened = open(&settings, &faults).await;
        assert!(
            matches!(
                opened,
                Err(OpenExportError::Injected { errno: injected, .. }) if injected == *errno
            ),
            "{errno}: {opened:?}"
        );
        let export = open(&settings, &faults).await.expect("it was said once");
        export
            .cache
            .close(PATIENCE)
            .await
            .expect("there is nothing in it");
    }
}
