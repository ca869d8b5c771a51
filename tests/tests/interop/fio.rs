//! fio's nbd engine: random writes in parallel, each block verified by its own checksum.

use weir_tests::tools::tool_ok;

use crate::support::{Fixture, IMAGE_BYTES};

/// The largest block size below.
const FIO_BLOCK_BYTES_MAX: u64 = 1 << 20;

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn random_blocks_of_two_jobs_verify() {
    let fixture = Fixture::new();
    // Its cache is smaller than what is written, so that blocks are verified from disk too.
    let server = fixture.serve();
    let uri = format!("--uri={}", server.uri(""));
    // fio rounds a size up to whole blocks, and would run into the other job's half.
    let half = IMAGE_BYTES / 2 / FIO_BLOCK_BYTES_MAX * FIO_BLOCK_BYTES_MAX;
    let (size, increment) = (
        format!("--size={half}"),
        format!("--offset_increment={half}"),
    );
    let common = [
        "--ioengine=nbd",
        &uri,
        "--iodepth=32",
        "--numjobs=2",
        "--verify=crc32c",
        "--verify_fatal=1",
        // Else each job leaves a file in the folder that the test runs in.
        "--verify_state_save=0",
    ];
    let place = [
        size.as_str(),
        &increment,
        "--group_reporting",
        "--randseed=7",
    ];
    for (name, kind, blocks) in [
        ("--name=small", "--rw=randwrite", "--bs=4k"),
        ("--name=mixed", "--rw=randrw", "--bsrange=512-128k"),
        ("--name=sequential", "--rw=write", "--bs=1M"),
    ] {
        let args = [name, kind, blocks]
            .into_iter()
            .chain(common)
            .chain(place)
            .chain(["--do_verify=1"]);
        let output = tool_ok("fio", args);
        assert!(
            !output.contains("verify:") || !output.contains("bad"),
            "{output}"
        );
    }
    server.stop_clean();
}
