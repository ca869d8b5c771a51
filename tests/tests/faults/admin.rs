//! The admin port as its other users meet it: web pages, Prometheus, people on other machines.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;
use weir_tests::pattern::bytes;
use weir_tests::process::eventually;
use weir_tests::server::weir_in;

use crate::support::{Rig, SOON};

/// Sends a request with these headers; the status and the body of the answer.
#[track_caller]
fn http(admin: &str, line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let length = format!("Content-Length: {}", body.len());
    let mut request = format!("{line} HTTP/1.1\r\n");
    for header in headers
        .iter()
        .copied()
        .chain(["Connection: close", &length])
    {
        request += header;
        request += "\r\n";
    }
    request += "\r\n";
    request += body;
    let answer = match admin.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path).expect("the admin port");
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            exchange(stream, &request)
        }
        None => {
            let address = admin.trim_start_matches("http://").trim_end_matches('/');
            let stream = TcpStream::connect(address).expect("the admin port");
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            exchange(stream, &request)
        }
    };
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{line}: {answer:?}"));
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (status, body.to_owned())
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn token_file(folder: &Path, token: &str) -> String {
    let path = folder.join(format!("token-{token}"));
    fs::write(&path, format!("{token}\n")).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path.display().to_string()
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn its_socket_is_its_owners_alone() {
    let rig = Rig::new();
    let socket = rig.folder().join("admin.sock");
    let mode = fs::metadata(&socket)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    rig.server.stop_clean();
    assert!(!socket.exists(), "a clean stop leaves a socket behind");
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn foreign_hosts_and_origins_change_nothing() {
    let tcp = Rig::with(|builder| builder.admin_at("127.0.0.1:0"));
    let own = tcp.server.admin().trim_start_matches("http://").to_owned();
    let rule = r#"{"rule": "any error=EIO"}"#;
    let json = "Content-Type: application/json";
    // Over TCP nothing is changed without a token, whatever else is right.
    for (rig, refusal) in [(&Rig::new(), 415), (&tcp, 403)] {
        let admin = rig.server.admin();
        for headers in [
            &["Host: evil.example", json][..],
            &["Host: evil.example:10810", json],
            &["Host: localhost.evil.example", json],
            &["Host: 192.0.2.1", json],
            &["Host: localhost", "Host: localhost", json],
            &[json],
            &["Host: localhost", "Origin: http://evil.example", json],
            &["Host: localhost", "Origin: null", json],
            &["Host: localhost", "Origin: http://localhost:3000", json],
        ] {
            let (status, body) = http(admin, "POST /v1/faults", headers, rule);
            assert!(status == 403 || status == 400, "{headers:?}: {status}");
            if status == 403 {
                let error: Value = serde_json::from_str(&body).expect("JSON");
                assert!(error["error"].is_string(), "{body}");
            }
            let (status, _) = http(admin, "GET /v1/status", headers, "");
            assert!(status == 403 || status == 400, "{headers:?}: {status}");
        }
        // What a page can post without asking first isn't JSON by its header.
        let plain = ["Host: localhost", "Content-Type: text/plain"];
        let (status, _) = http(admin, "POST /v1/faults", &plain, rule);
        assert_eq!(status, refusal);
        assert_eq!(rig.json("fault list"), serde_json::json!([]));
        for host in ["localhost", "127.0.0.1:1", &own] {
            let host = format!("Host: {host}");
            let (status, _) = http(admin, "GET /v1/status", &[&host], "");
            assert_eq!(status, 200, "{host}");
        }
    }
    tcp.server.stop_clean();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn an_address_for_other_machines_needs_a_token() {
    let plain = Rig::new();
    let folder = plain.folder();
    let words = [
        "serve",
        "memory:1M",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "0.0.0.0:0",
    ];
    let done = weir_in(folder, words).expect_code(1);
    assert!(
        done.stderr.contains("--admin-token-file"),
        "{}",
        done.stderr
    );

    let right = token_file(folder, "right");
    let wrong = token_file(folder, "wrong");
    let rig = Rig::with(|builder| {
        let builder = builder.option("--admin-token-file", &right);
        builder.admin_at("0.0.0.0:0")
    });
    let port = rig.server.admin().rsplit(':').next().expect("a port");
    let admin = format!("127.0.0.1:{}", port.trim_end_matches('/'));
    let ask = |headers: &[&str]| http(&admin, "GET /v1/status", headers, "").0;
    assert_eq!(ask(&["Host: localhost"]), 401);
    let with = |token: &str| ask(&["Host: localhost", &format!("Authorization: {token}")]);
    assert_eq!(with("Bearer wrong"), 401);
    assert_eq!(with("Basic right"), 401);
    assert_eq!(with("Bearer right"), 200);
    let bearer = "Authorization: Bearer right";
    assert_eq!(ask(&["Host: evil.example", bearer]), 403);

    let weir = |token: &[&str]| {
        let words = ["fault", "list", "--json", "--admin", &admin];
        weir_in(folder, words.iter().chain(token))
    };
    let done = weir(&[]).expect_code(1);
    assert!(done.stderr.contains("token"), "{}", done.stderr);
    let done = weir(&["--admin-token-file", &wrong]).expect_code(1);
    assert!(done.stderr.contains("wrong token"), "{}", done.stderr);
    weir(&["--admin-token-file", &right]).expect_code(0);
    rig.server.stop_clean();
    plain.finish();
}

/// The value of the series that is named by its name and labels.
#[track_caller]
fn figure(metrics: &str, series: &str) -> f64 {
    let mut found = metrics.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then(|| value.parse::<f64>().expect("a figure"))
    });
    let value = found
        .next()
        .unwrap_or_else(|| panic!("no {series} in\n{metrics}"));
    assert!(found.next().is_none(), "{series} twice");
    value
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
#[expect(clippy::float_cmp, reason = "counts are whole numbers")]
fn metrics_count_what_was_done() {
    let rig = Rig::new();
    let mut client = rig.client();
    client.write(0, &bytes(1, 8192)).expect("a write");
    client.write(0, &bytes(2, 4096)).expect("a write");
    for _ in 0..5 {
        client.read(0, 4096).expect("a hit");
    }
    rig.add("read error=EIO");
    for _ in 0..2 {
        client.read(0, 4096).expect_err("it fails");
    }
    client.flush().expect("a flush");
    let scrape = || {
        let headers = ["Host: localhost"];
        let (status, text) = http(rig.server.admin(), "GET /metrics", &headers, "");
        assert_eq!(status, 200);
        text
    };
    // A request is counted just after its reply was sent.
    let last = "weir_requests_total{export=\"\",command=\"flush\"} 1\n";
    eventually("the flush is counted", SOON, || scrape().contains(last));
    let text = scrape();
    assert!(text.contains("# EOF"), "{text}");
    for line in text.lines().filter(|line| line.starts_with("weir_")) {
        let (_, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for (series, expected) in [
        ("weir_requests_total{export=\"\",command=\"read\"}", 7.0),
        ("weir_requests_total{export=\"\",command=\"write\"}", 2.0),
        ("weir_requests_total{export=\"\",command=\"flush\"}", 1.0),
        (
            "weir_request_bytes_total{export=\"\",command=\"write\"}",
            12_288.0,
        ),
        (
            "weir_request_errors_total{export=\"\",command=\"read\"}",
            2.0,
        ),
        (
            "weir_request_errors_total{export=\"\",command=\"write\"}",
            0.0,
        ),
        (
            "weir_request_seconds_count{export=\"\",command=\"read\"}",
            7.0,
        ),
        ("weir_cache_writeback_bytes_total{export=\"\"}", 8192.0),
        ("weir_cache_dirty_bytes{export=\"\"}", 0.0),
        ("weir_cache_resident_bytes{export=\"\"}", 8192.0),
        ("weir_cache_resident_bytes{export=\"db\"}", 0.0),
        ("weir_connections", 1.0),
        ("weir_fault_rules", 1.0),
        ("weir_faults_fired_total", 2.0),
    ] {
        assert_eq!(figure(&text, series), expected, "{series}");
    }
    assert!(figure(&text, "weir_cache_hits_total{export=\"\"}") >= 5.0);
    rig.finish();
}

#[test]
#[ignore = "needs the release build; run by tests/run"]
fn errors_are_json_with_a_status() {
    let rig = Rig::new();
    for (line, expected) in [
        ("GET /v1/nothing", 404),
        ("GET /v1/connections/77", 404),
        ("GET /v1/exports?name=nobody", 404),
        ("DELETE /v1/faults/77", 404),
        ("DELETE /v1/status", 405),
        ("GET /v1/points?query=colour", 400),
        ("GET /v1/points?colour=red", 400),
    ] {
        let (status, body) = http(rig.server.admin(), line, &["Host: localhost"], "");
        assert_eq!(status, expected, "{line}");
        let error: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{line}: {body}"));
        assert!(error["error"].is_string(), "{line}: {body}");
    }
    for body in [
        "",
        "{",
        "{}",
        r#"{"rule": 5}"#,
        r#"{"rule": "read drop", "x": 1}"#,
    ] {
        let headers = ["Host: localhost", "Content-Type: application/json"];
        let (status, said) = http(rig.server.admin(), "POST /v1/faults", &headers, body);
        assert!((400..500).contains(&status), "{body}: {status} {said}");
    }
    assert_eq!(rig.json("fault list"), serde_json::json!([]));
    rig.finish();
}
