//! The README's commands for root, word for word.

use std::fs;
use std::path::Path;
use std::time::Duration;

use weir_tests::guest::Guest;

/// A boot, a file system of 1 GiB, a check.
const GUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// The first block below that heading.
fn block<'a>(readme: &'a str, heading: &str) -> &'a str {
    let heading = format!("\n{heading}\n");
    let (_, below) = readme.split_once(&heading).expect("the heading");
    let (_, block) = below.split_once("\n```\n").expect("a block");
    let (block, _) = block.split_once("```\n").expect("its end");
    block
}

#[test]
#[ignore = "needs Debian packages; run by tests/run"]
fn its_commands_for_root_work_word_for_word() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let write = readme.lines().find(|line| line.starts_with("dd "));
    let guest = Guest::new(GUEST_TIMEOUT);
    for (name, commands) in [
        ("attach", block(&readme, "## Attach it")),
        ("write", write.expect("what is written")),
        ("after-a-fault", block(&readme, "### After a fault")),
        ("after-a-power-cut", block(&readme, "### After a power cut")),
        ("stop-it", block(&readme, "## Stop it")),
    ] {
        let path = guest.host_folder().join(name).with_extension("sh");
        fs::write(path, commands).expect("the folder is ours");
    }
    guest.run("readme");
}
