//! `tidegate top`: what a gateway is doing, live.
//!
//! On a terminal a view with charts and tables (`view`, `screen`), which a thread keeps supplied with answers
//! (`poller`). Elsewhere one view as text or JSON (`plain`).

pub mod figures;
pub mod answers;
mod plain;
pub mod decoders;
pub mod view;
mod charts;
mod tables;
pub mod screen;
mod poller;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::crossterm::event::{self, Event};
use reqwest::Method;
use serde_json::Value;

use crate::cli::admin_client::{AdminClient, GatewayArgument};
use crate::cli::top::answers::Answers;
use crate::cli::top::figures::counts;
use crate::cli::top::poller::Poller;
use crate::cli::top::view::{Command, TopView};
use crate::cli::{ConfigArgument, Exit};

/// The time for which a key is waited for before answers are looked at.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Show a running gateway live: rates and backlogs as charts, tenants and decoders
///
/// Keys are shown at the bottom; q ends it. If stdin or stdout is not a terminal, it prints one view and ends.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate top\n  tidegate top --every 5\n  tidegate top --once\n  tidegate top --json\n  \
    tidegate top --gateway https://gateway.example --token-file my-token"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    gateway: GatewayArgument,
    /// Seconds between two views
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Print one view, then end
    #[arg(long)]
    once: bool,
    /// Print one view as JSON, then end
    #[arg(long)]
    json: bool,
}

pub fn top(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let gateway = AdminClient::find(&config, &arguments.gateway)?;
    let every = Duration::from_secs(arguments.every);
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    match is_terminal && !arguments.once && !arguments.json {
        true => live(gateway, every),
        false => print_once(&gateway, every, arguments.json),
    }
}

/// Prints one view, whose rates are those of a second.
fn print_once(gateway: &AdminClient, every: Duration, as_json: bool) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ask = |path: &str| runtime.block_on(gateway.json(Method::GET, path));
    let before = counts(&ask("/api/v1/books")?, &Value::Null);
    let at = Instant::now();
    std::thread::sleep(every.min(Duration::from_secs(1)));
    let answers = Answers::of_figures(ask)?;
    let now = counts(&answers.books, &answers.budgets);
    if as_json {
        println!("{:#}", plain::json(&before, &now, at.elapsed(), &answers));
    } else {
        std::io::stdout().lock().write_all(plain::text(&before, &now, at.elapsed(), &answers).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// Shows the view until a key ends it.
fn live(gateway: AdminClient, every: Duration) -> anyhow::Result<Exit> {
    let poller = Poller::start(gateway, every)?;
    // A gateway that does not answer is said in words, on a screen as it was.
    let mut view = TopView::new(poller.first()?);
    let mut terminal = ratatui::try_init().context("the terminal cannot be used; see --once")?;
    let ended = (|| -> anyhow::Result<()> {
        loop {
            terminal.draw(|frame| screen::draw(frame, &mut view))?;
            let mut is_changed = false;
            while !is_changed {
                if event::poll(KEY_WAIT)? {
                    is_changed = true;
                    let Event::Key(key) = event::read()? else { continue };
                    match view.press(&key) {
                        Command::Nothing => {}
                        Command::Quit => return Ok(()),
                        Command::Look => poller.look_at(view.opened()),
                    }
                }
                while let Some(answers) = poller.next() {
                    view.update(answers);
                    is_changed = true;
                }
            }
        }
    })();
    ratatui::restore();
    ended.map(|()| Exit::Success)
}
