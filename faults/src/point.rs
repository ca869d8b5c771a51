//! Points in code where something may be made to go wrong.
//!
//! Each call site owns one static [`FaultPoint`], put into a slice by the linker, so that every point can be listed
//! before it was ever hit. The static is identity only. Counters and what is armed belong to a registry
//! ([`crate::Faults`]), one per server instance. The request's [`FaultContext`] brings the registry to the point, so
//! two servers in one process share no faults.
//!
//! A disarmed point costs one relaxed load and a branch never taken; all else is out of line. Nothing looks at the
//! slice before a point is armed or listed.
//!
//! | macro | returns | may |
//! | --- | --- | --- |
//! | [`fault_point!`](crate::fault_point) | `Result<(), Errno>` | fail |
//! | [`pause_point!`](crate::pause_point) | a future of `Result<(), Errno>` | fail, delay, pause |
//! | [`race_fault!`](crate::race_fault) | `bool` | pretend that the race was lost |
//! | [`error_injectable`](crate::error_injectable) | | make the function fail (an `async fn` also delay and pause) |

use std::fmt;
use std::sync::OnceLock;

use linkme::distributed_slice;
use serde::{Deserialize, Serialize};

use crate::errno::Errno;

mod context;
pub use context::{ArmedPoints, FaultContext};

/// Every point of the program, in the linker's order.
#[doc(hidden)]
#[distributed_slice]
pub static POINTS: [FaultPoint];

/// What a point does when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PointKind {
    /// An error in the middle of a function.
    Fault,
    /// A race that is said to be lost.
    Race,
    /// A function that returns an error before its body has changed anything.
    Function,
}

impl PointKind {
    /// Every kind with its name in the control language.
    pub const NAMED: &'static [(&'static str, Self)] = &[
        ("fault", Self::Fault),
        ("race", Self::Race),
        ("function", Self::Function),
    ];

    /// The kind's name in the control language.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMED[self as usize].0
    }
}

impl fmt::Display for PointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The identity of one call site; made by the macros only.
#[derive(Debug)]
pub struct FaultPoint {
    /// The source file, relative to the workspace, as the compiler names it.
    pub file: &'static str,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1: two points may share a line.
    pub column: u32,
    /// The module's path, such as `weir_cache::read`.
    pub module: &'static str,
    /// The class, words separated by `:`, such as `cache:insert`.
    pub class: &'static str,
    /// What happens when it fires.
    pub kind: PointKind,
    /// The errors that it may be made to return, the default first. Empty for a race.
    pub errors: &'static [Errno],
    /// Whether it can delay and pause: whether it is awaited.
    pub can_wait: bool,
    #[doc(hidden)]
    pub item_path: fn() -> &'static str,
}

/// The name of the static inside the function, which is where the item's path ends.
const RECORD_SUFFIX: &str = "::WEIR_FAULT_POINT";

impl FaultPoint {
    /// Every point of the program, by file, line and column: the order in which `index` counts.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        sorted().iter().map(|position| &POINTS[*position])
    }

    /// The path of the function around the point, such as `weir_cache::read::PageCache::fill`.
    #[must_use]
    pub fn path(&self) -> &'static str {
        let item = (self.item_path)();
        let end = item.find(RECORD_SUFFIX).unwrap_or(item.len());
        // A closure or an async block is part of the function that it stands in.
        item[..end].trim_end_matches("::{{closure}}")
    }

    /// The name of the function around the point, without its path.
    #[must_use]
    pub fn function(&self) -> &'static str {
        let path = self.path();
        path.rsplit("::")
            .find(|segment| *segment != "{{closure}}")
            .unwrap_or(path)
    }

    /// The same with its type before it where it is a method, such as `PageCache::fill`.
    #[must_use]
    pub fn qualified(&self) -> String {
        qualified(self.path())
    }
}

/// The last part of a path, and the type before it. The compiler names a method `module::Type::name`, or `module::<impl
/// other::Type>::name`, or `<module::Type as other::Trait>::name`.
fn qualified(path: &str) -> String {
    let (owner, name) = match path.rsplit_once(">::") {
        Some((owner, name)) if !name.contains("::") => {
            let owner = owner.split_once('<').map_or(owner, |(_, owner)| owner);
            let owner = owner.strip_prefix("impl ").unwrap_or(owner);
            (owner.split(" as ").next().unwrap_or(owner), name)
        }
        _ => path.rsplit_once("::").unwrap_or(("", path)),
    };
    let owner = owner.rsplit(" for ").next().unwrap_or(owner);
    let owner = owner.split('<').next().unwrap_or(owner);
    let owner = owner.rsplit("::").next().unwrap_or(owner);
    // Modules are written small.
    if owner.starts_with(char::is_uppercase) {
        format!("{owner}::{name}")
    } else {
        name.to_owned()
    }
}

