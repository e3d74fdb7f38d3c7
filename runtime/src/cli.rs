//! The command line: one file a verb.
//!
//! Exit 0: done. 1: the check found a fault. 2: bad usage or bad configuration. Results
//! go to stdout, everything else to stderr.

pub mod init;
pub mod run;
pub mod validate;
pub mod doctor;
pub mod explain;
pub mod test;
pub mod diff;
pub mod mapping;
pub mod codecs;
pub mod device;
pub mod quarantine;
pub mod registry;
pub mod drain;
pub mod fleet;
pub mod books;
pub mod guest;
pub mod compile_guest;
pub mod spool;
pub mod top;
pub mod tail;
pub mod capture;
pub mod completions;
mod admin_http;
mod admin_client;
mod tap_stream;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config;
use crate::config::remote::origin::{ConfigOrigin, RemoteOrigin, data_dir};
use crate::config::remote::{follower, kept};
use crate::config::{ConfigError, DEFAULT_FILE, EffectiveConfig, Environment};
use crate::core::detail::printable_lines;
use crate::telemetry::logs;

/// Tidegate: receives MQTT messages, decodes them in a WebAssembly sandbox, writes them to InfluxDB.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Arguments),
    Run(run::Arguments),
    Validate(validate::Arguments),
    Doctor(doctor::Arguments),
    Explain(explain::Arguments),
    Test(test::Arguments),
    Diff(diff::Arguments),
    Mapping(mapping::Arguments),
    Codecs(codecs::Arguments),
    Device(device::Arguments),
    Quarantine(quarantine::Arguments),
    Registry(registry::Arguments),
    Drain(drain::Arguments),
    Fleet(fleet::Arguments),
    Books(books::Arguments),
    Guest(guest::Arguments),
    #[command(hide = true)]
    CompileGuest(compile_guest::Arguments),
    Spool(spool::Arguments),
    Top(top::Arguments),
    Tail(tail::Arguments),
    Capture(capture::Arguments),
    Completions(completions::Arguments),
}

/// The place of the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgument {
    /// The configuration file [default: tidegate.toml, if it exists]; also https://…, or a git checkout
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG", global = true)]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn origin(&self) -> Result<ConfigOrigin, ConfigError> {
        ConfigOrigin::of(self.config.as_deref())
    }

    /// The file with the configuration that verbs read, if there is one.
    fn file(&self) -> Result<Option<PathBuf>, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let file = match self.origin()? {
            ConfigOrigin::File(None) => default.exists().then(|| default.into()),
            ConfigOrigin::File(file) => file,
            ConfigOrigin::Remote(_) => {
                Some(kept::path(&data_dir(&environment()))).filter(|file| file.exists())
            }
        };
        Ok(file)
    }

    /// The configuration of the gateway: of one from afar the version that holds there, or the newest where no gateway
    /// has run yet.
    fn load(&self) -> Result<EffectiveConfig, ConfigError> {
        let environment = environment();
        match self.origin()? {
            ConfigOrigin::File(file) => config::load(file.as_deref(), &environment),
            ConfigOrigin::Remote(origin) => match kept::read(&data_dir(&environment), &origin.to_string()) {
                Ok(Some(version)) => follower::load(&origin, &version, &environment),
                Ok(None) | Err(_) => newest(&origin, &environment),
            },
        }
    }

    /// The newest configuration, whatever a gateway has.
    fn load_newest(&self) -> Result<EffectiveConfig, ConfigError> {
        match self.origin()? {
            ConfigOrigin::File(_) => self.load(),
            ConfigOrigin::Remote(origin) => newest(&origin, &environment()),
        }
    }
}

fn environment() -> Environment {
    std::env::vars().collect()
}

/// The version that a place has now.
fn newest(origin: &RemoteOrigin, environment: &Environment) -> Result<EffectiveConfig, ConfigError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| ConfigError::Remote { place: origin.to_string(), why: error.to_string() })?;
    let version = runtime.block_on(follower::get(origin, environment))?;
    follower::load(origin, &version, environment)
}

/// The result of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Exit 0.
    Success,
    /// Exit 1: the thing asked about has faults; they are on stdout or stderr.
    Failure,
}

/// Runs the verb that the process was called with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The one TLS provider of the process; a second call in tests is no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if !matches!(arguments.verb, Verb::Run(_)) {
        reset_sigpipe();
    }
    let done = match arguments.verb {
        Verb::Init(arguments) => init::init(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Validate(arguments) => validate::validate(&arguments),
        Verb::Doctor(arguments) => doctor::doctor(&arguments),
        Verb::Explain(arguments) => explain::explain(&arguments),
        Verb::Test(arguments) => test::test(&arguments),
        Verb::Diff(arguments) => diff::diff(&arguments),
        Verb::Mapping(arguments) => mapping::mapping(&arguments),
        Verb::Codecs(arguments) => codecs::codecs(&arguments),
        Verb::Device(arguments) => device::device(&arguments),
        Verb::Quarantine(arguments) => quarantine::quarantine(&arguments),
        Verb::Registry(arguments) => registry::registry(&arguments),
        Verb::Drain(arguments) => drain::drain(&arguments),
        Verb::Fleet(arguments) => fleet::fleet(&arguments),
        Verb::Books(arguments) => books::books(&arguments),
        Verb::Guest(arguments) => guest::guest(&arguments),
        Verb::CompileGuest(arguments) => return compile_guest::compile_guest(&arguments),
        Verb::Spool(arguments) => spool::spool(&arguments),
        Verb::Top(arguments) => top::top(&arguments),
        Verb::Tail(arguments) => tail::tail(&arguments),
        Verb::Capture(arguments) => capture::capture(&arguments),
        Verb::Completions(arguments) => completions::completions(&arguments, Arguments::command()),
    };
    match done {
        Ok(Exit::Success) => ExitCode::SUCCESS,
        Ok(Exit::Failure) => ExitCode::from(1),
        Err(error) => {
            logs::print(&format!("tidegate: {}", printable_lines(&format!("{error:#}"))));
            let bad_usage = error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<BadUsage>());
            ExitCode::from(if bad_usage { 2 } else { 1 })
        }
    }
}

/// Ends the process quietly when nobody reads its output any more, as `| head` does. Not for the
/// gateway: a closed connection must not end it.
fn reset_sigpipe() {
    // SAFETY: no other thread runs yet, and SIG_DFL is no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// An invalid argument: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUsage(pub String);
