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
use crate::config::{ConfigError, EffectiveConfig};
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
    /// The configuration file [default: tidegate.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG", global = true)]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    /// The file, if one is named.
    fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn load(&self) -> Result<EffectiveConfig, ConfigError> {
        config::load(self.config.as_deref(), &std::env::vars().collect())
    }
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
