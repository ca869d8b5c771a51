use weir_faults::{Faults, RequestKinds};

use super::*;
use crate::frame::{FramePool, PAGE_BYTES, PAGE_SIZE};
use crate::spy::Spy;

/// A call, the class of its point, and its function, if that can be injected.
const CALLS: [(&str, &str, Option<&str>); 9] = [
    ("read", "backend:read", Some("read")),
    ("write", "backend:write", Some("write")),
    ("write_zeroes", "backend:zero", Some("zero")),
    ("discard", "backend:discard", Some("trim")),
    ("sync", "backend:sync", Some("flush")),
    ("extents", "backend:extents", Some("status")),
    ("resize", "backend:resize", None),
    ("insert_range", "backend:resize", None),
    ("collapse_range", "backend:resize", None),
];

async fn ask(backend: &FaultedBackend, context: &FaultContext, call: &str) -> Result<(), Errno> {
    let pool = FramePool::new(1).expect("address space");
    let mut buffer = FrameBuf::new(Arc::clone(&pool));
    assert!(buffer.grow_to(1));
    let range = PAGE_BYTES..2 * PAGE_BYTES;
    match call {
        "read" => {
            let (buffer, outcome) = backend.read_into(context, PAGE_BYTES, buffer).await;
            assert_eq!(buffer.len(), 1, "the frames come back");
            outcome
        }
        "write" => {
            buffer.page_mut(0).fill(1);
            backend
                .write(context, PAGE_BYTES, buffer.freeze(PAGE_SIZE))
                .await
        }
        "write_zeroes" => backend.zero(context, range, ZeroMode::MayPunch).await,
        "discard" => backend.trim(context, range).await,
        "sync" => backend.flush(context).await,
        "extents" => backend.status(context, range, 1).await.map(drop),
        "resize" => backend.resize(context, PAGE_BYTES).await,
        "insert_range" => backend.insert_range(context, PAGE_BYTES, PAGE_BYTES).await,
        "collapse_range" => backend.collapse_range(context, 0, PAGE_BYTES).await,
        other => unreachable!("{other}"),
    }
}

fn hits(faults: &Faults, query: &str) -> u64 {
    let listed = faults.points(query).expect("it is listed");
    listed.iter().map(|point| point.hits).sum()
}

#[tokio::test]
async fn each_call_comes_by_its_points_once_and_arrives_once() {
    for (call, class, function) in CALLS {
        let (faults, spy) = (Faults::new(), Arc::new(Spy::default()));
        let backend = FaultedBackend::new(Arc::clone(&spy) as _);
        let context = faults.context(RequestKinds::TRIM);
        // Hits are counted where something is armed, so it is armed and never fires.
        for query in ["class backend", "class server:function"] {
            faults
                .set_points(&format!("{query} oneshot after 1000000 delay 1us"))
                .expect("armed");
        }
        ask(&backend, &context, call).await.expect(call);
        assert_eq!(hits(&faults, &format!("class {class}")), 1, "{call}");
        assert_eq!(hits(&faults, "class backend"), 1, "{call}");
        let functions = u64::from(function.is_some());
        assert_eq!(hits(&faults, "class server:function"), functions, "{call}");
        if let Some(function) = function {
            let query = format!("func FaultedBackend::{function} kind function");
            assert_eq!(hits(&faults, &query), 1, "{call}");
        }
        let asked: Vec<_> = spy.take_asked().iter().map(|(method, _)| *method).collect();
        assert_eq!(asked, [call]);
    }
}

#[tokio::test]
async fn a_call_that_is_made_to_fail_never_arrives() {
    for (call, class, function) in CALLS {
        let function = function.map(|name| format!("func FaultedBackend::{name} kind function"));
        for query in [Some(format!("class {class}")), function]
            .into_iter()
            .flatten()
        {
            let (faults, spy) = (Faults::new(), Arc::new(Spy::default()));
            let backend = FaultedBackend::new(Arc::clone(&spy) as _);
            faults
                .set_points(&format!("{query} within trim error EIO"))
                .expect("armed");
            let other = faults.context(RequestKinds::READ);
            ask(&backend, &other, call).await.expect("of another kind");
            spy.take_asked();
            let context = faults.context(RequestKinds::TRIM);
            assert_eq!(
                ask(&backend, &context, call).await,
                Err(Errno::EIO),
                "{query}"
            );
            assert_eq!(spy.take_asked(), [], "{query}");
        }
    }
}

#[tokio::test]
async fn what_has_no_point_arrives_too() {
    let spy = Arc::new(Spy::default());
    let backend = FaultedBackend::new(Arc::clone(&spy) as _);
    assert_eq!(backend.geometry(), Backend::geometry(&*spy));
    assert_eq!(backend.capabilities(), Backend::capabilities(&*spy));
    spy.take_asked();
    backend.cover(3..5).await.expect("covered");
    backend.submit();
    backend.close().await.expect("closed");
    let asked = [("cover", vec![3, 5]), ("submit", vec![]), ("close", vec![])];
    assert_eq!(spy.take_asked(), asked);
}
