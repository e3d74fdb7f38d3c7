//! `tidegate fleet`: all gateways, as their database has them.

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::admission::registry::postgres::connection::PgServer;
use crate::audit::{AuditEvent, AuditLog, own_user};
use crate::cli::books::print_table;
use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::config::{Config, settings};
use crate::core::detail::{printable, printable_lines};
use crate::fleet::store::{self, FleetError, GatewayRow, GatewayState};
use crate::limits::DRAIN_WAIT_S_MAX;

/// Show all gateways, and drain or retire one
///
/// Reads and writes the table of gateways in fleet.postgres. No gateway is asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate fleet list\n  tidegate fleet drain g2\n  tidegate fleet books --json"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create the table of gateways; an existing one stays
    #[command(after_help = "Example:\n  tidegate fleet init")]
    Init,
    /// Print a line for each gateway; exit 1 if one of them does not report or has errors
    #[command(after_help = "Example:\n  tidegate fleet list")]
    List {
        /// Also those that were retired
        #[arg(long)]
        all: bool,
    },
    /// Print all that a gateway has reported
    #[command(after_help = "Example:\n  tidegate fleet show g1")]
    Show {
        /// The gateway's fleet.name
        name: String,
    },
    /// Print the books of all gateways and all their starts together; exit 1 if the sums do not agree, or
    /// a row cannot be read
    #[command(after_help = "Example:\n  tidegate fleet books")]
    Books,
    /// Drain a gateway as `tidegate drain` does, and wait until nothing is left in it
    #[command(after_help = "Example:\n  tidegate fleet drain g2")]
    Drain {
        /// The gateway's fleet.name
        name: String,
        /// Seconds to wait, 86,400 at most; 0: only tell it
        #[arg(long, value_name = "S", default_value_t = 300,
            value_parser = clap::value_parser!(u64).range(0..=DRAIN_WAIT_S_MAX))]
        wait_s: u64,
    },
    /// End the drain of a gateway: it takes devices again
    #[command(after_help = "Example:\n  tidegate fleet resume g2")]
    Resume {
        /// The gateway's fleet.name
        name: String,
    },
    /// Mark a gateway that is stopped as gone for good; its books stay in the sum
    #[command(after_help = "Example:\n  tidegate fleet retire g2")]
    Retire {
        /// The gateway's fleet.name
        name: String,
        /// Although lines wait on its disk
        #[arg(long)]
        force: bool,
    },
}

