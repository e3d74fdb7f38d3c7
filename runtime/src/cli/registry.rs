//! `tidegate registry`: what the registry in PostgreSQL needs before it is used.

use clap::Subcommand;

use crate::admission::registry::postgres::connection::{PgError, PgServer};
use crate::admission::registry::postgres::schema;
use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::config::words::RegistryKind;
use crate::config::{Config, settings};

/// Prepare the registry in PostgreSQL
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tidegate registry init --config tidegate.toml")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create the tables, the settings, and the trigger that reports changed devices; existing ones stay,
    /// so you can run it again
    #[command(after_help = "Example:\n  tidegate registry init --config tidegate.toml")]
    Init,
}

pub fn registry(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    match arguments.action {
        Action::Init => {
            let server = server(&config)?;
            wait_for(schema::init(&server))?;
            println!("{} has the tables, the settings and the trigger", server.at());
            Ok(Exit::Success)
        }
    }
}

/// The server of a configuration with a registry in PostgreSQL.
pub(super) fn server(config: &Config) -> anyhow::Result<PgServer> {
    if !config.registry.kind.is(RegistryKind::Postgres) {
        let kind = config.registry.kind.as_str();
        let fault = format!(
            "registry.kind = {kind:?} has no database: expected \"postgres\" (or the variable PG_HOST)"
        );
        return Err(BadUsage(fault).into());
    }
    Ok(settings::postgres(config)?.server)
}

/// Waits for an answer of the database.
pub(super) fn wait_for<T>(answer: impl Future<Output = Result<T, PgError>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(answer)?)
}
