//! What the documents tell a reader to type: the commands work word for word, and the table of the fault language is
//! the program's. What they point to is there: pages, headings, source files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_tests::process::run;
use weir_tests::server::weir;

use crate::support::{Rig, SOON};

/// Folders whose files the documents name by their path from the root.
const SOURCES: [&str; 5] = ["protocol/", "cache/", "faults/", "server/", "tests/"];

/// A file, by its path from the repository's root.
fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A document, by its path from the repository's root.
pub(crate) fn document(path: &str) -> String {
    let path = in_repository(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All documents, by their paths.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(in_repository(folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_str().expect("a plain name");
            if name.ends_with(".md") {
                found.push(format!("{folder}{name}"));
            }
        }
    }
    found.sort();
    found
}

/// The text outside of fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !fence && !inside
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How a heading is linked to: small letters, no punctuation, hyphens for spaces.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (line.len() > heading.len())
            .then(|| heading.strip_prefix(' '))
            .flatten()
    });
    let kept = |character: &char| character.is_alphanumeric() || " -_".contains(*character);
    let anchor = |heading: &str| {
        let kept: String = heading.chars().filter(kept).collect();
        kept.to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// The lines of all fenced blocks that say no language.
fn typed(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (Some(""), None) => lines.push(line),
            _ => {}
        }
    }
    assert!(fence.is_none(), "a block that doesn't end");
    lines
}

/// The block of that language that comes first.
fn block(text: &str, language: &str) -> String {
    let begin = format!("```{language}\n");
    let (_, rest) = text.split_once(&begin).expect("the block");
    let (block, _) = rest.split_once("```\n").expect("the block's end");
    block.to_owned()
}

/// A folder with nothing but `weir` in it, for the PATH.
fn programs(folder: &Path) -> PathBuf {
    let programs = folder.join("bin");
    fs::create_dir(&programs).expect("a folder");
    symlink(weir(), programs.join("weir")).expect("a link");
    programs
}

/// Types every command of the program that the text has, one after the other; there must be at least so many.
#[track_caller]
fn assert_commands_work(rig: &Rig, text: &str, at_least: usize) {
    let path = std::env::var("PATH").expect("a PATH");
    let path = format!("{}:{path}", programs(rig.folder()).display());
    let mut count = 0;
    for line in typed(text) {
        if !line.starts_with("weir ") || line.starts_with("weir serve") {
            continue;
        }
        // The disk is mounted in the kernel's tests; what is armed for it is seen here without.
        let line = line.replace("sync -f /mnt", "true");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .env("PATH", &path)
            .env("WEIR_ADMIN", rig.server.admin())
            .current_dir(rig.folder());
        let done = run(&mut shell, SOON);
        assert_eq!(done.status.code(), Some(0), "{line}: {}", done.stderr);
        count += 1;
    }
    assert!(count >= at_least, "only {count} commands");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_table_of_the_fault_language_is_what_the_program_prints() {
    let rig = Rig::new();
    let table = format!("```\n{}```\n", rig.ok("fault help"));
    assert!(
        document("docs/faults.md").contains(&table),
        "the page's table isn't what `weir fault help` prints"
    );
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_commands_of_the_faults_page_work_word_for_word() {
    let rig = Rig::with(|builder| builder.arg("--power-cut"));
    assert_commands_work(&rig, &document("docs/faults.md"), 30);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_commands_of_the_readme_work_word_for_word() {
    let rig = Rig::new();
    assert_commands_work(&rig, &document("README.md"), 4);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_commands_of_the_operating_page_work_word_for_word_and_its_file_is_good() {
    let rig = Rig::new();
    let page = document("docs/operating.md");
    fs::write(rig.folder().join("weir.toml"), block(&page, "toml")).expect("a file");
    assert_commands_work(&rig, &page, 6);
    rig.finish();
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut count = 0;
    for path in documents() {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let text = document(&path);
        for link in prose(&text).split("](").skip(1) {
            let (target, _) = link.split_once(')').expect("the link's end");
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => path.clone(),
                file => format!("{folder}/{file}")
                    .trim_start_matches('/')
                    .to_owned(),
            };
            assert!(in_repository(&file).exists(), "{path}: {target}");
            if !heading.is_empty() {
                let known = anchors(&prose(&document(&file)));
                assert!(known.contains(heading), "{path}: {target}: {known:?}");
            }
            count += 1;
        }
    }
    assert!(count >= 40, "only {count} links");
}

#[test]
fn source_files_that_are_named_are_there() {
    let mut count = 0;
    for path in documents().iter().filter(|path| *path != "CHANGELOG.md") {
        let text = document(path);
        // What stands between backticks is every second piece; NAME is for a reader to fill in.
        for words in prose(&text).split('`').skip(1).step_by(2) {
            let file = words.split([' ', ':']).next().unwrap_or_default();
            let is_source = SOURCES.iter().any(|folder| file.starts_with(folder));
            if is_source && !file.contains("NAME") {
                assert!(in_repository(file).exists(), "{path}: {file}");
                count += 1;
            }
        }
    }
    assert!(count >= 20, "only {count} files");
}