pub fn fleet(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let Some(server) = settings::fleet(&config)? else {
        return Err(BadUsage("fleet.postgres is empty: there is no table of gateways".into()).into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let json = arguments.json;
    match &arguments.action {
        Action::Init => {
            runtime.block_on(store::init(&server))?;
            println!("{} has the table of gateways", server.at());
            Ok(Exit::Success)
        }
        Action::List { all } => Ok(list(&runtime.block_on(store::list(&server))?, *all, json)),
        Action::Show { name } => {
            let gateway = runtime.block_on(find(&server, name))?;
            show(&gateway, json);
            Ok(Exit::Success)
        }
        Action::Books => {
            let gateways = runtime.block_on(store::list(&server))?;
            let sum = store::sum(&gateways);
            let unreadable = store::unreadable(&gateways);
            let books = json!({"balanced": sum.balanced(), "tenants": sum, "unreadable": unreadable});
            if json {
                println!("{books:#}")
            } else {
                print_table(&books)
            }
            for name in &unreadable {
                eprintln!("the row of {} cannot be read: its books are not in the sum", printable(name));
            }
            Ok(if sum.balanced() && unreadable.is_empty() { Exit::Success } else { Exit::Failure })
        }
        Action::Drain { name, wait_s } => {
            let drained = runtime.block_on(drain(&server, name, Duration::from_secs(*wait_s)));
            record(&config, "fleet drain", name, drained.is_ok());
            let gateway = drained?;
            println!("{}", sentence(&gateway));
            let is_done = *wait_s == 0 || gateway.state == GatewayState::Drained;
            Ok(if is_done { Exit::Success } else { Exit::Failure })
        }
        Action::Resume { name } => {
            let resumed = runtime.block_on(store::wish(&server, name, false));
            record(&config, "fleet resume", name, resumed.is_ok());
            resumed?;
            println!("{} is told to take devices again", printable(name));
            Ok(Exit::Success)
        }
        Action::Retire { name, force } => {
            let retired = runtime.block_on(retire(&server, name, *force));
            record(&config, "fleet retire", name, retired.is_ok());
            retired?;
            println!("{} is retired; its books stay in the sum", printable(name));
            Ok(Exit::Success)
        }
    }
}

fn record(config: &Config, action: &'static str, name: &str, is_done: bool) {
    let (who, outcome) = (own_user(), if is_done { "done" } else { "refused" });
    let event = AuditEvent { who: &who, action, object: name, digest: None, outcome };
    AuditLog::new(config.data_dir.as_ref()).record(&event);
}

async fn find(server: &PgServer, name: &str) -> Result<GatewayRow, FleetError> {
    let gateways = store::list(server).await?;
    gateways
        .into_iter()
        .find(|gateway| gateway.name == name)
        .ok_or_else(|| FleetError::Unknown(name.to_owned()))
}

/// Tells a gateway to drain, and waits until it is empty, for `most` at most.
async fn drain(server: &PgServer, name: &str, most: Duration) -> anyhow::Result<GatewayRow> {
    let gateway = find(server, name).await?;
    if !gateway.alive {
        anyhow::bail!(
            "{} does not report (it is {}): nobody would follow the wish",
            printable(name),
            gateway.state.name()
        );
    }
    store::wish(server, name, true).await?;
    let until = Instant::now() + most;
    loop {
        let gateway = find(server, name).await?;
        if gateway.state == GatewayState::Drained || Instant::now() >= until {
            return Ok(gateway);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn retire(server: &PgServer, name: &str, force: bool) -> anyhow::Result<()> {
    let gateway = find(server, name).await?;
    if gateway.alive {
        anyhow::bail!("{} was seen {} s ago: drain it and stop it first", printable(name), gateway.seen_s);
    }
    if gateway.lines_pending > 0 && !force {
        anyhow::bail!(
            "{} lines wait on the disk of {}, and are nowhere else: start it until they are written, or retire it \
             with --force",
            gateway.lines_pending,
            printable(name)
        );
    }
    Ok(store::retire(server, name).await?)
}

fn errors(gateway: &GatewayRow) -> Vec<&str> {
    let own = gateway.report["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    gateway.unreadable.as_deref().into_iter().chain(own).collect()
}

/// Prints the gateways. A failure if an operator should look at one.
fn list(gateways: &[GatewayRow], all: bool, json: bool) -> Exit {
    let shown: Vec<&GatewayRow> =
        gateways.iter().filter(|gateway| all || gateway.state != GatewayState::Retired).collect();
    let is_well = |gateway: &&GatewayRow| match gateway.state {
        GatewayState::Stopped | GatewayState::Retired => true,
        _ => gateway.alive && errors(gateway).is_empty(),
    };
    if json {
        println!("{:#}", json!({"gateways": shown}));
    } else {
        println!(
            "{:<20}{:<10}{:>8}{:>10}{:>12}{:>9}  {:<10}{:<24}errors",
            "name", "state", "seen", "clock", "lines", "decoders", "version", "listens"
        );
        for gateway in &shown {
            let text = |key: &str| printable(gateway.report[key].as_str().unwrap_or_default()).to_string();
            let state = if gateway.alive || is_over(gateway) { gateway.state.name() } else { "AWAY" };
            println!(
                "{:<20}{:<10}{:>8}{:>10}{:>12}{:>9}  {:<10}{:<24}{}",
                printable(&gateway.name),
                state,
                format!("{} s", gateway.seen_s),
                format!("{} ms", gateway.clock_ahead_ms),
                gateway.lines_pending,
                gateway.report["decoders_all"].as_u64().unwrap_or(0),
                text("version"),
                text("listen"),
                printable(&errors(gateway).join("; ")),
            );
        }
    }
    if shown.iter().all(is_well) { Exit::Success } else { Exit::Failure }
}

fn is_over(gateway: &GatewayRow) -> bool {
    matches!(gateway.state, GatewayState::Stopped | GatewayState::Retired)
}

fn show(gateway: &GatewayRow, json: bool) {
    let all = json!(gateway);
    if json {
        println!("{all:#}");
        return;
    }
    println!("{}", sentence(gateway));
    println!("{}", printable_lines(&format!("{:#}", all["report"])));
}

fn sentence(gateway: &GatewayRow) -> String {
    let name = printable(&gateway.name);
    let left =
        format!("{} lines wait on its disk; last report {} s ago", gateway.lines_pending, gateway.seen_s);
    match (gateway.alive || is_over(gateway), gateway.state) {
        (false, _) => format!("{name} does not report: {left}"),
        (true, GatewayState::Drained) => format!("{name} is drained: nothing is left in it"),
        (true, state) => format!("{name}: {}; {left}", state.name()),
    }
}
