//! fio's nbd engine: random writes in parallel, each block verified by its own checksum.

use weir_tests::tools::tool_ok;

use crate::support::{Fixture, IMAGE_BYTES};

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn random_blocks_of_two_jobs_verify() {
    let fixture = Fixture::new();
    // Smaller than what is written, so that blocks are verified from disk too.
    let server = fixture.builder().option("--cache-size", "8M").start();
    let uri = format!("--uri={}", server.uri(""));
    let half = IMAGE_BYTES / 2 / 4096 * 4096;
    let (size, increment) = (format!("--size={half}"), format!("--offset_increment={half}"));
    let common = ["--ioengine=nbd", &uri, "--iodepth=32", "--numjobs=2", "--verify=crc32c", "--verify_fatal=1"];
    let place = [size.as_str(), &increment, "--group_reporting", "--randseed=7"];
    for (name, kind, blocks) in [
        ("--name=small", "--rw=randwrite", "--bs=4k"),
        ("--name=mixed", "--rw=randrw", "--bsrange=512-128k"),
        ("--name=sequential", "--rw=write", "--bs=1M"),
    ] {
        let args = [name, kind, blocks].into_iter().chain(common).chain(place).chain(["--do_verify=1"]);
        let output = tool_ok("fio", args);
        assert!(!output.contains("verify:") || !output.contains("bad"), "{output}");
    }
    server.stop_clean();
}
