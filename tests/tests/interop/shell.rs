//! nbdsh: libnbd's own client, every command and flag, from Python.

use weir_tests::server::ServerBuilder;
use weir_tests::tools::nbdsh;

use crate::support::Fixture;

/// What each script starts with.
const PRELUDE: &str = r#"
import os, nbd
MiB = 1 << 20

def fails(errno, call, *args):
    try:
        call(*args)
    except nbd.Error as e:
        assert e.errno == errno, f"{e.errno} {e.string}, not {errno}"
    else:
        raise AssertionError(f"{call} {args} did not fail")

def status(count, offset, context="base:allocation", flags=0):
    found = []
    def add(name, at, entries, error):
        if name == context:
            assert at == offset
            found.extend(zip(entries[::2], entries[1::2]))
    h.block_status(count, offset, add, flags)
    return found

def same(got, want):
    assert bytes(got) == bytes(want), f"{len(got)} bytes differ from {len(want)}"
"#;

#[track_caller]
fn script(uri: &str, before_connecting: &str, code: &str) {
    let code = format!(
        "{PRELUDE}\nh.set_handle_name('test')\n{before_connecting}\nh.connect_uri({uri:?})\n{code}\nh.shutdown()\nprint('fine')"
    );
    let output = weir_tests::tools::nbdsh_with(&["-c", &code]);
    assert!(output.ends_with("fine\n"), "{output}");
}

const CONTEXTS: &str = "h.add_meta_context('base:allocation'); h.add_meta_context('x-weir:cache')";
/// libnbd refuses to send what the server is to refuse, unless told otherwise.
const NOT_STRICT: &str = "h.set_strict_mode(0)";

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn data_goes_in_and_comes_out_at_any_offset() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        "",
        r"
for offset, length in [(0, 1), (1, 1), (511, 2), (4095, 2), (4096, 4096), (12345, 54321), (8*MiB - 1, 2), (MiB, 3*MiB + 1)]:
    data = os.urandom(length)
    h.pwrite(data, offset)
    same(h.pread(length, offset), data)
