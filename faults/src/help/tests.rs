use super::help;

#[test]
fn every_word_of_the_design_is_in_the_help() {
    let text = help();
    for word in [
        "any",
        "read",
        "write",
        "trim",
        "zero",
        "flush",
        "cache",
        "status",
        "connect",
        "export=GLOB",
        "conn=ID",
        "offset=A..B",
        "fua",
        "p=P%",
        "nth=N",
        "every=N",
        "first=N",
        "after=N",
        "times=N",
        "for=T",
        "up=T",
        "down=T",
        "seed=N",
        "error=NAME",
        "delay=T",
        "hang",
        "drop or drop=mid",
        "corrupt=bits:N",
        "lose",
        "tear=BYTES",
        "misdirect=OFFSET",
        "garbage",
        "at=backend",
        "class A:B",
        "within KIND",
        "frequency N",
        "probability P%",
        "pause",
        "power-cut",
        "freeze",
        "read-only",
        "ESHUTDOWN",
    ] {
        assert!(
            text.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(word),
            "{word}"
        );
    }
    assert!(
        text.lines().all(|line| !line.ends_with(' ')),
        "trailing space"
    );
}
