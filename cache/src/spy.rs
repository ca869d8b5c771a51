//! A store that remembers what it was asked. It is put under a filter to check that nothing stops there.
//!
//! For tests alone, those of other crates too (feature `testing`).

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use weir_faults::Errno;

use crate::backend::{
    Backend, BackendExtent, BackendFuture, Capabilities, ExtentKind, Geometry, ZeroMode,
};
use crate::frame::{FrameBuf, FramePool, FrameRefs, PAGE_BYTES};

/// The size that a spy says it has, whatever is asked of it.
pub const SPY_BYTES: u64 = 64 * PAGE_BYTES;
/// What a spy fills frames with.
const FILLING: u8 = 0x5a;

/// Every method of [`Backend`].
pub const METHODS: [&str; 14] = [
    "geometry",
    "capabilities",
    "read",
    "write",
    "sync",
    "cover",
    "write_zeroes",
    "discard",
    "extents",
    "resize",
    "insert_range",
    "collapse_range",
    "submit",
    "close",
];

/// A store of no content.
#[derive(Debug)]
pub struct Spy {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    asked: Vec<(&'static str, Vec<u64>)>,
    can: Capabilities,
    /// What fails, and with what.
    failing: Option<(Failing, Errno)>,
}

/// Which methods of a spy fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// All that can fail.
    All,
    /// This one.
    Only(&'static str),
}

impl Default for Spy {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                asked: Vec::new(),
                can: EVERYTHING,
                failing: None,
            }),
        }
    }
}

/// A spy can do all there is.
const EVERYTHING: Capabilities = Capabilities {
    discard: true,
    zero_keep: true,
    zero_punch: true,
    resize: true,
    extents: true,
    shift: true,
};

/// Of each ability alone.
fn abilities() -> [Capabilities; 6] {
    let none = Capabilities::default();
    [
        Capabilities {
            discard: true,
            ..none
        },
        Capabilities {
            zero_keep: true,
            ..none
        },
        Capabilities {
            zero_punch: true,
            ..none
        },
        Capabilities {
            resize: true,
            ..none
        },
        Capabilities {
            extents: true,
            ..none
        },
        Capabilities {
            shift: true,
            ..none
        },
    ]
}

impl Spy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn note(&self, method: &'static str, numbers: &[u64]) {
        self.state().asked.push((method, numbers.to_vec()));
    }

    fn answer(
        &self,
        method: &'static str,
        numbers: &[u64],
    ) -> BackendFuture<'_, Result<(), Errno>> {
        self.note(method, numbers);
        let answer = match self.state().failing {
            Some((which, errno)) if [Failing::All, Failing::Only(method)].contains(&which) => {
                Err(errno)
            }
            _ => Ok(()),
        };
        Box::pin(async move { answer })
    }

    /// These methods fail with `errno` from now on.
    pub fn fail(&self, which: Failing, errno: Errno) {
        self.state().failing = Some((which, errno));
    }

    /// What it was asked, with the numbers, oldest first; the spy then forgets it.
    pub fn take_asked(&self) -> Vec<(&'static str, Vec<u64>)> {
        std::mem::take(&mut self.state().asked)
    }
}

impl Backend for Spy {
    fn geometry(&self) -> Geometry {
        self.note("geometry", &[]);
        Geometry {
            size: SPY_BYTES,
            allocation_unit: 8192,
            rotational: true,
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.note("capabilities", &[]);
        self.state().can
    }

    fn read(
        &self,
        offset: u64,
        mut buffer: FrameBuf,
    ) -> BackendFuture<'_, (FrameBuf, Result<(), Errno>)> {
        let answer = self.answer("read", &[offset, buffer.len() as u64]);
        for page in 0..buffer.len() {
            buffer.page_mut(page).fill(FILLING);
        }
        Box::pin(async move { (buffer, answer.await) })
    }

