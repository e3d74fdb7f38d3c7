//! `tidegate spool`: what is durable and not yet in its database.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::cli::admin_client::Unreachable;
use crate::cli::{ConfigArgument, Exit, admin_client};
use crate::config::Config;
use crate::core::age_clock::AgeClock;
use crate::core::detail::printable;
use crate::spool::Spool;

/// Print the backlog of each database: lines, bytes, age, and the last answer of the database
///
/// For a stopped gateway it reads the files of the spool.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate spool\n  tidegate spool --json\n  tidegate spool retry telemetry_acme"
)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print JSON, the answer of the gateway
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<SpoolCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum SpoolCommand {
    /// Try to write now, without waiting for the next try; needs the operator's token
    ///
    /// For a database that was created, a token that was renewed, a limit of the server that was raised.
    #[command(after_help = "Example:\n  tidegate spool retry\n  tidegate spool retry telemetry_acme")]
    Retry {
        /// The database [default: all databases]
        database: Option<String>,
    },
}

pub fn spool(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    if let Some(SpoolCommand::Retry { database }) = &arguments.command {
        return retry(&config, database.as_deref(), arguments.json);
    }
    let spool = match admin_client::get(&config, "/api/v1/spool") {
        Err(error) if error.is::<Unreachable>() => of_stopped(&config).map_err(|why| error.context(why))?,
        spool => spool?,
    };
    if arguments.json {
        println!("{spool:#}");
    } else {
        print!("{}", table(&spool));
    }
    Ok(Exit::Success)
}

fn retry(config: &Config, database: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let query = database.map(|name| format!("?database={}", utf8_percent_encode(name, NON_ALPHANUMERIC)));
    let path = format!("/api/v1/spool/retry{}", query.unwrap_or_default());
    let answer = admin_client::post(config, &path)?;
    if json {
        println!("{answer:#}");
    } else {
        let databases = answer["databases"].as_u64().unwrap_or(0);
        println!("{databases} databases are tried now; `tidegate spool` shows their answers");
    }
    Ok(Exit::Success)
}

fn of_stopped(config: &Config) -> anyhow::Result<Value> {
    let data_dir = Path::new(&config.data_dir);
    let (status, _) = Spool::open_read_only(&data_dir.join("spool"), &AgeClock::open(data_dir))?;
    eprintln!("the gateway does not run; this is the content of its spool");
    let databases: Vec<Value> = status
        .backlogs
        .iter()
        .map(|backlog| {
            json!({
                "database": backlog.database,
                "tenant": backlog.tenant,
                "lines": backlog.lines,
                "bytes": backlog.bytes,
                "oldest_age_ms": backlog.oldest_age_s * 1000,
            })
        })
        .collect();
    let mut all = json!(status);
    all["databases"] = databases.into();
    Ok(all)
}

/// The listing for people.
pub fn table(spool: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let mut text = format!(
        "{:<32}{:>12}{:>12}{:>12}{:>9}  {}\n",
        "database", "lines", "bytes", "oldest", "requests", "last answer"
    );
    for database in spool["databases"].as_array().into_iter().flatten() {
        let answer = printable(database["last_answer"].as_str().unwrap_or_default());
        let delayed = match number(&database["lines_delayed"]) {
            0 => String::new(),
            lines => format!(" ({lines} lines meet a limit of the server, or were refused once, and wait)"),
        };
        let next_try = database["next_try_ms"].as_u64().map(|ms| format!(" (next try in {})", duration(ms)));
        text += &format!(
            "{:<32}{:>12}{:>12}{:>12}{:>9}  {answer}{delayed}{}\n",
            printable(database["database"].as_str().unwrap_or_default()),
            number(&database["lines"]),
            bytes(number(&database["bytes"])),
            duration(number(&database["oldest_age_ms"])),
            number(&database["requests"]),
            next_try.unwrap_or_default(),
        );
    }
    for (tenant, messages) in spool["waiting_messages"].as_object().into_iter().flatten() {
        let tenant = printable(tenant);
        text += &format!("{tenant}: its share is full; {messages} messages wait without a PUBACK\n");
    }
    for (tenant, parked) in spool["parked"].as_object().into_iter().flatten() {
        text += &format!(
            "{}: {} messages are parked ({}, the oldest for {}) until the registry can be asked\n",
            printable(tenant),
            number(&parked["messages"]),
            bytes(number(&parked["bytes"])),
            duration(number(&parked["oldest_age_ms"]))
        );
    }
    if let Some(fault) = spool["fault"].as_str() {
        text += &format!("{}\n", printable(fault));
    }
    text += &format!(
        "{} lines, {} on disk in {} segments\n",
        number(&spool["lines"]),
        bytes(number(&spool["bytes"])),
        number(&spool["segments"])
    );
    text
}

/// A number of bytes, short.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

/// A number of milliseconds, short.
pub fn duration(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{} s", ms / 1_000),
        600_000..36_000_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}
