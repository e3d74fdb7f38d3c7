//! Checks of a gateway and of what it depends on: one file each. None of them changes a setting or a message.

pub mod finding;
pub(crate) mod running_gateway;
pub(crate) mod configuration;
mod open_files;
mod clock;
mod disk;
mod broker;
mod mosquitto_file;
mod database;
mod certificates;
mod spool;
mod secrets;
mod fleet;

use std::path::Path;

use crate::config::Config;
use crate::doctor::finding::Finding;
use crate::doctor::running_gateway::RunningGateway;

/// Runs all checks. `mosquitto_file`: a configuration of Mosquitto to read. `config_file`: the file of this
/// configuration.
///
/// # Errors
/// A secret's file cannot be read, or this process gets no runtime.
pub fn examine(
    config: &Config,
    config_file: Option<&Path>,
    mosquitto_file: Option<&Path>,
) -> anyhow::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let gateway = runtime.block_on(RunningGateway::find(config))?;
    let mut findings = vec![clock::check()];
    findings.push(open_files::check(config, &gateway));
    findings.extend(disk::check(config));
    findings.extend(spool::check(config, &gateway));
    findings.extend(runtime.block_on(broker::check(config, &gateway))?);
    findings.extend(mosquitto_file.map(mosquitto_file::check).unwrap_or_default());
    findings.extend(runtime.block_on(database::check(config))?);
    findings.extend(runtime.block_on(fleet::check(config, &gateway))?);
    findings.extend(certificates::check(config));
    findings.extend(secrets::check(config, config_file));
    Ok(findings)
}
