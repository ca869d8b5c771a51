//! Plays a plan.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use weir::backend::power_cut::PowerCutBackend;
use weir::backend::rules::RuledBackend;
use weir_cache::{CacheMode, CloseError, Filter as _, FrameBuf, FramePool, PAGE_BYTES, PageCache};
use weir_faults::{Device, Faults, Keep, PowerCutOptions, RequestKinds};

use super::client::{World, request_context, work};
use super::content::{CELL, Version, ZERO, versions};
use super::disk::RecordedDisk;
use super::forget::ForgetfulDisk;
use super::history::{Binding, History};
use super::plan::{Action, Cut, Phase, Plan};
use super::store::LastingStore;

/// The export's name.
const EXPORT: &str = "";
/// In paused time: a phase that takes longer waits for something that never comes.
const PHASE_LIMIT: Duration = Duration::from_secs(600);
/// How often injected waits are ended during a cut, as the admin port does.
const LET_GO_INTERVAL: Duration = Duration::from_millis(5);
/// The time for abandoned work to end, on a device without faults.
const SETTLING: Duration = Duration::from_millis(100);
/// Pages of one read of the whole disk.
const CHUNK_PAGES: u32 = 64;

/// In real time: a run takes some milliseconds, and a run that takes this long has stopped or loops.
const HANG_LIMIT: Duration = Duration::from_secs(60);

/// How a run failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// A promise was broken.
    Broken(String),
    /// It doesn't end in real time: the thread goes on for ever.
    Hangs,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(error) => f.write_str(error),
            Self::Hangs => write!(f, "it hangs: no end after {HANG_LIMIT:?}"),
        }
    }
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of everything that happened: two runs of one plan have the same.
    pub digest: u64,
    /// Everything that happened.
    pub trace: Vec<String>,
}

/// Plays `plan` on a thread of its own.
///
/// # Errors
/// What went wrong, a panic included.
pub fn run(plan: &Plan) -> Result<Outcome, Failure> {
    // It needs a thread of its own, so that the per-thread state of lock-free epochs begins anew with each run. The
    // thread can also be left alone, since a run that loops can't be stopped.
    let (report, reported) = mpsc::channel();
    let plan = plan.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let outcome = runtime.block_on(play(&plan));
        drop(runtime);
        report.send(outcome).expect("someone waits");
    });
    let outcome = match reported.recv_timeout(HANG_LIMIT) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => return Err(Failure::Hangs),
        Err(RecvTimeoutError::Disconnected) => Err("a panic; it is on standard error".to_owned()),
    };
    drop(thread.join());
    outcome.map_err(Failure::Broken)
}

/// The device under test.
struct Bench {
    world: Arc<World>,
    faults: Faults,
    device: Device,
    power: Arc<PowerCutBackend>,
    disk: Arc<RecordedDisk>,
    /// For reading the disk.
    pool: Arc<FramePool>,
    size_max: u64,
}

async fn play(plan: &Plan) -> Result<Outcome, String> {
    let bench = Arc::new(Bench::open(plan));
    for (number, phase) in plan.phases.iter().enumerate() {
        let played = timeout(PHASE_LIMIT, bench.phase(phase)).await;
        let place = |error: String| {
            format!(
                "phase {number}, which ends with {:?}: {error}",
                phase.cut.map(|cut| cut.options.to_string())
            )
        };
        played
            .unwrap_or_else(|_| {
                Err(format!(
                    "it takes longer than {PHASE_LIMIT:?}: {:?}",
                    bench.world.cache.stats()
                ))
            })
            .map_err(place)?;
    }
    let cache = &bench.world.cache;
    match cache.close(PHASE_LIMIT).await {
        // Here, clients have no connections on which they would have been told.
        Err(CloseError::Lost(_)) if bench.world.history().may_have_lost() => {}
        closed => closed.map_err(|error| error.to_string())?,
    }
    let trace = std::mem::take(&mut *bench.world.trace.lock().expect("not poisoned"));
    let mut hasher = DefaultHasher::new();
    trace.hash(&mut hasher);
    Ok(Outcome {
        digest: hasher.finish(),
        trace,
    })
}

