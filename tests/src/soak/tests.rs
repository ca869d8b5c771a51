use std::path::{Path, PathBuf};

use super::{PARTS, Part, Turns, quoted, weir};

fn part(name: &str) -> &'static Part {
    PARTS
        .iter()
        .find(|part| part.name == name)
        .expect("a part of that name")
}

#[test]
fn parts_take_turns_and_each_goes_on_with_the_next_seeds() {
    let turns = Turns::new(vec![part("crash"), part("fuzz")], 7, None);
    let said: Vec<String> = turns
        .take(5)
        .map(|turn| format!("{} {}", turn.part.name, turn.seeds()))
        .collect();
    assert_eq!(
        said,
        [
            "crash seeds 7 to 506",
            "fuzz seed 7",
            "crash seeds 507 to 1006",
            "fuzz seed 8",
            "crash seeds 1007 to 1506",
        ]
    );
}

#[test]
fn no_parts_no_turns() {
    assert_eq!(Turns::new(Vec::new(), 7, None).next(), None);
}

#[test]
fn a_turn_is_a_command_line() {
    let weir = Some(PathBuf::from("/a b/weir"));
    let turns = Turns::new(PARTS.iter().collect(), 3, weir);
    let lines: Vec<String> = turns.take(6).map(|turn| turn.to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let cargo = "cargo test --workspace --locked";
    let weir = "WEIR_BIN='/a b/weir'";
    assert_eq!(
        lines,
        [
            &format!(
                "WEIR_CRASH_SEED=3 WEIR_CRASH_RUNS=500 {cargo} --test crash no_power_cut_breaks_a_promise -- --include-ignored"
            ),
            &format!(
                "WEIR_MODEL_SEED=3 WEIR_MODEL_SEEDS=1 {cargo} --lib page_cache::tests::model::"
            ),
            &format!(
                "WEIR_KILL_SEED=3 WEIR_KILL_ROUNDS=60 {weir} {cargo} --test interop sigkill_keeps_what_was_flushed -- --include-ignored"
            ),
            &format!(
                "WEIR_POWER_CUT_SEED=3 WEIR_POWER_CUT_ROUNDS=30 {weir} {cargo} --test faults power_cut:: -- --include-ignored"
            ),
            &format!(
                "WEIR_FUZZ_SEED=3 WEIR_FUZZ_SECONDS=5 {weir} {cargo} --test hostile random:: -- --include-ignored"
            ),
            &format!(
                "WEIR_POWER_CUT_SEED=3 WEIR_POWER_CUT_SEEDS=3 {weir} {cargo} --test kernel every_fsynced_file_is_whole_after_a_power_cut -- --include-ignored"
            ),
        ]
    );
}

#[test]
fn a_value_is_one_word_of_a_shell() {
    assert_eq!(
        quoted("/target/release/weir-1.0"),
        "/target/release/weir-1.0"
    );
    assert_eq!(quoted("it's"), r"'it'\''s'");
    assert_eq!(quoted("$HOME"), "'$HOME'");
}

#[test]
fn the_program_is_the_given_one_or_the_release_build() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = folder.path().canonicalize().expect("it exists");
    let soak = target.join("debug/soak");
    let missing = weir(None, &soak).expect_err("not built");
    let built = target.join("release/weir");
    assert!(missing.contains(&built.display().to_string()), "{missing}");
    assert!(missing.contains("cargo build"), "{missing}");

    std::fs::create_dir(target.join("release")).expect("a folder");
    std::fs::write(&built, "").expect("a file");
    assert_eq!(weir(None, &soak), Ok(built.clone()));

    let given = target.join("other");
    weir(Some(given.clone()), &soak).expect_err("the given one and no other");
    std::fs::write(&given, "").expect("a file");
    assert_eq!(weir(Some(given.clone()), &soak), Ok(given));
}

#[test]
fn what_is_missing_keeps_those_from_running_that_need_it() {
    let blocked = |weir: Result<PathBuf, String>, installed: fn(&str) -> bool| {
        let is_blocked = |part: &&Part| part.obstacle(&weir, installed).is_some();
        let blocked = PARTS.iter().filter(is_blocked).map(|part| part.name);
        blocked.collect::<Vec<&str>>()
    };
    let none = || Err("none".to_owned());
    let some = || Ok(Path::new("weir").to_owned());
    let nothing: [&str; 0] = [];
    assert_eq!(blocked(some(), |_| true), nothing);
    assert_eq!(blocked(some(), |name| name != "linux.uml"), ["kernel"]);
    assert_eq!(
        blocked(none(), |_| true),
        ["kill", "power-cut", "fuzz", "kernel"]
    );
    let why = part("kernel").obstacle(&some(), |name| name != "linux.uml");
    let why = why.expect("it is missing");
    assert!(why.contains("linux.uml missing"), "{why}");
    assert!(why.contains("tests/run packages"), "{why}");
}
