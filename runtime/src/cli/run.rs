//! `tidegate run`: the gateway.

use std::sync::Arc;

use crate::app::App;
use crate::cli::{ConfigArgument, Exit};
use crate::config::checks::files;
use crate::config::words::LogFormat;
use crate::telemetry::logs;

/// Run the gateway
///
/// SIGTERM or SIGINT: stops reading, finishes messages and writes within shutdown.deadline_s, exits with 0.
/// SIGHUP: reads the registry, the guests folder and the configuration again. Changes of [tenants] hold from
/// then on; other changes of the configuration need a restart.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate run --config /etc/tidegate/tidegate.toml")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let effective = arguments.config.load()?;
    logs::start(&effective.config.log.level, effective.config.log.format.is(LogFormat::Json))?;
    for note in effective.notes.iter().chain(&files::readable_secrets(&effective.config)) {
        tracing::warn!("{note}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .thread_name("io")
        .enable_all()
        .build()?;
    let config = arguments.config.clone();
    runtime.block_on(async {
        App::build(&effective.config, Arc::new(move || config.load())).await?.run().await
    })?;
    Ok(Exit::Success)
}
