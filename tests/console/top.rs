//! `tidegate top`: drawn from the answers of a gateway, and on a terminal.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;
use tidegate::cli::top::answers::Answers;
use tidegate::cli::top::screen;
use tidegate::cli::top::view::{Command, TopView};

use super::{ACME, OPERATOR, scene, send_some};
use crate::harness::gateway::{Gateway, tidegate};
use crate::harness::terminal::OnTerminal;

/// All that a token sees, and about one tenant.
fn ask(gateway: &Gateway<'_>, token: &str, tenant: Option<&str>) -> Answers {
    Answers::of_all(|path: &str| Ok(gateway.json_by(path, token)), tenant).unwrap()
}

fn draw(view: &mut TopView) -> String {
    let mut terminal = Terminal::new(TestBackend::new(140, 45)).unwrap();
    terminal.draw(|frame| screen::draw(frame, view)).unwrap();
    terminal.backend().to_string()
}

fn press(view: &mut TopView, code: KeyCode) -> Command {
    view.press(&KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn top_shows_charts_tenants_decoders_and_one_tenant_from_the_answers_of_a_gateway() {
    let scene = scene();
    let gateway = scene.start();
    let mut view = TopView::new(ask(&gateway, OPERATOR, None));
    send_some(&scene);
    gateway.wait_for(Duration::from_secs(60), "a sample of the messages", |gateway| {
        let history = gateway.json_by("/api/v1/history", OPERATOR);
        history["messages_per_s"].as_array().unwrap().iter().any(|rate| rate.as_f64() > Some(0.0))
    });
    view.update(Ok(ask(&gateway, OPERATOR, None)));
    let shown = draw(&mut view);
    for text in
        ["messages/s: ", " ms to PUBACK: ", "backlog: ", "tenants: 2", "received/s▼", "acme", "globex"]
    {
        assert!(shown.contains(text), "{text}:\n{shown}");
    }
    // A line is drawn by dots, and the keys are named.
    assert!(shown.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{shown}");
    assert!(shown.contains(" Tab  decoders ") && shown.contains(" q  quit"), "{shown}");
    press(&mut view, KeyCode::Tab);
    let shown = draw(&mut view);
    assert!(
        shown.contains("decoders: 2") && shown.contains("_default") && shown.contains("pulse@"),
        "{shown}"
    );
    press(&mut view, KeyCode::Tab);
    // The first of both is the busier one, or the first by name.
    let first = view.tenants[0].0.clone();
    assert_eq!((press(&mut view, KeyCode::Enter), view.opened()), (Command::Look, Some(&*first)));
    view.update(Ok(ask(&gateway, OPERATOR, Some(&first))));
    let (device, site) = if first == "acme" { ("dev-1", "lab-1") } else { ("dev-9", "lab-9") };
    let shown = draw(&mut view);
    for text in
        [&*format!(" tenant {first} "), device, site, "devices: 1", "quarantined", "memory: ", " Esc  back "]
    {
        assert!(shown.contains(text), "{text}:\n{shown}");
    }
    // A tenant sees itself alone.
    let mut own = TopView::new(ask(&gateway, ACME, None));
    let shown = draw(&mut own);
    assert!(shown.contains("tenants: 1") && !shown.contains("globex"), "{shown}");
}

#[test]
fn top_on_a_terminal_takes_keys_and_gives_the_screen_back() {
    let scene = scene();
    let gateway = scene.start();
    send_some(&scene);
    let mut command = tidegate();
    command.arg("top").current_dir(scene.path("."));
    let mut top = OnTerminal::start(command);
    top.wait_for("\u{1b}[?1049h");
    top.wait_for("globex");
    assert!(!top.shown().contains("quarantined"));
    top.press("\r");
    top.wait_for("quarantined");
    top.forget();
    top.press("\u{1b}");
    top.wait_for("Enter");
    drop(gateway);
    top.wait_for("running?");
    top.press("q");
    let (status, shown) = top.ended();
    assert!(status.success() && shown.contains("\u{1b}[?1049l"), "{status}: {}", shown.escape_debug());
}

#[test]
fn top_without_a_terminal_prints_one_view_as_ever() {
    let scene = scene();
    let _gateway = scene.start();
    send_some(&scene);
    let (status, out, errors) = scene.verb(&["top"], "");
    assert!(status.success() && errors.is_empty(), "{errors}");
    let head = "tenant                     received/s    refused/s    written/s    in flight       parked      pending   \
                quarantine   memory MiB     disk MiB\n";
    assert!(out.starts_with(head) && out.contains("\nacme ") && !out.contains('\u{1b}'), "{out}");
    assert!(out.contains("all tenants: memory ") && out.ends_with("the books balance\n"), "{out}");
    let (_, out, _) = scene.verb(&["top", "--json"], "");
    let json: Value = serde_json::from_str(&out).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["tenants", "gateway", "spool", "balanced"]);
    assert_eq!(json["tenants"]["acme"]["quarantine"], 1);
    // On a terminal that is asked for one view too.
    let mut command = tidegate();
    command.args(["top", "--once"]).current_dir(scene.path("."));
    let (status, shown) = OnTerminal::start(command).ended();
    assert!(status.success() && shown.contains("the books balance") && !shown.contains("1049"), "{shown}");
}

#[test]
fn progress_is_shown_on_a_terminal_and_nowhere_else() {
    let scene = scene();
    let _gateway = scene.start();
    let capture = ["capture", "--for", "3", "--count", "7"];
    let mut command = tidegate();
    command.args(capture).current_dir(scene.path("."));
    let terminal = OnTerminal::start(command);
    terminal.wait_for("0 of 7 messages are recorded");
    let (status, shown) = terminal.ended();
    assert!(status.code() == Some(1) && shown.ends_with("0 cases\r\n"), "{}", shown.escape_debug());
    let (_, out, errors) = scene.verb(&capture, "");
    assert_eq!((&*out, &*errors), ("", "0 cases\n"));
}
