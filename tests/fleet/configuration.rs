//! A configuration from afar: a version holds once it is whole and passes every check, and the last good one is taken
//! where no other can be had.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::config_server::{Answer, ConfigServer};
use crate::harness::gateway::{Gateway, GatewayDir, tidegate};

/// A folder without a configuration, and the text of one that is good, in which `more` stands last.
fn scene() -> (GatewayDir, impl Fn(&str) -> String) {
    let scene = GatewayDir::new();
    scene.configure("[output]\nkind = \"file\"\n[fleet]\nconfig_poll_s = 1\n");
    let text = std::fs::read_to_string(scene.path("tidegate.toml")).unwrap();
    std::fs::remove_file(scene.path("tidegate.toml")).unwrap();
    let text = text.replace("data_dir = \"data\"\n", "");
    (scene, move |more: &str| format!("{text}\n{more}\n"))
}

fn start<'a>(scene: &'a GatewayDir, place: &str) -> Gateway<'a> {
    let mut command = tidegate();
    command.args(["run", "--config", place]);
    scene.start_unready_by(command)
}

fn origin(gateway: &Gateway<'_>) -> Value {
    gateway.json("/api/v1/configuration")["origin"].clone()
}

/// The value of a key that holds.
fn value(gateway: &Gateway<'_>, key: &str) -> Value {
    let all = gateway.json("/api/v1/configuration");
    let values = all["values"].as_array().unwrap();
    values.iter().find(|value| value["key"] == key).map(|value| value["value"].clone()).unwrap_or_default()
}

/// Runs a start that must fail; gives its exit code and what it says.
fn fails(scene: &GatewayDir, place: &str) -> (Option<i32>, String) {
    let (status, _, errors) = scene.verb(&["run", "--config", place], "");
    (status.code(), errors)
}

const RATE: &str = "tenants.acme.rate_per_s";

