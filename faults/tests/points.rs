//! Points as another crate sees them: the macros' output, and what is listed.

use weir_faults::__private::folder_class;
use weir_faults::{
    Errno, FaultContext, FaultPoint, Faults, PointKind, RequestKinds, error_injectable,
    fault_point, pause_point, race_fault,
};

/// Something with points of every kind.
struct Sample {
    faults: FaultContext,
}

#[derive(Debug, PartialEq)]
struct SampleError(Errno);

impl From<Errno> for SampleError {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl Sample {
    fn insert(&self) -> Result<(), Errno> {
        fault_point!(self.faults, "point-tests:insert", [ENOMEM, EIO])
    }

    fn retries(&self) -> bool {
        race_fault!(&self.faults)
    }

    async fn read<T>(&self, value: T) -> Result<T, Errno> {
        pause_point!(self.faults, "point-tests:read").await?;
        Ok(value)
    }

    #[error_injectable(ctx = self.faults, errors(EIO, ENOSPC))]
    async fn write_back(&self) -> Result<u32, SampleError> {
        Ok(1)
    }

    #[error_injectable(ctx = self.faults, errors(EINVAL), class = "point-tests:set")]
    fn set(&mut self) -> Result<u32, SampleError> {
        Ok(2)
    }

    fn in_closure(&self) -> Result<(), Errno> {
        let check = || fault_point!(self.faults, "point-tests:closure");
        check()
    }
}

fn the(class: &str) -> &'static FaultPoint {
    let mut found = FaultPoint::all().filter(|point| point.class == class);
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no point of class {class}"));
    assert!(found.next().is_none(), "two points of class {class}");
    first
}

#[test]
fn every_point_is_listed_before_it_is_hit() {
    let insert = the("point-tests:insert");
    assert_eq!(insert.file, file!());
    assert_eq!(insert.module, module_path!());
    assert_eq!(insert.function(), "insert");
    assert!(
        insert.path().ends_with("Sample::insert"),
        "{}",
        insert.path()
    );
    assert_eq!(insert.kind, PointKind::Fault);
    assert_eq!(insert.errors, [Errno::ENOMEM, Errno::EIO]);
    assert!(!insert.can_wait);

    let read = the("point-tests:read");
    assert_eq!((read.function(), read.can_wait), ("read", true));
    assert_eq!(read.errors, [Errno::EIO]);

    let closure = the("point-tests:closure");
    assert_eq!(closure.function(), "in_closure");

    let set = the("point-tests:set");
    assert_eq!(
        (set.function(), set.can_wait, set.kind),
        ("set", false, PointKind::Function)
    );
}

#[test]
fn classes_of_races_and_functions_are_named_after_the_folder() {
    let here = |kind| {
        FaultPoint::all()
            .find(|point| point.module == module_path!() && point.kind == kind && point.line < 80)
    };
    let race = here(PointKind::Race).expect("the race point");
    assert_eq!((race.class, race.function()), ("faults:race", "retries"));
    assert!(race.errors.is_empty());
    let function = here(PointKind::Function).expect("the function");
    assert_eq!(
        (function.class, function.function(), function.can_wait),
        ("faults:function", "write_back", true)
    );
    assert_eq!(folder_class("weir:race"), "server:race");
    assert_eq!(folder_class("weir-cache:race"), "cache:race");
    assert_eq!(folder_class("other:race"), "other:race");
    assert_eq!(folder_class("x:race"), "x:race");
}

#[test]
fn the_order_is_by_place() {
    let places: Vec<_> = FaultPoint::all()
        .map(|point| (point.file, point.line, point.column))
        .collect();
    assert!(places.len() >= 6);
    assert!(places.is_sorted());
}

#[tokio::test]
async fn disarmed_points_pass() {
    let mut sample = Sample {
        faults: Faults::new().context(RequestKinds::READ),
    };
    assert_eq!(sample.insert(), Ok(()));
    assert!(!sample.retries());
    assert_eq!(sample.read(5).await, Ok(5));
    assert_eq!(sample.write_back().await, Ok(1));
    assert_eq!(sample.set(), Ok(2));
    assert_eq!(sample.in_closure(), Ok(()));
}
