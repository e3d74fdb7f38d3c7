//! `tidegate run`: the gateway.

use super::{ConfigArgument, Done};
use crate::{pipeline, telemetry};

/// Run the gateway
///
/// SIGTERM or SIGINT: stop reading, settle and flush under a deadline, exit 0. SIGHUP: read the
/// registry and the guests again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate run --config /etc/tidegate/tidegate.toml")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Done> {
    let effective = arguments.config.load()?;
    telemetry::logs::start(&effective.config.log.level, effective.config.log.format == "json");
    for note in &effective.notes {
        tracing::warn!("{note}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .thread_name("io")
        .enable_all()
        .build()?;
    runtime.block_on(pipeline::run(&effective.config))?;
    Ok(Done::Good)
}
