use super::*;

#[test]
fn addresses_as_the_server_prints_them() {
    for (text, address) in [
        ("127.0.0.1:10810", "127.0.0.1:10810"),
        ("http://127.0.0.1:10810", "127.0.0.1:10810"),
        ("http://[::1]:1/", "[::1]:1"),
        ("unix:/run/a", "unix:/run/a"),
    ] {
        assert_eq!(parse_address(text).unwrap().to_string(), address);
    }
    assert!(parse_address("nowhere").unwrap_err().contains("nowhere"));
}

#[test]
fn names_are_percent_encoded() {
    assert_eq!(named("/v1/exports", ""), "/v1/exports?name=");
    assert_eq!(
        named("/x", "a b&c=\u{e9}%"),
        "/x?name=a%20b%26c%3D%C3%A9%25"
    );
}

#[tokio::test]
async fn nobody_there_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client {
        address: Address::Unix(folder.path().join("none")),
        token: None,
        json: false,
    };
    let error = client.get::<ErrorReport>("/v1/status").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ClientError::NoServer { .. }));
    assert!(
        text.contains("none") && text.contains("--no-admin"),
        "{text}"
    );
    assert!(!text.contains('\n'));
}
