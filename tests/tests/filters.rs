//! Every filter of the workspace is tested with a spy under it.
//!
//! A filter hands on what it doesn't override, and what it overrides it can forget to hand on. Only a test of its own
//! can tell, so what is looked for here is that there is one, in the filter's own file or folder.

use std::fs;
use std::path::{Path, PathBuf};

/// How a filter begins.
const FILTER: &str = "\nimpl Filter for ";
/// What tests it.
const TEST: &str = "assert_everything_arrives(";
/// The crates that have code.
const CRATES: [&str; 3] = ["cache", "server", "tests"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The file itself, its tests beside it if it is a `mod.rs`, and else below a folder of its name.
fn has_test(file: &Path) -> bool {
    let folder = match file.file_name() {
        Some(name) if name == "mod.rs" => file.parent().expect("a folder").to_owned(),
        _ => file.with_extension(""),
    };
    let tests = folder.join("tests.rs");
    [file, &tests]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(TEST)))
}

#[test]
fn each_has_a_spy_under_it() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for name in CRATES {
        sources(&workspace.join(name).join("src"), &mut files);
    }
    let is_filter = |file: &&PathBuf| fs::read_to_string(file).expect("text").contains(FILTER);
    let filters: Vec<_> = files.iter().filter(is_filter).collect();
    // The server's two and the tests' own; fewer, and they aren't found any more.
    assert!(filters.len() >= 5, "{filters:?}");
    let untested: Vec<_> = filters.iter().filter(|file| !has_test(file)).collect();
    assert!(untested.is_empty(), "no spy is under {untested:?}");
}
