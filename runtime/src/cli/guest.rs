//! `tidegate guest`: what serves, put another in its place, go back. Of a running gateway over HTTP,
//! of a stopped one in its folders; and a new decoder's crate.

pub(super) mod comparison;
mod scaffold;
mod target;
mod templates;
mod wrap;

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::admin_client::GatewayArgument;
use crate::cli::guest::target::{GuestTarget, PutOptions};
use crate::cli::guest::templates::Language;
use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::codecs::script_files;
use crate::core::detail::{printable, printable_lines};
use crate::core::route_key::{file_name, is_file_name};
use crate::rollout::{ExpectedVersion, PutFile};
use crate::telemetry::progress::Progress;

/// Manage decoders: list, put, history, rollback, rm, log, state, new, wrap
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tidegate guest new boiler\n  \
    tidegate guest put acme boiler boiler.wasm\n  \
    tidegate guest history acme boiler\n  \
    tidegate guest rollback acme boiler\n  \
    tidegate guest state acme meter dev-0001\n  \
    tidegate guest list --gateway https://gateway.example --token-file my-token --tenant acme\n\n\
    TENANT is a tenant, or _default for all tenants. TYPE is a message type, or _any for all other types.")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    gateway: GatewayArgument,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the decoders in the guests folder and their state
    #[command(after_help = "Example:\n  tidegate guest list --tenant acme --json")]
    List {
        /// Only this tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Put a decoder in place; it serves after its checks, and exit 1 says why it may not serve
    #[command(after_help = "Examples:\n  tidegate guest put acme boiler boiler.wasm\n  \
        tidegate guest put acme boiler boiler.wasm --dry-run\n  \
        tidegate guest put acme boiler boiler.wasm --cases boiler.cases.jsonl --expect-same\n  \
        tidegate guest put acme meter meter.toml\n\n\
        A route file (.toml) that says decoder = \"NAME\" serves a decoder that comes with the program, and takes \
        the place of a component.\n\
        A running gateway remembers the last messages of each route. The new decoder decodes them before it serves, and \
        the output shows the lines that go (-) and come (+). --dry-run shows them too, and puts nothing.")]
    Put {
        /// The tenant, or `_default` for tenants without their own decoder
        tenant: String,
        /// The message type, or `_any` for types without their own decoder
        #[arg(value_name = "TYPE")]
        message_type: String,
        /// The component, or a core module that `guest wrap` takes, or the route file of a built-in decoder;
        /// `-` means stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Cases that are put beside it, in place of those that are there; it must pass them
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
        /// Refuse it if it decodes a remembered message differently than the decoder that serves
        #[arg(long)]
        expect_same: bool,
        /// Refuse it if another version serves than this one: "version" of `guest list --json`, or `none`
        #[arg(long, value_name = "VERSION", value_parser = ExpectedVersion::parse)]
        expect_version: Option<ExpectedVersion>,
        /// Show what it would change, and put nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the last versions: who put them, when, and their result
    #[command(after_help = "Example:\n  tidegate guest history acme boiler")]
    History {
        /// The tenant, or `_default` for tenants without their own decoder
        tenant: String,
        /// The message type, or `_any` for types without their own decoder
        #[arg(value_name = "TYPE")]
        message_type: String,
    },
    /// Let the version before serve again
    #[command(after_help = "Example:\n  tidegate guest rollback acme boiler")]
    Rollback {
        /// The tenant, or `_default` for tenants without their own decoder
        tenant: String,
        /// The message type, or `_any` for types without their own decoder
        #[arg(value_name = "TYPE")]
        message_type: String,
    },
    /// Remove a decoder from the folder; its history stays
    #[command(after_help = "Example:\n  tidegate guest rm acme boiler")]
    Rm {
        /// The tenant, or `_default` for tenants without their own decoder
        tenant: String,
        /// The message type, or `_any` for types without their own decoder
        #[arg(value_name = "TYPE")]
        message_type: String,
    },
    /// Print the last log texts of a decoder of a running gateway
    #[command(after_help = "Example:\n  tidegate guest log acme boiler")]
    Log {
        /// The tenant, or `_default` for tenants without their own decoder
        tenant: String,
        /// The message type, or `_any` for types without their own decoder
        #[arg(value_name = "TYPE")]
        message_type: String,
    },
    /// Print the state that a decoder keeps between messages, as it is on disk
    #[command(after_help = "Example:\n  tidegate guest state acme meter dev-0001")]
    State {
        /// The tenant, or `_default` for tenants without their own decoder
        tenant: String,
        /// The message type, or `_any` for types without their own decoder
        #[arg(value_name = "TYPE")]
        message_type: String,
        /// Only this partition: a device, or as `partition` in the route's TOML file names it
        partition: Option<String>,
    },
    /// Create a folder with a working decoder, its cases and a README
    #[command(
        after_help = "Examples:\n  tidegate guest new boiler\n  tidegate guest new boiler --lang python"
    )]
    New {
        /// The name of the decoder
        name: String,
        /// The language
        #[arg(long, value_enum, default_value = "rust")]
        lang: Language,
        /// The new folder [default: NAME]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The folder of the SDK `tidegate-guest` [default: the SDK of the checkout around the new folder,
        /// else of the repository]
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Make a component from a core module: of the SDK, of wit-bindgen, or of a toolchain for WASI preview 1
    #[command(after_help = "Examples:\n  \
        tidegate guest wrap target/wasm32-unknown-unknown/release/boiler.wasm -o boiler.wasm\n  \
        tidegate guest wrap core.wasm -o boiler.wasm\n\n\
        A module of C, Go or Rust's wasm32-wasip1 gets an adapter: a clock that begins on 1 January 2026, random numbers \
        with a fixed seed, no files, no environment, and no output. The component imports tidegate:ingest alone.")]
    Wrap {
        /// The core module
        module: PathBuf,
        /// The new file [default: NAME.component.wasm, beside the module]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
}

pub fn guest(arguments: &Arguments) -> anyhow::Result<Exit> {
    match &arguments.action {
        Action::New { name, lang, dir, sdk } => {
            return scaffold::new(name, *lang, dir.as_deref(), sdk.as_deref());
        }
        Action::Wrap { module, output } => return wrap::wrap(module, output.as_deref()),
        _ => {}
    }
    let config = arguments.config.load()?.config;
    let gateway = GuestTarget::find(&config, &arguments.gateway)?;
    let answer = match &arguments.action {
        Action::List { tenant } => {
            let _progress = Progress::start("the decoders are compiled and listed");
            gateway.list(tenant.as_deref().map(named).as_deref())
        }
        Action::Put { tenant, message_type, file, cases, expect_same, expect_version, dry_run } => {
            let shown = file.display().to_string();
            let file = put_file(file)?;
            let cases = cases.as_ref().map(read_cases).transpose()?;
            let _progress = Progress::start(format!(
                "{shown} ({} kB) is sent, compiled, started, and run on its cases and on recent messages",
                file.bytes().len().div_ceil(1_000)
            ));
            let options = PutOptions {
                cases,
                expect_same: *expect_same,
                expect_version: expect_version.clone(),
                dry_run: *dry_run,
            };
            gateway.put(&named(tenant), &named(message_type), file, options)
        }
        Action::History { tenant, message_type } => gateway.history(&named(tenant), &named(message_type)),
        Action::Rollback { tenant, message_type } => {
            let _progress = Progress::start("the version before is compiled and started");
            gateway.roll_back(&named(tenant), &named(message_type))
        }
        Action::Rm { tenant, message_type } => gateway.remove(&named(tenant), &named(message_type)),
        Action::Log { tenant, message_type } => gateway.log(&named(tenant), &named(message_type)),
        Action::State { tenant, message_type, partition } => {
            gateway.state(&named(tenant), &named(message_type), partition.as_deref())
        }
        Action::New { .. } | Action::Wrap { .. } => unreachable!("done above"),
    };
    let answer = match answer? {
        Ok(answer) => answer,
        Err(refusal) => {
            if arguments.json {
                println!("{:#}", json!({"error": refusal.code, "message": refusal.message}));
            }
            eprintln!("{}: {}", printable(refusal.code), printable_lines(&refusal.message));
            return Ok(Exit::Failure);
        }
    };
    if arguments.json {
        println!("{answer:#}");
    } else {
        show(&arguments.action, &answer);
    }
    Ok(Exit::Success)
}

/// The name of a folder or file: as it is where it is one, else encoded.
fn named(name: &str) -> String {
    if is_file_name(name) || matches!(name, "_default" | "_any") { name.to_owned() } else { file_name(name) }
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(path)
        .with_context(|| path.display().to_string())
        .map_err(|error| BadUsage(format!("{error:#}")).into())
}

/// The file of a decoder, by its extension. What comes by stdin is a route file if it is no wasm.
fn put_file(path: &PathBuf) -> anyhow::Result<PutFile> {
    if path.is_dir() {
        let script = script_files::read_folder(path).with_context(|| path.display().to_string());
        let script = script.map_err(|error| BadUsage(format!("{error:#}")))?;
        return PutFile::new("js", script.into_bytes()).map_err(|why| BadUsage(why).into());
    }
    let bytes = read(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = match extension {
        _ if bytes.starts_with(b"\0asm") => "wasm",
        None if path.as_os_str() == "-" => "toml",
        extension => extension.unwrap_or("wasm"),
    };
    match PutFile::new(extension, bytes) {
        Ok(PutFile::Component(component)) => Ok(PutFile::Component(wrap::component(component)?)),
        Ok(file) => Ok(file),
        Err(why) => Err(BadUsage(format!("{}: {why}", path.display())).into()),
    }
}

/// The cases of a file, in one piece.
fn read_cases(path: &PathBuf) -> anyhow::Result<String> {
    let cases = String::from_utf8(read(path)?);
    let cases = cases.map_err(|_| BadUsage(format!("--cases {}: expected UTF-8", path.display())))?;
    if cases.trim().is_empty() {
        return Err(BadUsage(format!("--cases {}: the file has no case", path.display())).into());
    }
    Ok(cases)
}

fn show(action: &Action, answer: &Value) {
    let text = |value: &Value, key: &str| printable(value[key].as_str().unwrap_or("-"));
    let rows = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    match action {
        Action::List { .. } => {
            println!("{:<20}{:<20}{:<10}{:<46}{:>10}", "tenant", "type", "state", "guest", "messages");
            for guest in rows("guests") {
                println!(
                    "{:<20}{:<20}{:<10}{:<46}{:>10}",
                    text(&guest, "tenant"),
                    text(&guest, "type"),
                    if guest["guest"].is_string() { "serving".into() } else { text(&guest, "state") },
                    shown_guest(&guest),
                    guest["messages"]
                );
                if let Some(error) = guest["error"].as_str() {
                    let file = match guest["file_state"].as_str() {
                        Some("set_aside") => "the file in the folder is set aside",
                        _ => "the file in the folder does not serve",
                    };
                    println!("    {file}: {}", printable_lines(error));
                }
                if let Some(probation) = guest["probation"].as_object() {
                    let (messages, failures) = (&probation["messages"], &probation["failures"]);
                    println!("    on probation: {failures} failures of {messages} messages");
                }
            }
        }
        Action::History { .. } => {
            println!("{:<14}{:<32}{:<24}{:<20}what", "outcome", "when", "who", "version");
            for version in rows("versions") {
                let short: String = text(&version, "version").chars().take(12).collect();
                println!(
                    "{:<14}{:<32}{:<24}{:<20}{}",
                    text(&version, "outcome"),
                    text(&version, "when"),
                    text(&version, "who"),
                    short,
                    text(&version, "guest")
                );
                if let Some(reason) = version["reason"].as_str() {
                    println!("    {}", printable_lines(reason));
                }
            }
        }
        Action::Log { .. } => {
            for line in rows("lines") {
                let [time, level, route, said] =
                    ["time", "level", "route", "text"].map(|key| text(&line, key));
                println!("{time} {level:<5} {route} {said}");
            }
            if answer["dropped"] != 0 {
                println!("({} texts were above the limits and dropped)", answer["dropped"]);
            }
        }
        Action::State { .. } => {
            println!("{:<32}{:<32}{:>6}  value", "partition", "key", "bytes");
            for partition in rows("partitions") {
                for value in partition["values"].as_array().into_iter().flatten() {
                    println!(
                        "{:<32}{:<32}{:>6}  {}",
                        text(&partition, "partition"),
                        text(value, "key"),
                        value["bytes"],
                        shown(value)
                    );
                }
            }
            if answer["more"] != 0 {
                println!("({} more partitions; name one to see it)", answer["more"]);
            }
        }
        Action::Rm { tenant, message_type } => println!("{tenant}/{message_type} is removed"),
        Action::Put { tenant, message_type, .. } if answer["state"] == "unchanged" => {
            println!("{tenant}/{message_type}: {} serves already", text(answer, "guest"));
        }
        Action::Put { tenant, message_type, .. } | Action::Rollback { tenant, message_type } => {
            comparison::print(&answer["comparison"]);
            let what = match answer["state"] == "tried" {
                true => "may serve; nothing was put",
                false => "serves",
            };
            println!("{tenant}/{message_type}: {} {what}", text(answer, "guest"));
        }
        Action::New { .. } | Action::Wrap { .. } => {}
    }
}

/// The version that serves, and that it is built in.
fn shown_guest(guest: &Value) -> String {
    let tag = printable(guest["guest"].as_str().unwrap_or("-"));
    if guest["built_in"].is_string() { format!("{tag} (built in)") } else { tag }
}

/// A value of the state for people: a number of the SDK, a text, or base64.
fn shown(value: &Value) -> String {
    match (value["u64"].as_u64(), value["text"].as_str()) {
        (_, Some(text)) => printable(&format!("{text:?}")),
        (Some(number), None) => number.to_string(),
        (None, None) => value["base64"].as_str().unwrap_or_default().to_owned(),
    }
}