    fn write(&self, offset: u64, data: FrameRefs) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("write", &[offset, data.bytes() as u64])
    }

    fn sync(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("sync", &[])
    }

    fn cover(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("cover", &[range.start, range.end])
    }

    fn write_zeroes(
        &self,
        range: Range<u64>,
        mode: ZeroMode,
    ) -> BackendFuture<'_, Result<(), Errno>> {
        let keeps = u64::from(mode == ZeroMode::KeepAllocated);
        self.answer("write_zeroes", &[range.start, range.end, keeps])
    }

    fn discard(&self, range: Range<u64>) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("discard", &[range.start, range.end])
    }

    fn extents(
        &self,
        range: Range<u64>,
        most: usize,
    ) -> BackendFuture<'_, Result<Vec<BackendExtent>, Errno>> {
        let answer = self.answer("extents", &[range.start, range.end, most as u64]);
        let extent = BackendExtent {
            range,
            kind: ExtentKind::Zero,
        };
        Box::pin(async move { answer.await.map(|()| vec![extent]) })
    }

    fn resize(&self, size: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("resize", &[size])
    }

    fn insert_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("insert_range", &[offset, length])
    }

    fn collapse_range(&self, offset: u64, length: u64) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("collapse_range", &[offset, length])
    }

    fn submit(&self) {
        self.note("submit", &[]);
    }

    fn close(&self) -> BackendFuture<'_, Result<(), Errno>> {
        self.answer("close", &[])
    }
}

/// One page to be read into, or written.
fn page() -> FrameBuf {
    let pool = FramePool::new(1).expect("address space");
    let mut buffer = FrameBuf::new(pool);
    assert!(buffer.grow_to(1), "nobody else uses the pool");
    buffer.page_mut(0).fill(1);
    buffer
}

/// Asks `top` everything that can be asked, each time about another range, and returns each outcome.
pub async fn ask_everything(top: &dyn Backend) -> Vec<(&'static str, Result<(), Errno>)> {
    let pages = |from: u64, to: u64| from * PAGE_BYTES..to * PAGE_BYTES;
    let write = page().freeze(PAGE_BYTES.try_into().expect("a page"));
    let (buffer, read) = top.read(PAGE_BYTES, page()).await;
    if read.is_ok() {
        assert!(
            buffer.page(0).iter().all(|byte| *byte == FILLING),
            "what was read got lost on its way"
        );
    }
    let mut outcomes = vec![
        ("read", read),
        ("write", top.write(2 * PAGE_BYTES, write).await),
        (
            "write_zeroes",
            top.write_zeroes(pages(4, 8), ZeroMode::KeepAllocated).await,
        ),
        ("discard", top.discard(pages(8, 16)).await),
        ("extents", top.extents(pages(16, 32), 7).await.map(drop)),
        ("sync", top.sync().await),
        ("cover", top.cover(0..u64::MAX).await),
        (
            "insert_range",
            top.insert_range(PAGE_BYTES, 2 * PAGE_BYTES).await,
        ),
        (
            "collapse_range",
            top.collapse_range(3 * PAGE_BYTES, PAGE_BYTES).await,
        ),
        ("resize", top.resize(SPY_BYTES / 2).await),
    ];
    top.submit();
    outcomes.push(("close", top.close().await));
    outcomes
}

/// The methods that no layer can answer before the store has answered. Others may fail later, in [`Backend::cover`].
const ANSWERED_BELOW: [&str; 7] = [
    "read",
    "extents",
    "cover",
    "insert_range",
    "collapse_range",
    "resize",
    "close",
];

/// Puts a spy under the layer that `layer` makes. Checks that every method arrives there with what was asked, and that
/// each ability and the store's errors come up. A layer may ask for more, and later: what it was asked must have
/// arrived by the time that all is covered and closed.
///
/// # Panics
/// If something stops at the layer: the message says what.
pub async fn assert_everything_arrives<B: Backend>(layer: impl Fn(Arc<dyn Backend>) -> B) {
    let spy = Arc::new(Spy::default());
    let top = layer(Arc::clone(&spy) as _);
    assert_eq!(top.geometry(), Backend::geometry(&*spy), "the geometry");
    for can in abilities() {
        spy.state().can = can;
        let told = top.capabilities();
        assert_eq!(told, can, "an ability got lost or came from nowhere");
    }
    spy.state().can = EVERYTHING;
    for (method, outcome) in ask_everything(&top).await {
        assert_eq!(outcome, Ok(()), "{method}");
    }
    let arrived = spy.take_asked();
    let direct = Spy::default();
    ask_everything(&direct).await;
    for asked in direct.take_asked() {
        assert!(
            arrived.contains(&asked),
            "{asked:?} didn't arrive, but {arrived:?}"
        );
    }

    for method in ANSWERED_BELOW {
        let spy = Arc::new(Spy::default());
        spy.fail(Failing::Only(method), Errno::EDQUOT);
        let outcomes = ask_everything(&layer(spy)).await;
        let expected = (method, Err(Errno::EDQUOT));
        assert!(
            outcomes.contains(&expected),
            "an error of {method} got lost: {outcomes:?}"
        );
    }
}
