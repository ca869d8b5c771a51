use super::{Keep, PowerCutOptions};

#[test]
fn options_print_what_parses_back() {
    let plain = PowerCutOptions::parse("").expect("nothing is needed");
    assert_eq!(
        (plain.keep, plain.tear, plain.to_string().as_str()),
        (Keep::None, 512, "keep=none")
    );
    let all = PowerCutOptions::parse("tear=4k keep=random seed=7").expect("all of them");
    assert_eq!(
        all,
        PowerCutOptions {
            keep: Keep::Random,
            tear: 4096,
            seed: 7
        }
    );
    assert_eq!(PowerCutOptions::parse(&all.to_string()), Ok(all));
    assert_eq!(
        PowerCutOptions::parse("keep=all").expect("all").keep,
        Keep::All
    );
}

#[test]
fn every_refusal_names_the_word() {
    for (text, complaint) in [
        ("keep", "after `keep`: missing =none|all|random"),
        ("keep=some", "`some`: expected none, all or random"),
        ("tear=513", "`513`: expected a power of two"),
        ("tear=256", "`256`: expected a power of two"),
        ("tear=x", "`x`: expected a power of two"),
        ("tear=2G", "`2G`: expected a power of two"),
        ("seed=-1", "`-1`: expected a whole number"),
        ("keep=all keep=all", "`keep`: given twice"),
        ("hold=all", "`hold=all`: expected one of keep, tear, seed"),
    ] {
        let error = PowerCutOptions::parse(text).expect_err(text).to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}
