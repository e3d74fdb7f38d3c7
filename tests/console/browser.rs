//! The console in Debian's Chromium: the steps are in console/tests/run.mjs, and what they need of the gateway is here.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{ACME, OPERATOR, payload, publish, scene, send, send_some, set_tenant_token};
use crate::harness::skip;

/// The folder with the steps and what npm installed for them.
fn workshop() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/js/console");
    let browser = std::env::var_os("CHROMIUM").map_or(PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    let is_there = folder.join("node_modules/playwright-core").exists() && browser.exists();
    is_there.then_some(folder)
}

#[test]
fn the_console_shows_and_changes_what_it_should_in_a_browser() {
    let Some(workshop) = workshop() else { return skip("no browser, or no console: run cargo xtask test") };
    let scene = scene();
    let mut gateway = Some(scene.start());
    let (_, head, _) = send(&scene.admin, "GET", "/", &[], &[]);
    if !head.to_ascii_lowercase().contains("content-encoding: gzip") {
        return skip("the program has no console: run cargo xtask test");
    }
    send_some(&scene);
    let mut steps = Command::new("node")
        .args(["tests/run.mjs", &scene.admin, OPERATOR, ACME])
        .current_dir(workshop)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = steps.stdin.take().unwrap();
    let (mut done, mut seq) = (false, 100);
    for line in BufReader::new(steps.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(name) = line.strip_prefix("do ") else {
            done |= line == "all done";
            continue;
        };
        seq += 1;
        match name {
            "refuse" => publish(
                &scene,
                "acme",
                "steps",
                &payload("acme", seq).replacen('{', "{\"note\":\"<script>alert(1)</script>\",", 1),
            ),
            "mend" => {
                scene.guest("acme", "steps", "steady");
                gateway.as_ref().unwrap().wait("a decoder", |gateway| {
                    let guests = gateway.json_by("/api/v1/guests/acme", OPERATOR)["guests"].clone();
                    guests
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|guest| guest["type"] == "steps" && guest["state"] == "serving")
                });
            }
            "publish" => publish(&scene, "acme", "telemetry", &payload("acme", seq)),
            "rename" => set_tenant_token(&scene, "acme", "another"),
            "stop" => drop(gateway.take()),
            "start" => gateway = Some(scene.start()),
            other => panic!("the browser's test asks for {other:?}"),
        }
        writeln!(told, "done").unwrap();
    }
    assert!(steps.wait().unwrap().success() && done, "see the steps above");
}
