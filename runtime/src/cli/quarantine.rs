//! `tidegate quarantine`: what was refused, why, by which guest; and taking it up again.
//!
//! `list` and `show` read the folder, whether the gateway runs or not. `replay` asks the running
//! gateway; `rm` too, or does it itself where none runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::audit::{AuditEvent, AuditLog, own_user};
use crate::cli::{BadUsage, ConfigArgument, Exit, admin_http};
use crate::config::{Config, ConfigError, settings};
use crate::core::age_clock::AgeClock;
use crate::core::books::Books;
use crate::core::detail::printable;
use crate::data_dir::LockError;
use crate::quarantine::{Entry, Filter, Quarantine, RemovalReason};
use crate::telemetry::progress::Progress;
use crate::{config, data_dir};

/// Look at refused messages, replay or remove them: list, show, replay, rm
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tidegate quarantine list --tenant acme\n  \
    tidegate quarantine list --tenant acme --by-reason --json\n  \
    tidegate quarantine show 0000000000000003-18231\n  \
    tidegate quarantine replay --reason NO_GUEST --type alarm\n  \
    tidegate quarantine rm --tenant acme --until 2026-11-23T00:00:00Z")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List entries, newest last; with --tenant alone, the reasons of that tenant with one example each
    #[command(after_help = "Examples:\n  \
        tidegate quarantine list --tenant acme\n  \
        tidegate quarantine list --tenant acme --device dev-1 --by-reason\n  \
        tidegate quarantine list --reason GUEST_REFUSED --since 2026-11-23T00:00:00Z --json")]
    List {
        #[command(flatten)]
        filters: ListFilters,
        /// Number of entries, the newest ones
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Group by reason: count, first and last time, and the newest entry as an example
        #[arg(long, conflicts_with = "limit")]
        by_reason: bool,
        /// Print a JSON array of entries, or with --by-reason of reasons; secrets are masked
        #[arg(long)]
        json: bool,
    },
    /// Show one entry; secrets are masked
    #[command(after_help = "Examples:\n  \
        tidegate quarantine show 0000000000000003-18231\n  \
        tidegate quarantine show 0000000000000003-18231 --raw > payload.json")]
    Show {
        /// The id of the entry, as `list` prints it
        id: String,
        /// Print only the payload, as it came, with its secrets
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Decode entries again with today's decoders; exit 1 if one is refused again or skipped
    #[command(after_help = "Examples:\n  \
        tidegate quarantine replay --reason NO_GUEST --type alarm\n  \
        tidegate quarantine replay --guest pulse@1.2.0 --since 2026-11-23T08:00:00Z\n  \
        tidegate quarantine replay --all")]
    Replay {
        #[command(flatten)]
        chosen: SelectedEntries,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove entries; this cannot be undone
    #[command(after_help = "Examples:\n  \
        tidegate quarantine rm 0000000000000003-18231\n  \
        tidegate quarantine rm --tenant acme --reason BAD_LINE")]
    Rm {
        #[command(flatten)]
        chosen: SelectedEntries,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ListFilters {
    /// Only entries of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only entries of this device
    #[arg(long)]
    device: Option<String>,
    /// Only entries of this message type
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// Only entries with this reason code, such as NO_GUEST
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only entries that this decoder refused: its name, its whole tag, or the first digits of its digest
    #[arg(long)]
    guest: Option<String>,
    /// Only entries refused at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only entries refused before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, clap::Args)]
struct SelectedEntries {
    /// The id of one entry
    id: Option<String>,
    #[command(flatten)]
    filters: ListFilters,
    /// All entries
    #[arg(long)]
    all: bool,
    /// Largest number of entries; those of the oldest messages come first
    #[arg(long)]
    limit: Option<usize>,
}

impl ListFilters {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("tenant", &self.tenant),
            ("device", &self.device),
            ("type", &self.message_type),
            ("reason", &self.reason),
            ("guest", &self.guest),
            ("since", &self.since),
            ("until", &self.until),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

fn filter<'a>(given: impl Iterator<Item = (&'static str, &'a str)>) -> Result<Filter, BadUsage> {
    let mut filter = Filter::default();
    for (key, value) in given {
        filter.set(key, value).map_err(|error| BadUsage(error.to_string()))?;
    }
    Ok(filter)
}

impl SelectedEntries {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.id.iter().map(|id| ("id", id.as_str())).chain(self.filters.given())
    }

    /// The filter, checked before anybody is asked.
    fn filter(&self) -> Result<Filter, BadUsage> {
        let filter = filter(self.given())?;
        if filter.is_empty() && !self.all {
            let message = "no entries chosen: give an id, a filter (see --help) or --all";
            return Err(BadUsage(message.into()));
        }
        if self.limit == Some(0) {
            return Err(BadUsage("--limit 0: expected a number from 1".into()));
        }
        Ok(filter)
    }
}

pub fn quarantine(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let folder = PathBuf::from(&config.data_dir).join("quarantine");
    match &arguments.action {
        Action::List { filters, limit, by_reason, json } => list(&folder, filters, *limit, *by_reason, *json),
        Action::Show { id, raw, json } => show(&folder, id, *raw, *json),
        Action::Replay { chosen, json } => replay(&config, chosen, *json),
        Action::Rm { chosen, json } => remove(&config, &folder, chosen, *json),
    }
}

fn list(
    folder: &Path,
    filters: &ListFilters,
    limit: usize,
    by_reason: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let wanted = filter(filters.given())?;
    let groups = by_reason || !json && filters.given().map(|(key, _)| key).eq(["tenant"]);
    if !folder.exists() {
        eprintln!("nothing was refused yet: there is no folder {}", folder.display());
        if json {
            println!("[]");
        }
        return Ok(Exit::Success);
    }
    if groups {
        return list_reasons(Quarantine::read(folder, wanted), json);
    }
    let (places, more) = Quarantine::latest(folder, wanted, limit)?;
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    if json {
        write!(output, "[")?;
    } else {
        writeln!(output, "{}", row(&["id", "time", "tenant", "device", "type", "reason", "detail"]))?;
    }
    // One at a time: a payload may be large.
    let mut separator = "\n";
    for place in places {
        for (_, entry) in Quarantine::find(folder, &[place])? {
            if json {
                write!(output, "{separator}{}", serde_json::to_string(&entry.masked())?)?;
                separator = ",\n";
            } else {
                let part = |part: &Option<String>| printable(part.as_deref().unwrap_or("-"));
                let (tenant, device, kind) =
                    (part(&entry.tenant), part(&entry.device), part(&entry.message_type));
                let (time, detail) = (seconds(&entry.time), printable(&entry.detail));
                let columns = [&entry.id, &time, &tenant, &device, &kind, &entry.reason, &detail];
                writeln!(output, "{}", row(&columns.map(String::as_str)))?;
            }
        }
    }
    if json {
        writeln!(output, "\n]")?;
    }
    output.flush()?;
    if more > 0 {
        eprintln!("{more} older entries match too; use --limit to see more");
    }
    Ok(Exit::Success)
}

/// A reason's entries, and the newest of them.
struct ReasonGroup {
    entries: u64,
    first: String,
    newest: Entry,
}

fn list_reasons(entries: crate::quarantine::Entries, json: bool) -> anyhow::Result<Exit> {
    let mut groups = BTreeMap::<String, ReasonGroup>::new();
    for entry in entries {
        let entry = entry?;
        match groups.get_mut(&entry.reason) {
            Some(group) => {
                group.entries += 1;
                if entry.time < group.first {
                    group.first = entry.time.clone();
                }
                if entry.time >= group.newest.time {
                    group.newest = entry;
                }
            }
            None => {
                let first = entry.time.clone();
                groups.insert(entry.reason.clone(), ReasonGroup { entries: 1, first, newest: entry });
            }
        }
    }
    if json {
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|(reason, ReasonGroup { entries, first, newest })| {
                let last = newest.time.clone();
                json!({
                    "reason": reason,
                    "entries": entries,
                    "first": first,
                    "last": last,
                    "sample": newest.masked(),
                })
            })
            .collect();
        println!("{:#}", Value::Array(groups));
        return Ok(Exit::Success);
    }
    println!("{:<34}{:>9}  {:<21}{:<21}newest", "reason", "entries", "first", "last");
    for (reason, group) in groups {
        let (first, last) = (seconds(&group.first), seconds(&group.newest.time));
        println!("{reason:<34}{:>9}  {first:<21}{last:<21}{}", group.entries, group.newest.id);
        println!("    {}: {}", printable(&group.newest.topic), printable(&group.newest.detail));
    }
    Ok(Exit::Success)
}

/// A line of the table; the last column takes what it needs.
fn row(columns: &[&str; 7]) -> String {
    let [id, time, tenant, device, kind, reason, detail] = columns;
    format!("{id:<26} {time:<20} {tenant:<16} {device:<16} {kind:<12} {reason:<20} {detail}")
}

/// A time without its parts of a second.
fn seconds(time: &str) -> String {
    time.split_once('.').map_or(time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

fn show(folder: &Path, id: &str, raw: bool, json: bool) -> anyhow::Result<Exit> {
    let filter = Filter { id: Some(id.to_owned()), ..Filter::default() };
    let entry = match folder.exists() {
        true => Quarantine::read(folder, filter).next().transpose()?,
        false => None,
    };
    let entry = entry.with_context(|| format!("there is no entry {id:?} in {}", folder.display()))?;
    let mut output = std::io::stdout().lock();
    if raw {
        let bytes = entry.payload_bytes_kept().or_else(|| entry.line.clone().map(String::into_bytes));
        output.write_all(&bytes.context("its payload cannot be read")?)?;
        return Ok(Exit::Success);
    }
    let Value::Object(members) = serde_json::to_value(entry.masked())? else {
        unreachable!("an entry is an object")
    };
    if json {
        writeln!(output, "{:#}", Value::Object(members))?;
        return Ok(Exit::Success);
    }
    for (key, value) in members {
        let text = match value {
            Value::String(text) => printable(&text),
            other => other.to_string(),
        };
        writeln!(output, "{key:<14} {text}")?;
    }
    Ok(Exit::Success)
}

fn replay(config: &Config, chosen: &SelectedEntries, json: bool) -> anyhow::Result<Exit> {
    chosen.filter()?;
    let mut body: Map<String, Value> =
        chosen.given().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    if chosen.all {
        body.insert("all".into(), true.into());
    }
    if let Some(limit) = chosen.limit {
        body.insert("limit".into(), limit.into());
    }
    let progress = Progress::start("entries are replayed");
    let report = ask(config, Method::POST, "/api/v1/quarantine/replay", Some(Value::Object(body)))?;
    drop(progress);
    let number = |key: &str| report[key].as_u64().unwrap_or(0);
    if json {
        println!("{report:#}");
    } else {
        println!(
            "{} replayed: {} became lines, {} empty, {} parked, {} quarantined again; {} skipped",
            number("replayed"),
            number("lines"),
            number("empty"),
            number("parked"),
            number("quarantined_again"),
            number("skipped_count"),
        );
        for skipped in report["skipped"].as_array().into_iter().flatten() {
            let part = |key: &str| printable(skipped[key].as_str().unwrap_or_default());
            println!("    {}: {}", part("id"), part("why"));
        }
    }
    if number("left") > 0 {
        eprintln!("{} more entries match; run the command again", number("left"));
    }
    if report["stopped"] == true {
        eprintln!("the gateway was stopped; the entries that were not replayed are still there");
    }
    let good = number("quarantined_again") == 0 && number("skipped_count") == 0 && report["stopped"] != true;
    Ok(if good { Exit::Success } else { Exit::Failure })
}

fn remove(config: &Config, folder: &Path, chosen: &SelectedEntries, json: bool) -> anyhow::Result<Exit> {
    let filter = chosen.filter()?;
    let answer = match folder.exists() {
        false => match &filter.id {
            Some(id) => bail!("there is no entry {id:?} in {}", folder.display()),
            None => json!({"removed": 0, "left": 0}),
        },
        true => match data_dir::lock(Path::new(&config.data_dir)) {
            Ok(_held) => {
                let clock = AgeClock::open(Path::new(&config.data_dir));
                let settings = settings::quarantine(config, Arc::new(clock), Arc::default(), None);
                let quarantine = Quarantine::open(folder, settings, None, &Books::default())?;
                let (places, left) =
                    quarantine.matching(filter.clone(), chosen.limit.unwrap_or(usize::MAX))?;
                if let (Some(id), true) = (&filter.id, places.is_empty()) {
                    bail!("there is no entry {id:?} in {}", folder.display());
                }
                let removed = quarantine.take_out(&places, RemovalReason::Removed)?.len();
                let filters: Vec<String> =
                    chosen.given().map(|(key, value)| format!("{key}={value}")).collect();
                let object = if filters.is_empty() { "all".to_owned() } else { filters.join(" ") };
                AuditLog::new(Path::new(&config.data_dir)).record(&AuditEvent {
                    who: &own_user(),
                    action: "quarantine rm",
                    object: &object,
                    digest: None,
                    outcome: "done",
                });
                json!({"removed": removed, "left": left})
            }
            Err(LockError::Taken { .. }) => {
                let mut pairs: Vec<(&str, String)> =
                    chosen.given().map(|(key, value)| (key, value.to_owned())).collect();
                pairs.extend(chosen.limit.map(|limit| ("limit", limit.to_string())));
                if chosen.all {
                    pairs.push(("all", "true".into()));
                }
                let escape = |text: &str| {
                    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                        .to_string()
                };
                let query: Vec<String> =
                    pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
                let path = format!("/api/v1/quarantine/entries?{}", query.join("&"));
                ask(config, Method::DELETE, &path, None)?
            }
            Err(error) => return Err(error.into()),
        },
    };
    if json {
        println!("{answer:#}");
    } else {
        println!("{} removed", answer["removed"]);
    }
    if answer["left"].as_u64().is_some_and(|left| left > 0) {
        eprintln!("{} more entries match; run the command again", answer["left"]);
    }
    Ok(Exit::Success)
}

/// Asks the running gateway to change something.
fn ask(config: &Config, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let address = &config.admin.listen;
    if address.is_empty() {
        return Err(ConfigError::value(
            "admin.listen",
            address,
            "an address, because this verb asks the running gateway there",
        )
        .into());
    }
    let token = config::secret("admin.token", "", &config.admin.token_file)?;
    if token.is_empty() {
        let allowed = "a file with the operator's token, for this verb and for the gateway, because every change \
                       needs the token; for example made by: (umask 077; openssl rand -hex 32 > admin.token)";
        return Err(ConfigError::value("admin.token_file", &config.admin.token_file, allowed).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // No limit on the whole: a replay takes as long as its messages need.
        let connect = std::time::Duration::from_secs(10);
        let client = admin_http::client(config)?.connect_timeout(connect).build()?;
        let url = format!("{}{path}", admin_http::base(config));
        let mut request = client.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.with_context(|| {
            format!("no gateway answers at admin.listen = {address:?}; check that it runs")
        })?;
        let status = answer.status();
        let text = answer.text().await?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if !status.is_success() {
            let said = value["message"].as_str().unwrap_or(text.trim());
            bail!("the gateway answered {status}, {}: {said}", value["error"].as_str().unwrap_or("no code"));
        }
        Ok(value)
    })
}
