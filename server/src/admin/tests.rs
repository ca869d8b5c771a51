//! The port as its clients see it, without a socket.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use weir_cache::{CacheOptions, PageCache};

use super::*;
use crate::backend::MemoryBackend;
use crate::export::Export;

const SIZE: u64 = 1 << 20;

/// A server of two exports, "" and "a b".
struct Port {
    state: Arc<AdminState>,
    service: TowerToHyperService<Router>,
}

const QUOTA: u64 = SIZE / 4;

/// An export with a quota if it has a name.
fn export(name: &str, faults: &Faults) -> Export {
    faults.add_device(name);
    let options = CacheOptions {
        cache_bytes: 1 << 20,
        quota: (!name.is_empty()).then_some(QUOTA),
        ..CacheOptions::default()
    };
    let backend = Arc::new(MemoryBackend::new(SIZE));
    Export {
        name: name.to_owned(),
        description: String::new(),
        source: "memory:1M".to_owned(),
        cache: PageCache::open(backend, &options, faults).unwrap(),
        read_only: false,
        power_cut: None,
        held: Arc::default(),
        remarks: Vec::new(),
    }
}

impl Port {
    fn new() -> Self {
        let faults = Faults::new();
        let exports = ["", "a b"].map(|name| export(name, &faults));
        let state = Arc::new(AdminState {
            exports: Arc::new(exports.into_iter().collect()),
            faults,
            connections: Arc::default(),
            started: Instant::now(),
        });
        let guard = Guard {
            name: None,
            local: true,
            owners: true,
            token: None,
        };
        let service = TowerToHyperService::new(router(Arc::clone(&state), guard));
        Self { state, service }
    }

    async fn send(&self, method: &str, path: &str, body: String) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .unwrap();
        let response = self.service.call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, text) = self.send("GET", path, String::new()).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = self.send("POST", path, body.to_string()).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The status code and the error's text.
    async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, text) = self.send(method, path, body.to_string()).await;
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text:?}"));
        let error = report["error"].as_str();
        (
            status,
            error.unwrap_or_else(|| panic!("{text:?}")).to_owned(),
        )
    }
}

#[tokio::test]
async fn the_shapes_that_scripts_rely_on() {
    let port = Port::new();
    let status = port.get("/v1/status").await;
    let nothing = json!({"rules": 0, "points_armed": 0, "events": 0});
    assert_eq!(status["faults"], nothing);
    assert_eq!(status["exports"].as_array().unwrap().len(), 2);
    let export = port.get("/v1/exports?name=a%20b").await;
    assert_eq!(export["name"], "a b");
    assert_eq!(export["size"], SIZE);
    assert_eq!(export["device"]["offline"], false);
    assert_eq!(port.get("/v1/exports?name=").await["name"], "");
    assert_eq!(port.get("/v1/connections").await, json!([]));
    assert_eq!(port.get("/v1/faults").await, json!([]));
    let points = port.get("/v1/points").await;
    for field in [
        "file", "line", "function", "module", "class", "kind", "errors", "hits", "fires", "state",
    ] {
        assert!(!points[0][field].is_null(), "{field} in {}", points[0]);
    }
}

#[tokio::test]
async fn rules_come_and_go() {
    let port = Port::new();
    let rule = json!({"rule": "write error=EIO seed=1"});
    assert_eq!(port.post("/v1/faults", rule.clone()).await["id"], 1);
    assert_eq!(port.post("/v1/faults", rule).await["id"], 2);
    assert_eq!(
        port.get("/v1/faults").await[1]["text"],
        "write error=EIO seed=1"
    );
    assert_eq!(
        port.send("DELETE", "/v1/faults/1", String::new()).await.0,
        200
    );
    assert_eq!(
        port.send("DELETE", "/v1/faults/1", String::new()).await.0,
        404
    );
    assert_eq!(
        port.send("DELETE", "/v1/faults", String::new()).await.0,
        200
    );
    assert_eq!(port.get("/v1/faults").await, json!([]));
    let wrong = json!({"rule": "wrte error=EIO"});
    let (status, error) = port.refused("POST", "/v1/faults", wrong).await;
    assert_eq!(status, 400);
    assert!(error.contains("wrte"), "{error}");
}