end = h.get_size()
h.pwrite(b'x', end - 1)
same(h.pread(1, end - 1), b'x')
same(h.pread(4, end - 4), b'\0\0\0x')
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn payloads_of_48_mib_pass_whole() {
    let fixture = Fixture::new();
    let server = ServerBuilder::new(fixture.dir())
        .file(&fixture.image(), "100M")
        .option("--cache-size", "16M")
        .start();
    for structured in ["True", "False"] {
        script(
            &server.uri(""),
            &format!("h.set_request_structured_replies({structured})"),
            r"
data = os.urandom(48*MiB)
h.pwrite(data, 12345)
same(h.pread(48*MiB, 12345), data)
h.flush()
same(h.pread(48*MiB, 12345), data)
h.pwrite(data, 36*MiB, nbd.CMD_FLAG_FUA)
same(h.pread(48*MiB, 36*MiB), data)
same(h.pread(64*MiB, 20*MiB)[16*MiB:], data)
",
        );
    }
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn zero_and_trim_read_as_zeroes_and_honour_their_flags() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        &format!("{CONTEXTS}; image = {:?}", fixture.image()),
        r"
# What stays allocated is no business of block status: SEEK_HOLE shows unwritten extents as holes too.
def on_disk():
    return os.stat(image).st_blocks * 512

data = os.urandom(4*MiB)
h.pwrite(data, 0, nbd.CMD_FLAG_FUA)
written = on_disk()
def zeroed(offset, length):
    same(h.pread(length, offset), bytearray(length))

h.zero(MiB, 0); zeroed(0, MiB)
h.zero(MiB, MiB, nbd.CMD_FLAG_FUA); zeroed(MiB, MiB)
h.trim(MiB, 2*MiB); zeroed(2*MiB, MiB)
h.trim(4096, 3*MiB, nbd.CMD_FLAG_FUA); zeroed(3*MiB, 4096)
same(h.pread(MiB - 4096, 3*MiB + 4096), data[3*MiB + 4096:])
assert status(2*MiB, 0)[0] == (2*MiB, 3) or sum(n for n, f in status(2*MiB, 0) if f == 3) >= 2*MiB, status(2*MiB, 0)

h.flush()
punched = on_disk()
# A few blocks more or less are the file system's own, for its map of extents.
slack = MiB // 16
assert punched <= written - 3*MiB + slack, (written, punched)

# NO_HOLE: zeroes that are allocated where there was a hole, and stay so where there was data.
h.zero(MiB, 0, nbd.CMD_FLAG_NO_HOLE); zeroed(0, MiB)
h.flush()
filled = on_disk()
assert filled >= punched + MiB - slack, (punched, filled)
h.zero(MiB // 2, 3*MiB + MiB // 2, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA); zeroed(3*MiB + MiB // 2, MiB // 2)
assert on_disk() >= filled - slack, (filled, on_disk())

# Unaligned edges keep their neighbours.
h.pwrite(data, 8*MiB)
h.zero(10000, 8*MiB + 100)
same(h.pread(100, 8*MiB), data[:100])
zeroed(8*MiB + 100, 10000)
same(h.pread(10000, 8*MiB + 10100), data[10100:20100])

# FAST_ZERO: quick, or ENOTSUP and nothing changed.
h.pwrite(data, 16*MiB)
try:
    h.zero(MiB, 16*MiB, nbd.CMD_FLAG_FAST_ZERO)
    zeroed(16*MiB, MiB)
except nbd.Error as e:
    assert e.errno == 'ENOTSUP', e
    same(h.pread(MiB, 16*MiB), data[:MiB])

# The whole device at once.
h.trim(h.get_size(), 0)
zeroed(0, 20*MiB)
h.zero(h.get_size(), 0)
zeroed(15*MiB, 20*MiB)
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn block_status_overlays_the_cache_and_req_one_gives_one() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        CONTEXTS,
        r"
assert h.can_meta_context('base:allocation') and h.can_meta_context('x-weir:cache')
assert status(MiB, 0, flags=nbd.CMD_FLAG_REQ_ONE) == [(MiB, 3)]
h.pwrite(os.urandom(65536), 65536)
want = [(65536, 3), (65536, 0), (MiB - 131072, 3)]
def clipped():
    left, out = MiB, []
    for n, f in status(MiB, 0):
        out.append((min(n, left), f)); left -= min(n, left)
    assert left == 0
    return out
assert clipped() == want, clipped()
assert status(MiB, 65536, flags=nbd.CMD_FLAG_REQ_ONE) == [(65536, 0)]
assert status(65536, 65536, 'x-weir:cache', nbd.CMD_FLAG_REQ_ONE) == [(65536, 3)]
h.flush()
assert clipped() == want, clipped()
assert status(65536, 65536, 'x-weir:cache', nbd.CMD_FLAG_REQ_ONE) == [(65536, 1)]
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn cache_brings_pages_in() {
    let fixture = Fixture::new();
    std::fs::write(fixture.image(), weir_tests::pattern::bytes(9, 4 << 20)).expect("an image");
    let server = ServerBuilder::new(fixture.dir())
        .arg(fixture.image())
        .option("--cache-size", "16M")
        .start();
    script(
        &server.uri(""),
        CONTEXTS,
        r"
assert status(MiB, 0, 'x-weir:cache', nbd.CMD_FLAG_REQ_ONE) == [(MiB, 0)]
h.pread(MiB, MiB)
assert all(f == 1 for n, f in status(MiB, MiB, 'x-weir:cache', nbd.CMD_FLAG_REQ_ONE))
assert h.can_cache()
h.cache(MiB, 3*MiB)
h.cache(4*MiB, 0)
h.cache(0, 0) if not h.get_strict_mode() else None
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn structured_reads_send_holes_and_df_sends_one_chunk() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        "",
        r"
data = os.urandom(65536)
h.pwrite(data, 65536)
h.pwrite(data, 262144)
h.flush()
def chunks(flags):
    found = []
    def add(part, offset, kind, error):
        found.append((offset, len(part), kind))
    h.pread_structured(524288, 0, add, flags)
    return sorted(found)
parts = chunks(0)
assert sum(n for _, n, _ in parts) == 524288, parts
holes = sum(n for _, n, kind in parts if kind == nbd.READ_HOLE)
assert holes == 524288 - 2*65536, parts
assert h.can_df()
parts = chunks(nbd.CMD_FLAG_DF)
assert len(parts) == 1 and parts[0][:2] == (0, 524288), parts
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn simple_replies_serve_clients_that_ask_for_no_other() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        "h.set_request_structured_replies(False)",
        r"
assert not h.get_structured_replies_negotiated()
assert not h.can_df(), 'DF only with structured replies'
data = os.urandom(3*MiB)
h.pwrite(data, 4097)
same(h.pread(3*MiB, 4097), data)
same(h.pread(4097, 0), bytearray(4097))
h.set_strict_mode(0)
fails('EINVAL', h.pread, 4096, h.get_size())
same(h.pread(10, 4097), data[:10])
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn every_refusal_has_the_protocols_number_and_the_connection_lives() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        &format!("{NOT_STRICT}\n{CONTEXTS}"),
        r"
end = h.get_size()
one = bytearray(4096)
fails('EINVAL', h.pread, 4096, end)
fails('EINVAL', h.pread, 4096, end - 1)
fails('ENOSPC', h.pwrite, one, end)
fails('ENOSPC', h.pwrite, one, end - 4095)
fails('ENOSPC', h.zero, 4096, end - 4095)
fails('EINVAL', h.trim, 4096, end - 4095)
fails('EINVAL', h.cache, 4096, end - 4095)
fails('EINVAL', h.block_status, 4096, end - 4095, lambda *a: 0)
fails('ENOSPC', h.pwrite, one, 2**64 - 4096)
fails('EINVAL', h.pread, 4096, 2**64 - 1)
fails('ENOSPC', h.zero, 2**32 - 1, 2**64 - 1)
# Flags that a command doesn't have.
fails('EINVAL', h.pwrite, one, 0, nbd.CMD_FLAG_NO_HOLE)
fails('EINVAL', h.pread_structured, 4096, 0, lambda *a: 0, nbd.CMD_FLAG_REQ_ONE)
fails('EINVAL', h.trim, 4096, 0, nbd.CMD_FLAG_FAST_ZERO)
fails('EINVAL', h.zero, 4096, 0, nbd.CMD_FLAG_DF)
# FUA goes with everything.
h.pread_structured(4096, 0, lambda *a: 0, nbd.CMD_FLAG_FUA)
h.flush(nbd.CMD_FLAG_FUA)
h.cache(4096, 0, nbd.CMD_FLAG_FUA)
h.trim(4096, 0, nbd.CMD_FLAG_FUA)
# Nothing is left over on the wire.
data = os.urandom(4096)
h.pwrite(data, 0)
same(h.pread(4096, 0), data)
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn a_read_only_export_refuses_every_change() {
    let fixture = Fixture::new();
    std::fs::write(fixture.image(), weir_tests::pattern::bytes(10, 1 << 20)).expect("an image");
    let before = std::fs::read(fixture.image()).expect("the image");
    let server = ServerBuilder::new(fixture.dir())
        .arg(fixture.image())
        .arg("--read-only")
        .start();
    script(
        &server.uri(""),
        NOT_STRICT,
        r"
assert h.is_read_only()
data = h.pread(MiB, 0)
fails('EPERM', h.pwrite, bytearray(65536), 0)
fails('EPERM', h.zero, 4096, 0)
fails('EPERM', h.trim, 4096, 0)
h.flush()
same(h.pread(MiB, 0), data)
",
    );
    server.stop_clean();
    assert!(
        std::fs::read(fixture.image()).expect("the image") == before,
        "a read-only image has changed"
    );
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn exports_are_apart_and_a_connection_sees_what_another_wrote() {
    let fixture = Fixture::new();
    let export = format!("other={},size=8M", fixture.path("other").display());
    let server = fixture.builder().option("--export", export).start();
    let other = server.uri("other");
    script(
        &server.uri(""),
        "",
        &format!(
            r"
other, second = nbd.NBD(), nbd.NBD()
other.connect_uri({other:?})
second.connect_uri({uri:?})
assert h.can_multi_conn()
assert (h.get_size(), other.get_size()) == (35*MiB, 8*MiB)
h.pwrite(b'a' * 4096, 0)
other.pwrite(b'b' * 4096, 0)
same(second.pread(4096, 0), b'a' * 4096)
same(other.pread(4096, 0), b'b' * 4096)
second.flush()
missing = nbd.NBD()
fails('ENOENT', missing.connect_uri, {missing:?})
",
            uri = server.uri(""),
            missing = server.uri("missing"),
        ),
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn many_requests_in_flight_are_answered_each_with_its_own_data() {
    let fixture = Fixture::new();
    let server = fixture.serve();
    script(
        &server.uri(""),
        "",
        r"
blocks = [os.urandom(16384) for _ in range(256)]
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b)), i * 16384) for i, b in enumerate(blocks)]
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(c) for c in cookies)
buffers = [nbd.Buffer(16384) for _ in blocks]
cookies = [h.aio_pread(b, i * 16384) for i, b in enumerate(buffers)]
while h.aio_in_flight():
    h.poll(-1)
assert all(h.aio_command_completed(c) for c in cookies)
for got, want in zip(buffers, blocks):
    same(got.to_bytearray(), want)
",
    );
    server.stop_clean();
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn tcp_serves_as_well_as_a_unix_socket() {
    let fixture = Fixture::new();
    let server = fixture
        .builder()
        .listen("127.0.0.1:0")
        .listen(format!("unix:{}", fixture.path("s").display()))
        .start();
    for index in 0..2 {
        nbdsh(
            &server.uri_at(index, ""),
            "h.pwrite(b'x' * 100000, 7); assert h.pread(100000, 7) == b'x' * 100000",
        );
    }
    server.stop_clean();
}
