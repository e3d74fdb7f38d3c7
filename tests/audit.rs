//! The audit log: each change with who, what, and its result, by the API and by verbs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::gateway::{GatewayDir, built_guest};

fn events(scene: &GatewayDir) -> Vec<Value> {
    let text = fs::read_to_string(scene.path("data/audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn last(scene: &GatewayDir) -> [String; 4] {
    let event = events(scene).pop().expect("an event");
    ["who", "action", "object", "outcome"].map(|key| event[key].as_str().unwrap().to_owned())
}

#[test]
fn each_change_is_in_the_audit_log_with_who_and_what_and_its_result() {
    let mut scene = GatewayDir::new();
    let tokens = scene.path("tokens");
    fs::create_dir(&tokens).unwrap();
    fs::write(tokens.join("acme"), "tok-acme\n").unwrap();
    fs::set_permissions(tokens.join("acme"), fs::Permissions::from_mode(0o600)).unwrap();
    scene.configure_admin("[output]\nkind = \"file\"\n", "tenant_tokens_dir = \"tokens\"\n");
    scene.set_token("operator-token");
    let gateway = scene.start();
    let pump = fs::read(built_guest("pump")).unwrap();
    let put = |token: &str, path: &str, body: &[u8]| gateway.request("PUT", path, Some(token), body).0;

    assert_eq!(put("tok-acme", "/api/v1/guests/acme/pump", &pump), 200);
    assert_eq!(last(&scene), ["tenant acme", "guest put", "acme/pump", "done"]);
    assert_eq!(events(&scene).pop().unwrap()["digest"].as_str().unwrap().len(), 64);
    assert_eq!(put("operator-token", "/api/v1/guests/acme/other", b"no component"), 422);
    assert_eq!(last(&scene), ["operator", "guest put", "acme/other", "MAY_NOT_SERVE"]);
    gateway.ask("POST", "/api/v1/guests/acme/pump/rollback", Some("tok-acme"), "");
    assert_eq!(last(&scene)[..3], ["tenant acme", "guest rollback", "acme/pump"]);
    assert_eq!(gateway.ask("DELETE", "/api/v1/guests/acme/pump", Some("tok-acme"), "").0, 200);
    assert_eq!(last(&scene), ["tenant acme", "guest rm", "acme/pump", "done"]);
    gateway.ask("POST", "/api/v1/quarantine/replay", Some("operator-token"), "{\"tenant\":\"acme\"}");
    assert_eq!(last(&scene), ["operator", "quarantine replay", "tenant=acme", "done"]);
    gateway.ask("DELETE", "/api/v1/quarantine/entries?all=true", Some("operator-token"), "");
    assert_eq!(last(&scene), ["operator", "quarantine rm", "all", "done"]);

    let before = events(&scene).len();
    assert_eq!(
        put("wrong", "/api/v1/guests/acme/pump", &pump),
        401,
        "strangers change nothing, so they fill nothing"
    );
    assert_eq!(events(&scene).len(), before);

    // What is refused before the component is looked at is a refused change, too.
    assert_eq!(put("tok-acme", "/api/v1/guests/acme/a%2Fb", &pump), 400);
    assert_eq!(last(&scene), ["tenant acme", "guest put", "acme/a/b", "BAD_NAME"]);
    let long = format!("/api/v1/guests/acme/{}", "n".repeat(20_000));
    assert_eq!(put("tok-acme", &long, &pump), 400);
    assert_eq!(last(&scene)[2].len(), 512);
    // A flood fills nothing: the operator's changes stay in the file.
    let bad = |n: usize| gateway.ask("POST", &format!("{long}{n}/rollback"), Some("tok-acme"), "").0;
    let before = events(&scene).len();
    let limited = (0..1_000).filter(|&n| bad(n) == 429).count();
    assert!(limited > 0 && events(&scene).len() == before + 1_000 - limited);
    let log = scene.log();
    assert!(log.contains("tidegate::audit") && log.contains("guest rm"), "{log}");
    assert!(!log.contains("tok-acme") && !log.contains("operator-token"));

    for (verb, token) in
        [(&["device", "put", "acme", "d", "--site", "s"][..], "t"), (&["device", "rm", "acme", "d"], "")]
    {
        assert!(scene.verb(verb, token).0.success());
        let [who, action, object, outcome] = last(&scene);
        assert!(who.starts_with("uid "), "{who}");
        assert_eq!((action, object.as_str(), outcome.as_str()), (verb[..2].join(" "), "acme/d", "done"));
    }
    gateway.stop();
    let file = built_guest("pump").display().to_string();
    assert!(scene.verb(&["guest", "put", "acme", "pump", &file], "").0.success());
    assert_eq!(last(&scene)[1..], ["guest put", "acme/pump", "done"]);
    let mode = fs::metadata(scene.path("data/audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
