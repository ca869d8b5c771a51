//! What a run does. All of it is decided beforehand, so a step can be taken out without changing the rest.

use std::ops::Range;
use std::time::Duration;

use weir_cache::{CacheMode, CacheOptions, MIN_CACHE_BYTES, PAGE_BYTES, ZeroMode};
use weir_faults::rng::Rng;
use weir_faults::{Keep, PowerCutOptions};

use super::content::CELL;

/// A larger cache, into which the whole device fits.
const LARGE_CACHE_BYTES: u64 = 4 << 20;
/// The devices are a little larger than the smallest cache.
const DEVICE_BYTES: u64 = 5 << 18;
/// Some of the steps go to so many places, so that they meet.
const HOT_PLACES: u64 = 3;
const HOT_BYTES: u64 = 12 * PAGE_BYTES;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of the plan, and of its faults.
    pub seed: u64,
    /// How large the device is to begin with: never whole pages, seldom whole sectors.
    pub size: u64,
    /// Of the cache.
    pub cache_bytes: u64,
    /// Of the cache.
    pub mode: CacheMode,
    /// Of the cache.
    pub direct_threshold: Option<u64>,
    /// One after the other, each ends with a power cut except the last.
    pub phases: Vec<Phase>,
}

/// From one power cut to the next.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What goes wrong: rules, and queries for points.
    pub rules: Vec<String>,
    /// The same.
    pub points: Vec<String>,
    /// The steps of each client, one after the other; the clients run at the same time.
    pub clients: Vec<Vec<Step>>,
    /// How it ends, unless it ends without a cut.
    pub cut: Option<Cut>,
}

/// A power cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The time after the beginning of the phase.
    pub after: Duration,
    /// What survives.
    pub options: PowerCutOptions,
    /// Injected delays end, as the admin port ends them; otherwise they run out.
    pub let_go: bool,
}

/// What a client does and then waits for, after a pause.
#[derive(Clone, Debug)]
pub struct Step {
    /// The pause before it.
    pub pause: Duration,
    /// The request.
    pub action: Action,
    /// The client gives up on it after this time, and goes on.
    pub patience: Option<Duration>,
}

/// A request.
#[derive(Clone, Debug)]
pub enum Action {
    /// A read, past the cache or not.
    Read {
        /// Of the device, in bytes.
        range: Range<u64>,
        /// Past the cache whatever its size.
        direct: bool,
    },
    /// A write, past the cache or not.
    Write {
        /// Of the device, in bytes.
        range: Range<u64>,
        /// Past the cache whatever its size.
        direct: bool,
        /// Durable when it is answered.
        fua: bool,
    },
    /// NBD_CMD_WRITE_ZEROES.
    Zero {
        /// Of the device, in bytes.
        range: Range<u64>,
        /// May it become a hole?
        mode: ZeroMode,
        /// Durable when it is answered.
        fua: bool,
    },
    /// NBD_CMD_TRIM.
    Trim {
        /// Of the device, in bytes.
        range: Range<u64>,
        /// Durable when it is answered.
        fua: bool,
    },
    /// NBD_CMD_CACHE.
    Prefetch(Range<u64>),
    /// NBD_CMD_FLUSH.
    Flush,
    /// The operator drops what is clean.
    DropClean,
    /// The operator resizes the device.
    Resize(u64),
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::of(seed, "crash", 0);
        let size = DEVICE_BYTES + (1 + rng.below(PAGE_BYTES / CELL - 1)) * CELL;
        let phases = 2 + rng.below(2);
        let resizes = rng.below(4) == 0;
        let maker = Maker {
            size,
            hot: (0..HOT_PLACES)
                .map(|_| rng.below(size - HOT_BYTES))
                .collect(),
            resizes,
        };
        Self {
            seed,
            size,
            cache_bytes: if rng.below(3) == 0 {
                LARGE_CACHE_BYTES
            } else {
                MIN_CACHE_BYTES
            },
            mode: match rng.below(10) {
                0 => CacheMode::Writethrough,
                1 => CacheMode::None,
                _ => CacheMode::Writeback,
            },
            direct_threshold: (rng.below(4) == 0).then_some(64 << 10),
            phases: (0..phases)
                .map(|phase| {
                    let mut rng = Rng::of(seed, "crash phase", phase);
                    maker.phase(&mut rng, phase + 1 == phases)
                })
                .collect(),
        }
    }

    /// How the cache is opened.
    #[must_use]
    pub fn cache_options(&self) -> CacheOptions {
        CacheOptions {
            cache_bytes: self.cache_bytes,
            mode: self.mode,
            direct_threshold: self.direct_threshold,
            ..CacheOptions::default()
        }
    }

    /// The largest size that the device ever has.
    #[must_use]
    pub fn size_max(&self) -> u64 {
        let steps = self
            .phases
            .iter()
            .flat_map(|phase| phase.clients.iter().flatten());
        let sizes = steps.filter_map(|step| match step.action {
            Action::Resize(size) => Some(size),
            _ => None,
        });
        sizes.chain([self.size]).max().expect("one at least")
    }

    /// How many steps it has.
    #[must_use]
    pub fn steps(&self) -> usize {
        let clients = self.phases.iter().flat_map(|phase| &phase.clients);
        clients.map(Vec::len).sum()
    }
}

struct Maker {
    size: u64,
    hot: Vec<u64>,
    resizes: bool,
}

