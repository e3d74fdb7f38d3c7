//! `tidegate run`: the gateway.

use std::path::Path;
use std::sync::Arc;

use crate::app::App;
use crate::cli::{ConfigArgument, Exit};
use crate::config::DEFAULT_FILE;
use crate::config::checks::files;
use crate::config::words::LogFormat;
use crate::core::start_progress;
use crate::telemetry::progress::Progress;
use crate::telemetry::{logs, progress, start_event};

/// Run the gateway
///
/// SIGTERM or SIGINT: stops reading, finishes messages and writes within shutdown.deadline_s, exits with 0.
/// A second one ends it at once; acknowledged lines stay in the spool.
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
    let is_json = effective.config.log.format.is(LogFormat::Json);
    logs::start(&effective.config.log.level, is_json)?;
    let default = Path::new(DEFAULT_FILE);
    let file = arguments.config.file().or_else(|| default.exists().then_some(default));
    start_event::log(&effective.config, file);
    for note in effective.notes.iter().chain(&files::readable_secrets(&effective.config)) {
        tracing::warn!("{note}");
    }
    forbid_core_dumps();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .thread_name("io")
        .enable_all()
        .build()?;
    let config = arguments.config.clone();
    let ended = runtime.block_on(async {
        start_progress::listen(progress::set_parts);
        let progress = (!is_json).then(|| Progress::start("the gateway starts"));
        let app = App::build(&effective.config, Arc::new(move || config.load())).await?;
        drop(progress);
        app.run().await
    });
    // A stop that a second signal ended leaves work that nobody waits for.
    runtime.shutdown_background();
    ended.map(|()| Exit::Success)
}

/// A core dump would hold tokens and payloads. Other processes of the same user cannot read our memory either.
fn forbid_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take values of ours.
    let forbidden = unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none) == 0 && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    };
    if !forbidden {
        tracing::warn!(error = %std::io::Error::last_os_error(), "a core dump of this process would hold secrets");
    }
}
