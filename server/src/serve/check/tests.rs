use super::*;
use crate::cli::serve::ServeOptions;

/// Settings of a server of `memory:1M`, with the changes that are given here.
fn settings(change: impl FnOnce(&mut ServeOptions)) -> Settings {
    let mut options = ServeOptions {
        source: Some("memory:1M".parse().unwrap()),
        no_admin: Some(true),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ..ServeOptions::default()
    };
    change(&mut options);
    Settings::resolve(options).unwrap()
}

fn refusal(change: impl FnOnce(&mut ServeOptions)) -> String {
    let settings = settings(change);
    let outcome = check(&settings).map(drop);
    let outcome = outcome.and_then(|()| check_addresses(&settings));
    outcome.expect_err("refused").to_string()
}

#[test]
fn rules_are_looked_at() {
    let rule = |text: &str| refusal(|options| options.fault = vec![text.to_owned()]);
    assert!(rule("write error=EWHAT").contains("EWHAT"));
    assert!(rule("write export=nobody error=EIO").contains("nobody"));
    assert!(rule("write misdirect=1M").contains("beyond the end"));
    let good = settings(|options| options.fault = vec!["write misdirect=4k".to_owned()]);
    assert_eq!(check(&good).unwrap().rules().len(), 1, "armed");
}

#[test]
fn addresses_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let unix = |path: &Path| format!("unix:{}", path.display()).parse().unwrap();
    let listen = |address| refusal(|options| options.listen = vec![address]);
    // From the documentation's network, which no machine has.
    assert!(listen("192.0.2.1:10809".parse().unwrap()).contains("192.0.2.1"));
    assert!(listen(unix(&folder.path().join("no/such/s"))).contains("no/such"));
    assert!(listen(unix(&file)).contains("no socket"));
    assert!(listen(unix(&folder.path().join("s".repeat(200)))).contains("sss"));
    let admin = refusal(|options| {
        options.no_admin = None;
        options.admin = Some("0.0.0.0:0".parse().unwrap());
    });
    assert!(admin.contains("--admin-token-file"), "{admin}");
    let token = refusal(|options| {
        options.no_admin = None;
        options.admin = Some(unix(&folder.path().join("a")));
        options.admin_token_file = Some(folder.path().join("none"));
    });
    assert!(token.contains("none"), "{token}");
    // The server that listens there now may be the one that will get this configuration.
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string().parse().unwrap();
    check_addresses(&settings(|options| options.listen = vec![address])).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn sources_are_looked_at_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("x.img");
    std::fs::write(&image, [0; 4096]).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let export = |text: String| refusal(|options| options.export = vec![text.parse().unwrap()]);
    assert!(export(format!("a={}", path("missing"))).contains("missing"));
    assert!(export(format!("a={},size=8k", path("x.img"))).contains("4096"));
    assert!(export("a=memory:0".to_owned()).contains("memory:0"));
    assert!(export("a=memory:1M,size=2M".to_owned()).contains("contradict"));
    let twice = |read_only: &str| {
        let specs = ["a=", "b="].map(|name| {
            let text = format!("{name}{}{read_only}", path("./x.img"));
            text.parse().unwrap()
        });
        check(&settings(|options| options.export = specs.into())).map(drop)
    };
    assert!(
        twice("")
            .unwrap_err()
            .to_string()
            .contains("served already")
    );
    twice(",read-only").unwrap();
    let new = format!("a={},size=1M", path("new.img"));
    check(&settings(|options| {
        options.export = vec![new.parse().unwrap()]
    }))
    .unwrap();
    assert!(!folder.path().join("new.img").exists());
}
