//! The page about the HTTP API: its examples are run by curl, word for word and in their order, and the answers must
//! have the status and the shape that the page shows. Each endpoint of the server must be on the page.
//!
//! An example is a block with one command, the status below it, and a block with the answer. Shapes are compared, not
//! values: the same keys, and the same type at each of them. `"..."` on the page stands for anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use weir_tests::pattern::bytes;
use weir_tests::process::{eventually, run};
use weir_tests::server::{Server, ServerBuilder};

use crate::documents::document;
use crate::support::SOON;

const PAGE: &str = "docs/api.md";
/// Lets curl print the status behind the answer's body, so that the commands can stay as they are on the page.
const CURL_SETTINGS: &str = "silent\nshow-error\nwrite-out = \"\\nstatus %{http_code}\"\n";
/// What stands between the two then.
const STATUS_MARK: &str = "\nstatus ";

/// One example.
#[derive(Debug)]
struct Example {
    /// The endpoint whose section it stands in, such as `GET /v1/status`; empty before the first.
    endpoint: String,
    command: String,
    status: u16,
    /// `json`, `jsonl` or `text`.
    language: String,
    answer: String,
}

/// All examples, in the order of the page.
fn examples(page: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut endpoint = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("### ") {
            heading.trim_matches('`').clone_into(&mut endpoint);
        }
        if !line.starts_with("curl ") {
            continue;
        }
        let command = line.to_owned();
        assert_eq!(lines.next(), Some("```"), "one command a block: {command}");
        let status = lines.next().unwrap_or_default().trim_matches('`');
        let status = status
            .parse()
            .unwrap_or_else(|_| panic!("no status below {command}, but {status:?}"));
        let opening = lines.next().unwrap_or_default();
        let language = opening
            .strip_prefix("```")
            .unwrap_or_else(|| panic!("no answer below {command}, but {opening:?}"));
        let answer: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push(Example {
            endpoint: endpoint.clone(),
            command,
            status,
            language: language.to_owned(),
            answer: answer.join("\n"),
        });
    }
    found
}

/// The server that the page speaks of.
fn server(page: &str, folder: &Path) -> Server {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("weir serve "));
    let mut words = line.expect("how it is started").split(' ');
    let mut builder = ServerBuilder::new(folder).admin();
    while let Some(word) = words.next() {
        if word == "--admin" {
            // In the test's own folder instead.
            words.next().expect("an address");
        } else {
            builder = builder.arg(word);
        }
    }
    builder.start()
}