#[tokio::test]
async fn points_are_armed_listed_and_reset() {
    let port = Port::new();
    let path = "/v1/points?query=class%20backend:sync";
    let set = |query| json!({"action": "set", "query": query});
    let armed = port
        .post("/v1/points", set("class backend:sync error ENOSPC"))
        .await;
    let points = port.get(path).await;
    assert_eq!(armed["count"], points.as_array().unwrap().len());
    assert_eq!(points[0]["state"], "error ENOSPC");
    port.post("/v1/points", json!({"action": "reset"})).await;
    assert_eq!(port.get(path).await[0]["state"], "off");
    for query in [
        "class backend:sync error EWHAT",
        "class nothing:here enable",
        "class",
        "",
    ] {
        let refused = port.refused("POST", "/v1/points", set(query)).await;
        assert_eq!(refused.0, 400, "{query}");
    }
}

#[tokio::test]
async fn devices_are_switched() {
    let port = Port::new();
    let device = "/v1/device?name=a%20b";
    for (action, field, expected) in [
        (json!({"action": "offline"}), "offline", json!(true)),
        (json!({"action": "online"}), "offline", json!(false)),
        (json!({"action": "freeze"}), "frozen", json!(true)),
        (json!({"action": "thaw"}), "frozen", json!(false)),
        (
            json!({"action": "read-only", "on": true}),
            "read_only",
            json!(true),
        ),
        (
            json!({"action": "read-only", "on": false}),
            "read_only",
            json!(false),
        ),
        (
            json!({"action": "bad-add", "range": "0..4k"}),
            "bad",
            json!([{"start": 0, "end": 4096}]),
        ),
        (
            json!({"action": "bad-rm", "range": "512..4k"}),
            "bad",
            json!([{"start": 0, "end": 512}]),
        ),
    ] {
        port.post(device, action.clone()).await;
        assert_eq!(port.get(device).await[field], expected, "{action}");
    }
    let (status, error) = port
        .refused("POST", device, json!({"action": "power-cut"}))
        .await;
    assert_eq!(status, 409);
    assert!(error.contains("--power-cut"), "{error}");
}

#[tokio::test]
async fn exports_are_flushed_emptied_and_resized() {
    let port = Port::new();
    let path = "/v1/exports?name=";
    port.post(path, json!({"action": "flush"})).await;
    port.post(path, json!({"action": "drop-cache"})).await;
    port.post(path, json!({"action": "resize", "size": 2 * SIZE}))
        .await;
    assert_eq!(port.state.exports.get("").unwrap().cache.size(), 2 * SIZE);
    assert_eq!(port.state.exports.get("a b").unwrap().cache.size(), SIZE);
    let smaller = json!({"action": "resize", "size": SIZE, "shrink": true});
    port.post(path, smaller).await;
    assert_eq!(port.state.exports.get("").unwrap().cache.size(), SIZE);
}

