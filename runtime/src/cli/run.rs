//! `tidegate run`: the gateway.

use std::sync::Arc;

use crate::app::{App, LoadConfig};
use crate::cli::{ConfigArgument, Exit, validate};
use crate::config::checks::files;
use crate::config::remote::follower::ConfigFollower;
use crate::config::remote::origin::ConfigOrigin;
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
///
/// --config https://… or a git checkout: a new version holds once it has passed all checks of `validate`, and is
/// looked for each fleet.config_poll_s. The last good one is kept in the data folder (TIDEGATE_DATA_DIR), and taken
/// at a start without the network. TIDEGATE_CONFIG_TOKEN_FILE and TIDEGATE_CONFIG_CA_FILE name the files of a bearer
/// token and of authorities (docs/FLEET.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate run --config /etc/tidegate/tidegate.toml")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .thread_name("io")
        .enable_all()
        .build()?;
    let follower = match arguments.config.origin()? {
        ConfigOrigin::File(_) => None,
        ConfigOrigin::Remote(origin) => {
            let environment = std::env::vars().collect();
            let check = Box::new(validate::findings);
            Some(runtime.block_on(ConfigFollower::start(origin, environment, check))?)
        }
    };
    let config = arguments.config.clone();
    let load: Arc<LoadConfig> = match &follower {
        None => Arc::new(move || config.load()),
        Some(follower) => {
            let follower = follower.clone();
            Arc::new(move || follower.load())
        }
    };
    let effective = load()?;
    let is_json = effective.config.log.format.is(LogFormat::Json);
    logs::start(&effective.config.log.level, is_json)?;
    let place = match &follower {
        None => arguments.config.file()?.map(|file| file.display().to_string()),
        Some(follower) => Some(follower.status().place),
    };
    start_event::log(&effective.config, place);
    if let Some(status) =
        follower.as_ref().map(|follower| follower.status()).filter(|status| status.from_kept)
    {
        let why = status.fault().unwrap_or_default();
        let (tag, digest) = (status.version.tag, status.version.digest);
        tracing::error!(
            why,
            tag,
            digest,
            "the configuration is the last good one, which an earlier run has kept"
        );
    }
    for note in effective.notes.iter().chain(&files::readable_secrets(&effective.config)) {
        tracing::warn!("{note}");
    }
    forbid_core_dumps();
    let ended = runtime.block_on(async {
        start_progress::listen(progress::set_parts);
        let progress = (!is_json).then(|| Progress::start("the gateway starts"));
        let app = App::build(&effective.config, load, follower).await?;
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