impl Bench {
    /// In the server's order, with the recorder in between.
    fn open(plan: &Plan) -> Self {
        let faults = Faults::new();
        let device = faults.add_device(EXPORT);
        let size_max = plan.size_max();
        let cells = usize::try_from(size_max / CELL).expect("a small device");
        let context = faults.context(RequestKinds::ALL).on(&device);
        let store = Arc::new(LastingStore::new(plan.size, plan.seed, context.clone()));
        let power = Arc::new(PowerCutBackend::new(store, context).expect("address space"));
        let disk = Arc::new(RecordedDisk::new(Arc::clone(&power), cells));
        let ruled = RuledBackend::new(
            Arc::clone(&disk) as _,
            Some(Arc::clone(&power)),
            EXPORT,
            &faults,
        );
        let history = Arc::new(Mutex::new(History::new(cells)));
        let backend = Arc::new(ForgetfulDisk::new(
            Arc::new(ruled.expect("address space")),
            Arc::clone(&disk),
            Arc::clone(&history),
            plan.seed,
        ));
        let cache = PageCache::open(backend, &plan.cache_options(), &faults).expect("a cache");
        let mut steps = plan
            .phases
            .iter()
            .flat_map(|phase| phase.clients.iter().flatten());
        let resizes = steps.any(|step| matches!(step.action, Action::Resize(_)));
        let world = World {
            cache,
            context: request_context(&faults).on(&device),
            mode: plan.mode,
            resizes,
            size_max,
            history,
            failure: Mutex::default(),
            trace: Mutex::default(),
        };
        Self {
            world: Arc::new(world),
            faults,
            device,
            power,
            disk,
            pool: FramePool::new(CHUNK_PAGES).expect("address space"),
            size_max,
        }
    }

    async fn phase(self: &Arc<Self>, phase: &Phase) -> Result<(), String> {
        for rule in &phase.rules {
            self.faults
                .add_rule(rule)
                .map_err(|error| format!("{rule}: {error}"))?;
        }
        for query in &phase.points {
            self.faults
                .set_points(query)
                .map_err(|error| format!("{query}: {error}"))?;
        }
        let mut clients = JoinSet::new();
        let mut operators = JoinSet::new();
        for (client, steps) in phase.clients.iter().enumerate() {
            let work = work(Arc::clone(&self.world), client, steps.clone());
            if steps
                .iter()
                .any(|step| matches!(step.action, Action::Resize(_)))
            {
                operators.spawn(work);
            } else {
                clients.spawn(work);
            }
        }
        match phase.cut {
            None => {
                join(&mut clients).await?;
                join(&mut operators).await?;
                self.settle().await?;
            }
            Some(cut) => {
                sleep(cut.after).await;
                self.cut(cut, &mut clients, &mut operators).await?;
            }
        }
        self.failure()
    }

    fn failure(&self) -> Result<(), String> {
        let mut failure = self.world.failure.lock().expect("not poisoned");
        failure.take().map_or(Ok(()), Err)
    }

    fn end_faults(&self) {
        self.faults.clear_rules();
        self.faults.reset_points();
    }

    /// Cuts the power with the server's steps in the server's order, and checks what is left.
    async fn cut(
        self: &Arc<Self>,
        cut: Cut,
        clients: &mut JoinSet<()>,
        operators: &mut JoinSet<()>,
    ) -> Result<(), String> {
        self.switch_off();
        self.world.note(format!("cut: {}", cut.options));
        clients.abort_all();
        join(clients).await?;
        let lost = self.lose(cut.options);
        tokio::select! {
            biased;
            lost = lost => lost?,
            never = self.let_go(), if cut.let_go => match never {},
        }
        // A resize that waited for the cut goes on after it.
        join(operators).await?;
        self.failure()?;
        let left = self.seen().await?;
        let binding = match cut.options.keep {
            Keep::All => Binding::Answered,
            Keep::None | Keep::Random => Binding::Covered,
        };
        self.check(&left, binding)?;
        self.world.history().restart(&left);
        if cut.options.seed.is_multiple_of(4) {
            self.cut_again(&left).await?;
        }
        Ok(())
    }

    fn switch_off(&self) {
        assert!(self.power.switch_off(), "it was off already");
        self.disk.power_fails();
    }

    /// What a cut has left is durable: another one changes nothing.
    async fn cut_again(self: &Arc<Self>, left: &[Version]) -> Result<(), String> {
        self.switch_off();
        self.lose(PowerCutOptions {
            keep: Keep::None,
            tear: 512,
            seed: 0,
        })
        .await?;
        if self.seen().await? != left {
            return Err(
                "a second cut, with nothing between, has changed what the first one left"
                    .to_owned(),
            );
        }
        Ok(())
    }

