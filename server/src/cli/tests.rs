use super::*;

fn parse(words: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["weir"].into_iter().chain(words.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn words_that_cannot_be_parsed_end_with_2() {
    for words in [
        "",
        "serv",
        "serve --size",
        "serve --size 1X",
        "serve --listen nowhere",
        "serve --export db",
        "serve --cache fast",
        "serve --allow 10.0.0.0/33",
        "serve --handshake-timeout 10",
        "serve --admin h:1 --no-admin",
        "serve a b",
        "serve --tls on",
        "serve s3://bucket",
        "config",
        "config check",
        "completions tcsh2",
    ] {
        let error = parse(words).expect_err(words);
        assert_eq!(error.exit_code(), 2, "{words}");
    }
}

#[test]
fn booleans_need_no_value() {
    for (words, expected) in [
        ("serve", None),
        ("serve --read-only", Some(true)),
        ("serve --read-only=false", Some(false)),
        ("serve --read-only disk.img", Some(true)),
    ] {
        let Command::Serve(options) = parse(words).expect(words).command else {
            panic!("{words}")
        };
        assert_eq!(options.exports.read_only, expected, "{words}");
    }
}

#[test]
fn one_address_is_a_network() {
    assert_eq!(
        parse_network("192.0.2.1").unwrap().to_string(),
        "192.0.2.1/32"
    );
    assert_eq!(parse_network("::1").unwrap().to_string(), "::1/128");
    assert!(parse_network("localhost").is_err());
}