#[test]
fn a_version_holds_once_it_is_whole_and_passes_every_check() {
    let (scene, text) = scene();
    let server = ConfigServer::start();
    server.give(&text("[tenants.acme]\nrate_per_s = 1"), "\"v1\"", Answer::Whole);
    let gateway = start(&scene, &server.url);
    assert_eq!(value(&gateway, RATE), 1.0);
    assert_eq!(origin(&gateway)["version"]["tag"], "\"v1\"");
    let (given, known) = server.counts();
    gateway.wait("asked again", |_| server.counts().1 > known + 1);
    assert_eq!(server.counts().0, given, "a version that is known is not sent again");

    // Live keys hold at once; what needs a restart is named.
    server.give(&text("[tenants.acme]\nrate_per_s = 2"), "\"v2\"", Answer::Chunked);
    gateway.wait("the second version", |gateway| value(gateway, RATE) == 2.0);
    server.give(&text("[tenants.acme]\nrate_per_s = 3\n[quarantine]\ndays_max = 9"), "\"v3\"", Answer::Whole);
    gateway.wait("the third version", |gateway| value(gateway, RATE) == 3.0);
    assert_eq!(
        gateway.json("/api/v1/configuration")["needs_restart"],
        serde_json::json!(["quarantine.days_max"])
    );
    assert!(scene.log().contains("quarantine.days_max"), "{}", scene.log());

    // Each fault is named with its reason where the operator looks, and changes nothing.
    let bad = "[tenants.acme]\nrate_per_s = 99";
    for (answer, word) in [
        (Answer::Half, "in part"),
        (Answer::HalfChunked, "in part"),
        (Answer::Endless, "neither Content-Length"),
        (Answer::Huge, "larger than"),
        (Answer::WrongDigest, "digest"),
        (Answer::Redirect, "http://127.0.0.1:1/"),
        (Answer::Status(500), "500"),
        (Answer::Status(404), "404"),
        (Answer::Nothing, "no answer"),
    ] {
        server.give(&text(bad), "\"half\"", answer);
        gateway.wait(word, |gateway| {
            origin(gateway)["unreachable"]
                .as_str()
                .is_some_and(|why| why.contains(word) && why.contains(&server.url))
        });
        assert!(scene.log().contains(word), "{word}: {}", scene.log());
        assert_eq!(value(&gateway, RATE), 3.0, "{answer:?}");
    }
    let (status, output, _) = scene.verb(&["doctor", "--config", &server.url], "");
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("No version can be had"), "{output}");

    for (number, (more, word)) in [
        ("[tenants.acme]\nrate_per_s = ", "line"),
        ("[tenants.acme]\nrate_per_sec = 4", "rate_per_sec"),
        ("[tenants.acme]\nrate_per_s = -4", "rate_per_s"),
        ("[registry]\nfile = \"no-such-file.csv\"", "no-such-file.csv"),
        ("[guests]\ndir = \"none\"\n[output2]", "output2"),
    ]
    .into_iter()
    .enumerate()
    {
        let tag = format!("\"bad{number}\"");
        server.give(&text(more), &tag, Answer::Whole);
        gateway.wait(word, |gateway| origin(gateway)["refused"]["tag"] == tag);
        let refused = origin(&gateway)["refused"].clone();
        assert!(refused["why"].as_str().unwrap().contains(word), "{refused}");
        assert!(scene.log().contains(word), "{word}: {}", scene.log());
        assert_eq!(value(&gateway, RATE), 3.0, "{more}");
    }
    server.give(&format!("data_dir = \"elsewhere\"\n{}", text("")), "\"elsewhere\"", Answer::Whole);
    gateway.wait("refused", |gateway| {
        origin(gateway)["refused"]["why"].as_str().is_some_and(|why| why.contains("TIDEGATE_DATA_DIR"))
    });
    // It is not sent again and again.
    let (given, known) = server.counts();
    gateway.wait("asked again", |_| server.counts().1 > known + 1);
    assert_eq!(server.counts().0, given);
    let (status, output, _) = scene.verb(&["doctor", "--config", &server.url], "");
    assert!(status.code() == Some(1) && output.contains("is refused"), "{output}");
    let (status, _, errors) = scene.verb(&["validate", "--config", &server.url], "");
    assert!(status.code() == Some(2) && errors.contains("elsewhere"), "{errors}");

    // The version that holds is there again: nothing is refused.
    server.give(&text("[tenants.acme]\nrate_per_s = 3\n[quarantine]\ndays_max = 9"), "\"v3\"", Answer::Whole);
    gateway.wait("well", |gateway| origin(gateway)["refused"].is_null());
    let (_, output, _) = scene.verb(&["doctor", "--config", &server.url], "");
    assert!(output.contains("passes all checks"), "{output}");
    let (status, output, errors) = scene.verb(&["books", "--config", &server.url], "");
    assert!(status.success() && output.contains("the books balance"), "{output}{errors}");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_start_without_a_good_version_takes_the_last_one_that_was_kept() {
    let (scene, text) = scene();
    let server = ConfigServer::start();
    let first = text("[tenants.acme]\nrate_per_s = 1");

    // Nothing was kept: it does not start, and says both.
    let (code, errors) = fails(&scene, &server.url);
    assert!(code == Some(2) && errors.contains("no answer") && errors.contains("none was kept"), "{errors}");
    server.give(&text("[quarantine]\ndays_max = 0"), "\"v0\"", Answer::Whole);
    let (code, errors) = fails(&scene, &server.url);
    assert!(code == Some(2) && errors.contains("days_max"), "{errors}");
    assert!(!scene.path("tidegate-data/configuration.toml").exists());

    server.want("letmein");
    server.give(&first, "\"v1\"", Answer::Whole);
    let (code, errors) = fails(&scene, &server.url);
    assert!(code == Some(2) && errors.contains("401"), "{errors}");
    std::fs::write(scene.path("config.token"), "LetMeIn\n").unwrap();
    let with_token = |place: &str| {
        let mut command = tidegate();
        command.args(["run", "--config", place]).env("TIDEGATE_CONFIG_TOKEN_FILE", "config.token");
        command
    };
    let gateway = scene.start_unready_by(with_token(&server.url));
    gateway.wait("kept", |_| scene.path("tidegate-data/configuration.toml").exists());
    gateway.kill();

    // Without the server, with a broken version, and with half of one.
    for (answer, more, word) in [
        (Answer::Nothing, "", "no answer"),
        (Answer::Half, "", "in part"),
        (Answer::Whole, "[tenants.acme]\nrate_per_s = -1", "rate_per_s"),
    ] {
        server.give(&text(more), "\"v2\"", answer);
        let gateway = scene.start_unready_by(with_token(&server.url));
        assert_eq!(value(&gateway, RATE), 1.0, "{word}");
        let origin = origin(&gateway);
        assert!(origin["from_kept"] == true && origin.to_string().contains(word), "{origin}");
        assert!(scene.log().contains("last good one"), "{}", scene.log());
        // The server is well again, with a newer one.
        let rate = "[tenants.acme]\nrate_per_s = 5";
        if word == "rate_per_s" {
            server.give(&text(rate), "\"v3\"", Answer::Whole);
            gateway.wait("the new version", |gateway| value(gateway, RATE) == 5.0);
            assert_eq!(self::origin(&gateway)["from_kept"], false);
        }
        gateway.kill();
    }

    // What was kept of another place, or is damaged, is not taken.
    server.give("", "", Answer::Nothing);
    let (code, errors) = fails(&scene, &server.url.replace("tidegate.toml", "other.toml"));
    assert!(code == Some(2) && errors.contains("is of http://"), "{errors}");
    let kept = scene.path("tidegate-data/configuration.toml");
    let whole = std::fs::read_to_string(&kept).unwrap();
    assert!(whole.contains("rate_per_s = 5"));
    std::fs::write(&kept, &whole[..whole.len() - 3]).unwrap();
    let (code, errors) = fails(&scene, &server.url);
    assert!(code == Some(2) && errors.contains("damaged"), "{errors}");
    let (code, errors) = fails(&scene, "http://192.0.2.1/tidegate.toml");
    assert!(code == Some(2) && errors.contains("https://"), "{errors}");
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git (Debian package git) is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_checkout_is_followed_from_commit_to_commit() {
    let (scene, text) = scene();
    let checkout = scene.path("checkout");
    let path = checkout.to_str().unwrap();
    std::fs::create_dir(&checkout).unwrap();
    git(&checkout, &["init", "--quiet"]);
    let commit = |text: &str| {
        std::fs::write(checkout.join("tidegate.toml"), text).unwrap();
        git(&checkout, &["add", "tidegate.toml"]);
        git(&checkout, &["commit", "--quiet", "-m", "a version"]);
        git(&checkout, &["rev-parse", "HEAD"])
    };
    let first = commit(&text("[tenants.acme]\nrate_per_s = 1"));
    let gateway = start(&scene, path);
    assert_eq!(
        (value(&gateway, RATE), origin(&gateway)["version"]["tag"].clone()),
        (1.0.into(), first.into())
    );
    let second = commit(&text("[tenants.acme]\nrate_per_s = 2"));
    gateway.wait("the second commit", |gateway| origin(gateway)["version"]["tag"] == second);
    gateway.wait("applied", |gateway| value(gateway, RATE) == 2.0);
    let bad = commit(&text("[tenants.acme]\nrate_per_s = \"many\""));
    gateway.wait("refused", |gateway| origin(gateway)["refused"]["tag"] == bad);
    // While git changes the checkout it is not read.
    std::fs::write(checkout.join(".git/index.lock"), "").unwrap();
    std::fs::write(checkout.join("tidegate.toml"), text("[tenants.acme]\nrate_per_s = 7")).unwrap();
    gateway.wait("busy", |gateway| {
        origin(gateway)["unreachable"].as_str().is_some_and(|why| why.contains("index.lock"))
    });
    assert_eq!(value(&gateway, RATE), 2.0);
    std::fs::remove_file(checkout.join(".git/index.lock")).unwrap();
    gateway.wait_for(Duration::from_secs(30), "read again", |gateway| value(gateway, RATE) == 7.0);
    gateway.kill();
    // A start with a commit that is refused takes what was kept.
    commit(&text("[tenants.acme]\nrate_per_s = \"more\""));
    let gateway = start(&scene, path);
    assert_eq!(value(&gateway, RATE), 7.0);
}