impl Maker {
    fn phase(&self, rng: &mut Rng, last: bool) -> Phase {
        let (rules, points) = faults(rng);
        let clients = 2 + rng.below(3);
        let mut clients: Vec<Vec<Step>> = (0..clients)
            .map(|_| {
                let steps = 4 + rng.below(10);
                (0..steps).map(|_| self.step(rng)).collect()
            })
            .collect();
        if self.resizes {
            // There is one operator, so there is always one size that the device is to have.
            let steps = 1 + rng.below(3);
            clients.push((0..steps).map(|_| self.resize(rng)).collect());
        }
        let cut = Cut {
            after: Duration::from_micros(rng.below(60_000)),
            options: options(rng),
            let_go: rng.below(2) == 0,
        };
        Phase {
            rules,
            points,
            clients,
            cut: (!last || rng.below(2) == 0).then_some(cut),
        }
    }

    fn step(&self, rng: &mut Rng) -> Step {
        let fua = rng.below(5) == 0;
        let direct = rng.below(8) == 0;
        let range = self.range(rng);
        let action = match rng.below(100) {
            0..22 => Action::Read { range, direct },
            22..62 => Action::Write { range, direct, fua },
            62..70 => Action::Zero {
                range,
                mode: ZeroMode::MayPunch,
                fua,
            },
            70..74 => Action::Zero {
                range,
                mode: ZeroMode::KeepAllocated,
                fua,
            },
            74..82 => Action::Trim { range, fua },
            82..86 => Action::Prefetch(range),
            86..98 => Action::Flush,
            _ => Action::DropClean,
        };
        Step {
            pause: match rng.below(3) {
                0 => Duration::from_micros(rng.below(4000)),
                _ => Duration::ZERO,
            },
            action,
            patience: (rng.below(10) == 0).then(|| Duration::from_micros(rng.below(5000))),
        }
    }

    fn resize(&self, rng: &mut Rng) -> Step {
        let most = self.size + self.size / 8;
        let size = if rng.below(2) == 0 {
            // Close to where the other clients work.
            let hot = rng.below(HOT_PLACES);
            self.hot[usize::try_from(hot).expect("few")] + rng.below(HOT_BYTES)
        } else {
            rng.below(most)
        };
        Step {
            pause: Duration::from_micros(rng.below(20_000)),
            action: Action::Resize((size / CELL * CELL).max(PAGE_BYTES)),
            patience: None,
        }
    }

    /// A range inside the device at its first size, seldom of whole pages.
    fn range(&self, rng: &mut Rng) -> Range<u64> {
        let start = if rng.below(5) == 0 {
            rng.below(self.size)
        } else {
            let place = rng.below(HOT_PLACES);
            self.hot[usize::try_from(place).expect("few")] + rng.below(HOT_BYTES)
        };
        let unit = match rng.below(4) {
            0 => PAGE_BYTES,
            1 => 512,
            _ => CELL,
        };
        let length = match rng.below(20) {
            0 => rng.below(600 << 10),
            1..4 => rng.below(40 * PAGE_BYTES),
            4..12 => rng.below(8 * PAGE_BYTES),
            _ => rng.below(32 * CELL),
        };
        let start = start / unit * unit;
        let end = (start + length.next_multiple_of(unit).max(unit)).min(self.size);
        // The device's own end, now and then.
        let end = if rng.below(20) == 0 && self.size - start < (300 << 10) {
            self.size
        } else {
            end
        };
        start..end
    }
}

fn options(rng: &mut Rng) -> PowerCutOptions {
    PowerCutOptions {
        keep: match rng.below(3) {
            0 => Keep::None,
            1 => Keep::All,
            _ => Keep::Random,
        },
        tear: if rng.below(3) == 0 { PAGE_BYTES } else { 512 },
        seed: rng.next_u64(),
    }
}

/// Delays nearly always, because otherwise nothing would meet; errors in half of the phases.
fn faults(rng: &mut Rng) -> (Vec<String>, Vec<String>) {
    let (mut rules, mut points) = (Vec::new(), Vec::new());
    let mut delay = |rng: &mut Rng, what: &str| {
        let (chance, most, seed) = (rng.below(100), 1 + rng.below(6000), rng.next_u64());
        if chance > 0 {
            rules.push(format!(
                "{what} at=backend p={chance}% delay=0us..{most}us seed={seed}"
            ));
        }
    };
    delay(rng, "any");
    delay(rng, "flush");
    for class in [
        "cache:writeback:complete",
        "cache:sync:complete",
        "cache:discard:complete",
        "cache:flush:snapshot",
        "cache:write:merge",
        "store:write",
        "backend:read",
        "store:sync",
        "store:discard",
    ] {
        if rng.below(3) == 0 {
            let (chance, time, seed) = (1 + rng.below(60), 1 + rng.below(3000), rng.next_u64());
            points.push(format!(
                "class {class} probability {chance}% seed {seed} delay {time}us"
            ));
        }
    }
    if rng.below(2) == 0 {
        for what in ["read", "write", "zero", "trim", "flush"] {
            if rng.below(2) == 0 {
                let (chance, seed) = (1 + rng.below(25), rng.next_u64());
                let after = if rng.below(3) == 0 { " after" } else { "" };
                rules.push(format!(
                    "{what} at=backend p={chance}% error=EIO{after} seed={seed}"
                ));
            }
        }
        for class in [
            "store:sync",
            "store:write",
            "cache:writeback:complete",
            "cache:insert",
        ] {
            if rng.below(6) == 0 {
                let (chance, seed) = (1 + rng.below(15), rng.next_u64());
                points.push(format!(
                    "class {class} probability {chance}% seed {seed} error EIO"
                ));
            }
        }
    }
    (rules, points)
}
