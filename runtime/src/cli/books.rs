//! `tidegate books`: the accounts of a gateway, and whether they balance.

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cli::admin_client::Unreachable;
use crate::cli::{ConfigArgument, Exit, admin_client};
use crate::config::Config;
use crate::core::age_clock::AgeClock;
use crate::core::detail::printable;
use crate::spool::Spool;

/// Print the counts of messages and lines of each tenant; exit 1 if the sums do not agree
///
/// A running gateway gives all counts. Of a stopped gateway they are the counts of lines and of parked
/// messages, read from its spool.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate books\n  tidegate books --tenant acme --json")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON, the answer of GET /api/v1/books
    #[arg(long)]
    json: bool,
}

pub fn books(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let mut books = match admin_client::get(&config, "/api/v1/books") {
        Err(error) if error.is::<Unreachable>() => of_stopped(&config).map_err(|why| error.context(why))?,
        books => books?,
    };
    let balanced = books["balanced"] == true;
    if let Some(tenant) = &arguments.tenant {
        let tenants = books["tenants"].as_object_mut().context("the gateway's answer has no tenants")?;
        tenants.retain(|name, _| name == tenant);
        if tenants.is_empty() {
            bail!("the gateway has no counts of the tenant {tenant:?}");
        }
    }
    if arguments.json {
        println!("{books:#}");
    } else {
        print_table(&books);
    }
    Ok(if balanced { Exit::Success } else { Exit::Failure })
}

/// The books of a stopped gateway, from its spool.
fn of_stopped(config: &Config) -> anyhow::Result<Value> {
    let data_dir = Path::new(&config.data_dir);
    let (_, books) = Spool::open_read_only(&data_dir.join("spool"), &AgeClock::open(data_dir))?;
    eprintln!("the gateway does not run; these are the counts of lines and parked messages in its spool");
    let accounts = books.accounts();
    let balanced = accounts.iter().all(|account| account.snapshot().balanced());
    let tenants: serde_json::Map<String, Value> =
        accounts.iter().map(|account| (account.tenant().to_string(), json!(account.snapshot()))).collect();
    Ok(json!({"balanced": balanced, "tenants": tenants}))
}

const MESSAGES: [&str; 8] =
    ["received", "lines", "empty", "quarantined", "dropped", "abandoned", "parked", "in_flight"];

const QUARANTINE: [&str; 4] = ["entries", "expired", "replayed", "removed"];

const LINES: [&str; 6] = ["spooled", "written", "refused", "dropped", "damaged", "pending"];

/// Prints the accounts of all tenants.
pub(super) fn print_table(books: &Value) {
    for (section, keys) in
        [("messages", &MESSAGES[..]), ("lines", &LINES[..]), ("quarantine", &QUARANTINE[..])]
    {
        print!("{section:<20}");
        for key in keys {
            print!("{key:>13}");
        }
        println!();
        for (tenant, books) in books["tenants"].as_object().into_iter().flatten() {
            print!("{:<20}", printable(tenant));
            for key in keys {
                print!("{:>13}", books[section][key].as_u64().unwrap_or(0));
            }
            println!();
        }
        println!();
    }
    for (tenant, books) in books["tenants"].as_object().into_iter().flatten() {
        for (reason, count) in books["dropped_by_reason"].as_object().into_iter().flatten() {
            println!("{:<20}dropped as {reason}: {count}", printable(tenant));
        }
    }
    println!("{}", if books["balanced"] == true { "the books balance" } else { "THE BOOKS DO NOT BALANCE" });
}