/// Runs an example; the status and the body of the answer.
fn ask(example: &Example, server: &Server, folder: &Path) -> (u16, String) {
    let socket = server.admin().strip_prefix("unix:").expect("a Unix socket");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &example.command])
        .env("SOCKET", socket)
        .env("CURL_HOME", folder)
        .current_dir(folder);
    let done = run(&mut shell, SOON).expect_code(0);
    let (body, status) = done
        .stdout
        .rsplit_once(STATUS_MARK)
        .unwrap_or_else(|| panic!("{}: {:?}", example.command, done.stdout));
    (status.parse().expect("a status"), body.to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Where `real` has another shape than `shown`; nothing if it doesn't.
fn difference(shown: &Value, real: &Value, place: &str) -> Option<String> {
    match (shown, real) {
        (Value::String(text), _) if text == "..." => None,
        (Value::Object(shown), Value::Object(real)) => {
            let keys = |object: &serde_json::Map<_, _>| object.keys().cloned().collect::<Vec<_>>();
            let (mut expected, mut found) = (keys(shown), keys(real));
            expected.sort();
            found.sort();
            if expected != found {
                return Some(format!("{place}: {found:?} and not {expected:?}"));
            }
            let mut below = shown.iter();
            below.find_map(|(key, shown)| difference(shown, &real[key], &format!("{place}.{key}")))
        }
        (Value::Array(shown), Value::Array(real)) => {
            if shown.len() != real.len() {
                let (found, expected) = (real.len(), shown.len());
                return Some(format!("{place}: {found} elements and not {expected}"));
            }
            let mut pairs = shown.iter().zip(real);
            pairs.find_map(|(shown, real)| difference(shown, real, &format!("{place}[]")))
        }
        (Value::Null, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => None,
        _ => Some(format!("{place}: {real} and not {shown}")),
    }
}

/// The answer must have the shape that the page shows.
#[track_caller]
fn assert_shape(example: &Example, body: &str) {
    let command = &example.command;
    match example.language.as_str() {
        "json" => {
            let found = difference(&json(&example.answer), &json(body), "answer");
            assert_eq!(found, None, "{command}");
        }
        "jsonl" => {
            let (shown, real) = (example.answer.lines(), body.lines());
            assert_eq!(real.clone().count(), shown.clone().count(), "{command}");
            for (shown, real) in shown.zip(real) {
                let found = difference(&json(shown), &json(real), "line");
                assert_eq!(found, None, "{command}");
            }
        }
        "text" => {
            // The figures change, and their names don't.
            let names = |text: &str| -> BTreeSet<String> {
                let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
                lines.map(|(name, _)| name.to_owned()).collect()
            };
            let missing = &names(&example.answer) - &names(body);
            assert!(missing.is_empty(), "{command}: no {missing:?}");
        }
        other => panic!("{command}: an answer in {other:?}"),
    }
}

/// What the server's router knows, as `METHOD PATH`.
fn routes() -> BTreeSet<String> {
    let source = document("server/src/admin.rs");
    let (_, router) = source.split_once("Router::new()").expect("the router");
    let (router, _) = router.split_once(".fallback(").expect("its end");
    let mut routes = BTreeSet::new();
    for route in router.split(".route(").skip(1) {
        let path = route.split('"').nth(1).expect("a path");
        for method in ["get", "post", "put", "delete"] {
            if route.contains(&format!("{method}(")) {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    routes
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn the_examples_answer_as_the_page_shows() {
    let page = document(PAGE);
    let folder = tempfile::Builder::new()
        .prefix("weir-api-")
        .tempdir()
        .expect("a temporary folder");
    fs::write(folder.path().join(".curlrc"), CURL_SETTINGS).expect("curl's settings");
    let server = server(&page, folder.path());
    let mut client = server.client();
    client.write(0, &bytes(1, 65_536)).expect("a write");
    client.read(0, 4096).expect("a read");
    // A request is counted just after its reply was sent.
    eventually("both requests are counted", SOON, || {
        let done = server.control(["connection", "list", "--json"]);
        json(&done.expect_code(0).stdout)[0]["traffic"]["requests"] == 2
    });
    let examples = examples(&page);
    assert!(examples.len() >= routes().len(), "{}", examples.len());
    for example in &examples {
        let (status, body) = ask(example, &server, folder.path());
        assert_eq!(status, example.status, "{}: {body}", example.command);
        assert_shape(example, &body);
    }
    server.assert_serving();
    server.stop_clean();
}

#[test]
fn each_endpoint_has_a_section_with_an_example_and_a_line_in_the_table() {
    let page = document(PAGE);
    let shown: BTreeSet<_> = examples(&page)
        .into_iter()
        .map(|example| example.endpoint)
        .filter(|endpoint| !endpoint.is_empty())
        .collect();
    assert_eq!(shown, routes());
    for route in routes() {
        let line = format!("| [`{route}`](#");
        assert!(page.contains(&line), "{route} isn't in the table");
    }
}

#[test]
fn another_shape_is_noticed() {
    for (shown, real, same) in [
        (r#"{"a": 1, "b": "x"}"#, r#"{"b": "y", "a": 2}"#, true),
        (r#"{"a": "..."}"#, r#"{"a": [1, {}]}"#, true),
        (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, false),
        (r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#, false),
        (r#"{"a": 1}"#, r#"{"a": "1"}"#, false),
        (r#"{"a": null}"#, r#"{"a": 1}"#, false),
        (r#"["..."]"#, "[]", false),
        (r#"[{"a": 1}]"#, r#"[{"b": 1}]"#, false),
    ] {
        let found = difference(&json(shown), &json(real), "answer");
        assert_eq!(found.is_none(), same, "{shown} and {real}: {found:?}");
    }
}
