use std::slice;

use axum::http::HeaderName;

use super::*;

fn guard(local: bool, token: Option<&str>) -> Guard {
    Guard {
        name: Some("storage.example".to_owned()),
        local,
        owners: false,
        token: token.map(|text| Token::new(text).unwrap()),
    }
}

fn admit(guard: &Guard, headers: &[(HeaderName, &str)]) -> Result<(), u16> {
    admit_method(guard, &Method::GET, headers)
}

fn admit_method(guard: &Guard, method: &Method, headers: &[(HeaderName, &str)]) -> Result<(), u16> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, value.parse().unwrap());
    }
    let outcome = guard.admit(method, &Uri::from_static("/v1/status"), &map);
    outcome.map_err(|(status, _)| status.as_u16())
}

#[test]
fn hosts_that_can_only_mean_this_server() {
    let local = guard(true, None);
    for host in [
        "127.0.0.1:10810",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]:10810",
        "[::1]",
        "localhost:10810",
        "LOCALHOST",
        "storage.example:1",
    ] {
        assert_eq!(admit(&local, &[(header::HOST, host)]), Ok(()), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:10810",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1:10810",
        "0.0.0.0",
        "",
        ":10810",
        "localhost:10810:1",
        "localhost:x",
        "[::1",
        "[::1]x",
        "127.0.0.1@evil.example",
    ] {
        assert_eq!(admit(&local, &[(header::HOST, host)]), Err(403), "{host}");
    }
    assert_eq!(admit(&local, &[]), Err(403));
    let twice = [(header::HOST, "localhost"), (header::HOST, "localhost")];
    assert_eq!(admit(&local, &twice), Err(403));
}

#[test]
fn an_absolute_target_is_a_host_too() {
    let guard = guard(true, None);
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, "localhost".parse().unwrap());
    let target = Uri::from_static("http://evil.example/v1/status");
    assert!(guard.admit(&Method::GET, &target, &headers).is_err());
}

#[test]
fn addresses_are_enough_where_a_token_is_asked_for() {
    let open = guard(false, Some("secret"));
    let with = |host| {
        let token = (header::AUTHORIZATION, "Bearer secret");
        admit(&open, &[(header::HOST, host), token])
    };
    assert_eq!(with("192.0.2.1:10810"), Ok(()));
    assert_eq!(with("evil.example"), Err(403));
}

#[test]
fn over_tcp_nothing_changes_without_a_token() {
    let host = (header::HOST, "localhost");
    let bearer = (header::AUTHORIZATION, "Bearer s3cret");
    let changes = [Method::POST, Method::DELETE, Method::PUT, Method::PATCH];
    let tcp = guard(true, None);
    assert_eq!(
        admit_method(&tcp, &Method::GET, slice::from_ref(&host)),
        Ok(())
    );
    assert_eq!(
        admit_method(&tcp, &Method::HEAD, slice::from_ref(&host)),
        Ok(())
    );
    let with_token = guard(true, Some("s3cret"));
    let owners = Guard {
        owners: true,
        ..guard(true, None)
    };
    for method in &changes {
        assert_eq!(admit_method(&tcp, method, slice::from_ref(&host)), Err(403));
        // A token means nothing to a port that has none.
        let headers = [host.clone(), bearer.clone()];
        assert_eq!(admit_method(&tcp, method, &headers), Err(403));
        assert_eq!(admit_method(&with_token, method, &headers), Ok(()));
        assert_eq!(
            admit_method(&with_token, method, &headers[..1]),
            Err(401),
            "{method}"
        );
        assert_eq!(
            admit_method(&owners, method, slice::from_ref(&host)),
            Ok(())
        );
    }
}

#[test]
fn only_ones_own_origin() {
    let guard = guard(true, None);
    let with = |origin| {
        let headers = [(header::HOST, "localhost:10810"), (header::ORIGIN, origin)];
        admit(&guard, &headers)
    };
    assert_eq!(with("http://localhost:10810"), Ok(()));
    for origin in [
        "null",
        "http://evil.example",
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:10810",
        "http://127.0.0.1:10810",
    ] {
        assert_eq!(with(origin), Err(403), "{origin}");
    }
}

#[test]
fn tokens() {
    let guard = guard(true, Some("s3cret"));
    let with = |authorization: Option<&str>| {
        let mut headers = vec![(header::HOST, "localhost")];
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, value)));
        admit(&guard, &headers)
    };
    assert_eq!(with(Some("Bearer s3cret")), Ok(()));
    assert_eq!(with(Some("bearer s3cret")), Ok(()));
    for wrong in [
        None,
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer s3cre"),
        Some("Bearer s3cret1"),
        Some("Bearer s3crets3cret"),
        Some("Bearer S3cret"),
        Some("Basic s3cret"),
        Some("s3cret"),
    ] {
        assert_eq!(with(wrong), Err(401), "{wrong:?}");
    }
}