#[tokio::test]
async fn a_quota_is_shown_with_what_is_used_of_it() {
    let port = Port::new();
    let cache = Arc::clone(&port.state.exports.get("a b").unwrap().cache);
    let context = port.state.faults.context(weir_faults::RequestKinds::WRITE);
    let unit = u64::from(cache.backend().geometry().allocation_unit).max(4096);
    let mut payload = cache.payload(0, 512).await;
    payload.copy_from(&[9; 512]);
    cache.write(&context, payload).await.unwrap();
    let expected = json!({"quota": QUOTA, "used": unit, "free": QUOTA - unit});
    assert_eq!(port.get("/v1/exports?name=a%20b").await["space"], expected);
    assert_eq!(port.get("/v1/exports?name=").await["space"], Value::Null);
    let status = port.get("/v1/status").await;
    assert_eq!(status["exports"][1]["space"], expected);
    let (_, metrics) = port.send("GET", "/metrics", String::new()).await;
    for (name, value) in [("", QUOTA), ("_used", unit), ("_free", QUOTA - unit)] {
        let line = format!("weir_quota{name}_bytes{{export=\"a b\"}} {value}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("weir_quota_bytes{export=\"\"}"));
}

#[tokio::test]
async fn figures_that_do_not_fit_are_refused_and_say_what_would() {
    let port = Port::new();
    let path = "/v1/exports?name=";
    for (action, part) in [
        (json!({"action": "resize", "size": 0}), "one byte at least"),
        (
            json!({"action": "resize", "size": SIZE - 1}),
            "say --shrink",
        ),
        (
            json!({"action": "resize", "size": u64::MAX}),
            "9223372036854771712",
        ),
    ] {
        let (status, error) = port.refused("POST", path, action).await;
        assert_eq!(status, 400, "{error}");
        assert!(error.contains(part), "{error}");
    }
    // Memory can't shift, whatever the figures.
    let shift = json!({"action": "insert-range", "offset": 1, "length": 0});
    let (status, error) = port.refused("POST", path, shift).await;
    assert_eq!(status, 501, "{error}");
    assert_eq!(port.state.exports.get("").unwrap().cache.size(), SIZE);
}

#[tokio::test]
async fn refusals_are_json_with_the_right_code() {
    let port = Port::new();
    for (method, path, body, code) in [
        ("GET", "/", Value::Null, 404),
        ("GET", "/v1/exports?name=none", Value::Null, 404),
        ("POST", "/v1/exports", json!({"action": "flush"}), 400),
        (
            "POST",
            "/v1/exports?name=",
            json!({"action": "explode"}),
            422,
        ),
        ("GET", "/v1/exports?nam=x", Value::Null, 400),
        ("DELETE", "/v1/exports", Value::Null, 405),
        ("DELETE", "/v1/connections/7", Value::Null, 404),
        ("DELETE", "/v1/connections/x", Value::Null, 400),
        (
            "POST",
            "/v1/faults",
            json!({"rule": "read hang", "x": 1}),
            422,
        ),
        (
            "POST",
            "/v1/faults/replay",
            json!({"script": "nonsense"}),
            400,
        ),
        ("GET", "/v1/points?query=claas%20x", Value::Null, 400),
    ] {
        let (status, error) = port.refused(method, path, body).await;
        assert_eq!(status, code, "{method} {path}: {error}");
    }
    assert_eq!(port.send("POST", "/v1/faults", "{".to_owned()).await.0, 400);
    let long = " ".repeat(BODY_BYTES_MAX + 1);
    assert_eq!(port.send("POST", "/v1/faults", long).await.0, 413);
}

#[tokio::test]
async fn a_foreign_host_reaches_nothing() {
    let port = Port::new();
    let request = Request::builder()
        .uri("/metrics")
        .header(header::HOST, "evil.example")
        .body(Body::empty())
        .unwrap();
    let response = port.service.call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn events_are_lines_of_json_and_can_be_fed_back() {
    let port = Port::new();
    let faults = &port.state.faults;
    faults.add_rule("write error=EIO").unwrap();
    let request = weir_faults::RequestView {
        export: "a b",
        connection: 3,
        kind: weir_faults::RequestKind::Write,
        offset: 4096,
        length: 512,
        fua: false,
    };
    assert!(faults.decide(&request).is_some());
    let (_, lines) = port
        .send("GET", "/v1/events?follow=false", String::new())
        .await;
    let event: weir_faults::Event = serde_json::from_str(lines.trim_end()).unwrap();
    assert_eq!(event.number, 1);
    faults.clear_rules();
    let script = json!({"script": event.to_string()});
    let report = port.post("/v1/faults/replay", script).await;
    assert_eq!(report, json!({"requests": 1, "skipped": 0}));
    assert!(faults.decide(&request).is_some(), "it fails again");
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads() {
    let (status, text) = Port::new().send("GET", "/metrics", String::new()).await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"));
    for line in [
        "weir_cache_resident_bytes{export=\"a b\"} 0\n",
        "weir_cache_hits_total{export=\"\"} 0\n",
        "weir_faults_fired_total 0\n",
        "weir_log_lines_dropped_total 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect(line);
        assert!(name.starts_with("weir_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}