impl fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Positions in [`POINTS`] by file, line and column.
pub(crate) fn sorted() -> &'static [usize] {
    static SORTED: OnceLock<Vec<usize>> = OnceLock::new();
    SORTED.get_or_init(|| {
        let mut positions: Vec<usize> = (0..POINTS.len()).collect();
        positions.sort_by_key(|position| {
            let point = &POINTS[*position];
            (point.file, point.line, point.column)
        });
        positions
    })
}

/// A class named after the folder of a package: `weir-cache:race` is `cache:race`, `weir:race` is `server:race`.
#[doc(hidden)]
#[must_use]
pub const fn folder_class(package_class: &'static str) -> &'static str {
    const PREFIX: &[u8] = b"weir-";
    let bytes = package_class.as_bytes();
    if bytes.len() <= PREFIX.len() {
        return package_class;
    }
    let (head, tail) = package_class.split_at(PREFIX.len());
    let head = head.as_bytes();
    let mut i = 0;
    while i < PREFIX.len() {
        if head[i] != PREFIX[i] {
            return match (head, tail.as_bytes()) {
                (b"weir:", b"race") => "server:race",
                (b"weir:", b"function") => "server:function",
                _ => package_class,
            };
        }
        i += 1;
    }
    tail
}

/// The record of a call site; the macros below share it.
#[doc(hidden)]
#[macro_export]
macro_rules! __record {
    ($kind:ident, $class:expr, [$($errno:ident),*], can_wait: $can_wait:literal) => {
        #[$crate::__private::linkme::distributed_slice($crate::__private::POINTS)]
        #[linkme(crate = $crate::__private::linkme)]
        static WEIR_FAULT_POINT: $crate::FaultPoint = $crate::FaultPoint {
            file: ::core::file!(),
            line: ::core::line!(),
            column: ::core::column!(),
            module: ::core::module_path!(),
            class: $class,
            kind: $crate::PointKind::$kind,
            errors: &[$($crate::Errno::$errno),*],
            can_wait: $can_wait,
            item_path: || {
                fn here() {}
                ::core::any::type_name_of_val(&here)
            },
        };
    };
}

/// May fail here: `fault_point!(ctx, "class", [EIO, ENOMEM])?`. Without a list, the error allowed is `EIO`.
///
/// `ctx` is a [`FaultContext`] or a reference to one; the class is a literal, words separated by `:`. Returns
/// `Result<(), Errno>`.
#[macro_export]
macro_rules! fault_point {
    ($ctx:expr, $class:literal $(,)?) => {
        $crate::fault_point!($ctx, $class, [EIO])
    };
    ($ctx:expr, $class:literal, [$($errno:ident),+ $(,)?] $(,)?) => {{
        $crate::__record!(Fault, $class, [$($errno),+], can_wait: false);
        $ctx.check(&WEIR_FAULT_POINT)
    }};
}

/// May fail, delay or pause here, without blocking a thread: `pause_point!(ctx, "class", [EIO, ENOSPC]).await?`.
/// Without a list, the error allowed is `EIO`.
///
/// `ctx` and the class are as for [`fault_point!`](crate::fault_point). Cancel safe: a dropped future is no longer
/// paused.
#[macro_export]
macro_rules! pause_point {
    ($ctx:expr, $class:literal $(,)?) => {
        $crate::pause_point!($ctx, $class, [EIO])
    };
    ($ctx:expr, $class:literal, [$($errno:ident),+ $(,)?] $(,)?) => {{
        $crate::__record!(Fault, $class, [$($errno),+], can_wait: true);
        $ctx.pass(&WEIR_FAULT_POINT)
    }};
}

/// Whether to pretend that an optimistic path lost its race: `if race_fault!(ctx) || !try_it() { retry }`.
///
/// `ctx` is a [`FaultContext`] or [`ArmedPoints`], or a reference to one. A loop that would ask again after each loss
/// must end even if the point fires at every hit (`enable`): let it lose once per call, by going on with
/// [`ArmedPoints::NONE`], or under [`FaultContext::retry`].
///
/// Its class is the crate's folder and `race`: `cache:race` in package `weir-cache`.
#[macro_export]
macro_rules! race_fault {
    ($ctx:expr $(,)?) => {{
        $crate::__record!(
            Race,
            $crate::__private::folder_class(::core::concat!(::core::env!("CARGO_PKG_NAME"), ":race")),
            [],
            can_wait: false
        );
        $ctx.loses_race(&WEIR_FAULT_POINT)
    }};
}

#[cfg(test)]
mod tests;