    async fn lose(self: &Arc<Self>, options: PowerCutOptions) -> Result<(), String> {
        let bench = Arc::clone(self);
        self.world
            .cache
            .lose_power(async move |newest| {
                bench.disk.record_newest(&newest);
                bench.power.cut(options, newest).await;
                bench.power.switch_on();
                // This is checked while the device is still: afterwards the cache may go on.
                bench.end_faults();
                let left = bench.on_disk().await?;
                bench.disk.check_cut(options, &left)?;
                bench.disk.restart(&left);
                Ok(())
            })
            .await
    }

    /// Ends injected waits, again and again.
    async fn let_go(&self) -> std::convert::Infallible {
        loop {
            self.device.interrupt();
            sleep(LET_GO_INTERVAL).await;
        }
    }

    /// After a phase without a cut: everything is as the clients were told, and a FLUSH brings all of it to the disk.
    async fn settle(&self) -> Result<(), String> {
        self.end_faults();
        sleep(SETTLING).await;
        let cache = &self.world.cache;
        cache
            .flush(&self.world.context)
            .await
            .map_err(|errno| format!("a flush fails on a device without faults: {errno}"))?;
        let stats = cache.stats();
        if (
            stats.dirty_pages,
            stats.in_flight_pages,
            stats.held_pages,
            stats.unstable_pages,
        ) != (0, 0, 0, 0)
        {
            return Err(format!("after a flush not all is clean: {stats:?}"));
        }
        let left = self.seen().await?;
        self.check(&left, Binding::Answered)?;
        let durable = self.disk.durable();
        self.check(&durable, Binding::Answered)
            .map_err(|error| format!("after a flush, and not durable: {error}"))?;
        let history = self.world.history();
        // The cache may have read before what the disk has forgotten and no other copy exists of.
        let differs =
            |cell: &usize| left[*cell] != durable[*cell] && !history.may_be_forgotten(*cell);
        match (0..left.len()).find(differs) {
            None => Ok(()),
            Some(cell) => Err(format!(
                "after a flush byte {} is version {}, and durably {}",
                cell as u64 * CELL,
                left[cell],
                durable[cell]
            )),
        }
    }

    /// What clients see. Bytes past the end of the device count as zeroes, which they are when the device grows.
    async fn seen(&self) -> Result<Vec<Version>, String> {
        let size = self.world.cache.size();
        let direct = self.world.mode == CacheMode::None;
        let bytes = self.world.read(&(0..size), direct).await;
        let bytes =
            bytes.map_err(|errno| format!("a read fails on a device without faults: {errno}"))?;
        Ok(self.image(&bytes))
    }

    /// What the disk holds, past the cache.
    async fn on_disk(&self) -> Result<Vec<Version>, String> {
        let size = self.power.geometry().size;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let mut buffer = FrameBuf::new(Arc::clone(&self.pool));
            let chunk = usize::try_from(CHUNK_PAGES).expect("few");
            assert!(buffer.grow_to(chunk), "the pool is its own");
            let (buffer, outcome) = self.power.read(bytes.len() as u64, buffer).await;
            outcome.map_err(|errno| format!("the disk can't be read: {errno}"))?;
            (0..chunk).for_each(|page| bytes.extend_from_slice(buffer.page(page)));
        }
        bytes.truncate(usize::try_from(size).expect("a small device"));
        Ok(self.image(&bytes))
    }

    fn image(&self, bytes: &[u8]) -> Vec<Version> {
        let mut image: Vec<_> = versions(0, bytes).map(|(_, version)| version).collect();
        image.resize(
            usize::try_from(self.size_max / CELL).expect("a small device"),
            ZERO,
        );
        image
    }

    fn check(&self, left: &[Version], binding: Binding) -> Result<(), String> {
        let size = self.world.cache.size();
        let history = self.world.history();
        let inside = usize::try_from(size / CELL).expect("a small device");
        for (cell, version) in left[..inside].iter().enumerate() {
            history.check(cell, *version, binding).map_err(|error| {
                let at = cell as u64 * CELL;
                let (page, sector) = (at / PAGE_BYTES, at / 512);
                format!("byte {at} (page {page}, sector {sector}) holds {error}")
            })?;
        }
        Ok(())
    }
}

/// Waits for all tasks; aborted ones count as done.
async fn join(tasks: &mut JoinSet<()>) -> Result<(), String> {
    while let Some(outcome) = tasks.join_next().await {
        if outcome.is_err_and(|error| error.is_panic()) {
            return Err("a client panicked; it is on standard error".to_owned());
        }
    }
    Ok(())
}
