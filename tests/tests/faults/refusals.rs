//! Words that can't be obeyed: the word is named, what was expected is said, and nothing is half done.

use weir_tests::client::wire::EXPORT_READ_ONLY;

use crate::support::Rig;

/// Nothing is in force.
#[track_caller]
fn assert_untouched(rig: &Rig) {
    assert_eq!(rig.json("fault list"), serde_json::json!([]));
    let armed = rig.ok("point list");
    let armed: Vec<_> = armed
        .lines()
        .filter(|line| !line.ends_with(" state=off"))
        .collect();
    assert!(armed.is_empty(), "{armed:?}");
    let device = &rig.json("status")["exports"][0]["device"];
    assert_eq!(device["offline"], false);
    assert_eq!(device["frozen"], false);
    assert_eq!(device["read_only"], false);
    assert_eq!(device["bad"], serde_json::json!([]));
    let mut client = rig.client();
    assert_eq!(client.export().flags & EXPORT_READ_ONLY, 0);
    client.write(0, &[1; 512]).expect("a write");
    client.read(0, 512).expect("a read");
    client.flush().expect("a flush");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn rules() {
    let rig = Rig::new();
    for (rule, parts) in [
        ("wriet error=EIO", &["wriet", "expected", "write"][..]),
        ("read eror=EIO", &["eror=EIO", "expected", "error"]),
        ("read", &["missing an action"]),
        ("read p=5%", &["missing an action"]),
        ("read error=EWHAT", &["EWHAT", "expected", "EIO"]),
        ("read error=ETIMEDOUT", &["ETIMEDOUT", "expected", "EIO"]),
        ("read p=101% error=EIO", &["101%", "at most 100%"]),
        ("read p=-1% error=EIO", &["-1%", "at most 100%"]),
        ("read p=0.5 error=EIO", &["0.5", "such as 5%"]),
        ("read offset=2M..1M error=EIO", &["2M..1M", "a range"]),
        ("read offset=1M..1M error=EIO", &["1M..1M", "a range"]),
        ("read offset=1M error=EIO", &["1M", "a range"]),
        ("read offset=0..20E error=EIO", &["20E", "a size"]),
        ("read nth=0 error=EIO", &["`0`", "from 1"]),
        ("read delay=5", &["`5`", "a time"]),
        ("read for=never error=EIO", &["never", "a time"]),
        ("read up=5s error=EIO", &["up", "down"]),
        ("read export=nobody error=EIO", &["nobody", "no export"]),
        ("read export=n* error=EIO", &["n*", "no export"]),
        ("connect export=db drop", &["export", "connect"]),
        ("read lose", &["lose", "read", "write"]),
        ("flush tear=512", &["tear=512", "flush", "write"]),
        ("any corrupt=bits:1", &["corrupt", "read,write"]),
        ("flush offset=0..1 error=EIO", &["offset", "flush"]),
        ("read fua error=EIO", &["fua", "read"]),
        ("connect error=EIO", &["error=EIO", "connect"]),
        ("read corrupt=bits:0", &["bits:0", "bits:N"]),
        ("read hang drop", &["drop", "hang"]),
        ("read error=EIO error=EIO", &["error=EIO"]),
        ("read at=frontend error=EIO", &["frontend", "backend"]),
        ("read at=backend drop", &["drop", "backend"]),
        ("cache at=backend error=EIO", &["backend", "cache"]),
        ("write at=backend conn=1 lose", &["conn"]),
    ] {
        rig.refused(&format!("fault add {rule}"), parts);
    }
    rig.refused("fault rm 77", &["77"]);
    assert_untouched(&rig);
    let rule = rig.add("read nth=1000 error=EIO");
    rig.refused("fault add read p=200% drop", &["200%"]);
    let rules = rig.json("fault list");
    assert_eq!(rules.as_array().map(Vec::len), Some(1));
    assert_eq!(rules[0]["id"], rule);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn points() {
    let rig = Rig::new();
    for (query, parts) in [
        (
            "set clas backend enable",
            &["clas", "expected", "class"][..],
        ),
        ("set class nothing enable", &["nothing", "no point"]),
        ("set class backend:write line 1-2 enable", &["no point"]),
        ("set class backend:write", &["missing what to do"]),
        ("set enable", &["missing what to match"]),
        (
            "set class backend:write error EWHAT",
            &["EWHAT", "expected"],
        ),
        // The second of these has points that don't allow it: none of them is armed.
        ("set class backend:sync error ENOENT", &["ENOENT"]),
        ("set class backend error ENOSPC", &["ENOSPC"]),
        ("set class cache:race error EIO", &["EIO"]),
        ("set class cache:race pause", &["pause"]),
        ("set class backend:write probability 101%", &["101%"]),
        ("set class backend:write frequency 0", &["`0`"]),
        (
            "set class backend:write within surf enable",
            &["surf", "expected", "read"],
        ),
        ("set file write.rs line 9-1 enable", &["9-1"]),
        ("release class nothing", &["nothing", "no point"]),
        ("list class nothing", &["nothing", "no point"]),
        ("list colour red", &["colour", "expected"]),
    ] {
        rig.refused(&format!("point {query}"), parts);
    }
    assert_untouched(&rig);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn devices() {
    let rig = Rig::new();
    for (words, parts) in [
        ("offline nobody", &["nobody"][..]),
        ("online nobody", &["nobody"]),
        ("freeze nobody", &["nobody"]),
        ("thaw nobody", &["nobody"]),
        ("read-only nobody on", &["nobody"]),
        ("bad nobody add 0..512", &["nobody"]),
        ("bad \"\" add 512..0", &["512..0", "a range"]),
        ("bad \"\" add 1M", &["1M", "a range"]),
        ("bad \"\" rm x..y", &["x", "a size"]),
        ("power-cut nobody", &["nobody"]),
        ("power-cut \"\"", &["--power-cut"]),
        ("power-cut \"\" keep=some", &["some", "none, all or random"]),
        ("power-cut \"\" keep", &["keep", "none|all|random"]),
        ("power-cut \"\" tear=513", &["513", "power of two"]),
        ("power-cut \"\" seed=x", &["`x`", "a whole number"]),
        ("power-cut \"\" wheels=4", &["wheels=4", "keep"]),
    ] {
        rig.refused(&format!("device {words}"), parts);
    }
    for words in [
        "bad \"\" mend 0..512",
        "read-only \"\" perhaps",
        "explode \"\"",
    ] {
        let words = words.split(' ').map(|word| word.trim_matches('"'));
        let done = rig.server.control(["device"].into_iter().chain(words));
        done.expect_code(2);
    }
    assert_untouched(&rig);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn scripts_to_replay() {
    let rig = Rig::new();
    let good = "time=1us rule=1 at=request export= conn=1 command=read offset=0 length=512 occurrence=1: error=EIO";
    for (lines, part) in [
        ("nonsense", "nonsense"),
        (&good.replace("command=read", "command=chew"), "chew"),
        (&good.replace("error=EIO", "error=EWHAT"), "EWHAT"),
        (&good.replace("at=request", "at=home"), "home"),
        (&good.replace("offset=0", "offset=x"), "x"),
    ] {
        let path = rig.folder().join("script");
        std::fs::write(&path, format!("{good}\n{lines}\n")).expect("a file");
        rig.refused("fault replay script", &[part]);
    }
    rig.refused("fault replay missing", &["missing"]);
    let mut client = rig.client();
    client.read(0, 512).expect("the good line wasn't taken");
    assert_untouched(&rig);
    rig.finish();
}
