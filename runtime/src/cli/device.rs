//! `tidegate device`: the devices of the registry, in its file or its database. A token is read from
//! stdin, and only its SHA-256 is kept.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Subcommand;

use crate::admission::registry::file::DeviceRecord;
use crate::admission::registry::postgres::devices;
use crate::admission::registry::{file, token_hash};
use crate::audit::{AuditEvent, AuditLog, own_user};
use crate::cli::registry::{server, wait_for};
use crate::cli::{BadUsage, ConfigArgument, Exit};
use crate::config::words::RegistryKind;
use crate::config::{Config, ConfigError};
use crate::core::detail::printable;
use crate::core::topic::is_topic_name;

/// Manage the registry of devices: list, put, activate, revoke, rm
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    echo tok-dev-1 | tidegate device put acme dev-1 --site lab-1\n  \
    tidegate device list --tenant acme\n  \
    tidegate device revoke acme dev-1\n  \
    tidegate device activate acme dev-1")]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List devices, without their tokens
    #[command(after_help = "Example:\n  tidegate device list --tenant acme --json")]
    List {
        /// Only this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add or change a device; its token is read from stdin
    #[command(after_help = "Example:\n  echo tok-dev-1 | tidegate device put acme dev-1 --site lab-1")]
    Put {
        /// The tenant of the device
        tenant: String,
        /// The name of the device, as in its topics
        device: String,
        /// The site of the device
        #[arg(long)]
        site: String,
        /// Give the device no token, and read nothing from stdin
        #[arg(long)]
        no_token: bool,
    },
    /// Let a revoked device send again, with the token and the site that it had
    #[command(after_help = "Example:\n  tidegate device activate acme dev-1")]
    Activate {
        /// The tenant of the device
        tenant: String,
        /// The name of the device, as in its topics
        device: String,
    },
    /// Refuse the messages of a device from now on
    #[command(after_help = "Example:\n  tidegate device revoke acme dev-1")]
    Revoke {
        /// The tenant of the device
        tenant: String,
        /// The name of the device, as in its topics
        device: String,
    },
    /// Remove a device
    #[command(after_help = "Example:\n  tidegate device rm acme dev-1")]
    Rm {
        /// The tenant of the device
        tenant: String,
        /// The name of the device, as in its topics
        device: String,
    },
}

pub fn device(arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let done = act(&config, &arguments.action)?;
    let change = match &arguments.action {
        Action::List { .. } => None,
        Action::Put { tenant, device, .. } => Some(("device put", tenant, device)),
        Action::Activate { tenant, device } => Some(("device activate", tenant, device)),
        Action::Revoke { tenant, device } => Some(("device revoke", tenant, device)),
        Action::Rm { tenant, device } => Some(("device rm", tenant, device)),
    };
    if let Some((action, tenant, device)) = change {
        let (who, object) = (own_user(), format!("{tenant}/{device}"));
        let event = AuditEvent { who: &who, action, object: &object, digest: None, outcome: "done" };
        AuditLog::new(Path::new(&config.data_dir)).record(&event);
    }
    Ok(done)
}

fn act(config: &Config, action: &Action) -> anyhow::Result<Exit> {
    match config.registry.kind.get() {
        RegistryKind::File => {}
        RegistryKind::Postgres => return in_database(config, action),
        RegistryKind::Open => {
            return Err(BadUsage(
                "registry.kind = \"open\" has no list of devices: expected file or postgres".into(),
            )
            .into());
        }
    }
    let path = PathBuf::from(&config.registry.file);
    match action {
        Action::List { tenant, json } => {
            let of_tenant =
                |device: &DeviceRecord| tenant.as_ref().is_none_or(|tenant| device.tenant_id == *tenant);
            list(read(&path)?.into_iter().filter(of_tenant), *json)
        }
        Action::Put { tenant, device, site, no_token } => {
            put(&path, &read_device(tenant, device, site, *no_token)?)
        }
        Action::Activate { tenant, device } => change(&path, tenant, device, |devices, place| {
            devices[place].status = "ACTIVE".into();
        }),
        Action::Revoke { tenant, device } => change(&path, tenant, device, |devices, place| {
            devices[place].status = "REVOKED".into();
        }),
        Action::Rm { tenant, device } => change(&path, tenant, device, |devices, place| {
            devices.remove(place);
        }),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<DeviceRecord>> {
    let records = file::read(path).map_err(|error| {
        ConfigError::value("registry.file", path, format!("a registry file that can be read: {error}"))
    })?;
    Ok(records.into_iter().map(|(_, device)| device).collect())
}

fn in_database(config: &Config, action: &Action) -> anyhow::Result<Exit> {
    let server = server(config)?;
    let changed = |known, tenant: &str, device: &str| {
        if known {
            return Ok(Exit::Success);
        }
        bail!("there is no device {device:?} of tenant {tenant:?} in {}", server.at());
    };
    match action {
        Action::List { tenant, json } => {
            list(wait_for(devices::list(&server, tenant.as_deref()))?.into_iter(), *json)
        }
        Action::Put { tenant, device, site, no_token } => {
            let record = read_device(tenant, device, site, *no_token)?;
            wait_for(devices::put(&server, &record))?;
            say_put(&record);
            Ok(Exit::Success)
        }
        Action::Activate { tenant, device } => {
            changed(wait_for(devices::activate(&server, tenant, device))?, tenant, device)
        }
        Action::Revoke { tenant, device } => {
            changed(wait_for(devices::revoke(&server, tenant, device))?, tenant, device)
        }
        Action::Rm { tenant, device } => {
            changed(wait_for(devices::remove(&server, tenant, device))?, tenant, device)
        }
    }
}

fn list(devices: impl Iterator<Item = DeviceRecord>, json: bool) -> anyhow::Result<Exit> {
    if json {
        let shown: Vec<_> = devices
            .map(|device| {
                serde_json::json!({
                    "tenant_id": device.tenant_id, "device_id": device.device_id, "site_id": device.site_id,
                    "status": device.status, "has_token": device.provision_token_hash.is_some(),
                })
            })
            .collect();
        println!("{:#}", serde_json::Value::from(shown));
        return Ok(Exit::Success);
    }
    println!("{:<24}{:<24}{:<24}{:<10}token", "tenant", "device", "site", "status");
    for device in devices {
        let token = if device.provision_token_hash.is_some() { "set" } else { "not set" };
        println!(
            "{:<24}{:<24}{:<24}{:<10}{token}",
            printable(&device.tenant_id),
            printable(&device.device_id),
            printable(&device.site_id),
            printable(&device.status)
        );
    }
    Ok(Exit::Success)
}

/// A device as it is put, its token from stdin.
fn read_device(tenant: &str, device: &str, site: &str, no_token: bool) -> anyhow::Result<DeviceRecord> {
    for (argument, name) in [("TENANT", tenant), ("DEVICE", device)] {
        if name.is_empty() || name.contains(['/', '+', '#']) || !is_topic_name(name) {
            let allowed = "the name of one topic level: 1 to 255 bytes, without /, + and #, and without \
                           control characters";
            return Err(BadUsage(format!("{argument} {name:?}: expected {allowed}")).into());
        }
    }
    let mut token = String::new();
    if !no_token {
        std::io::stdin().read_to_string(&mut token)?;
    }
    let token = token.trim_end_matches(['\r', '\n']);
    if token.is_empty() && !no_token {
        let expected = "expected the device's token; --no-token gives it none";
        return Err(BadUsage(format!("stdin is empty: {expected}")).into());
    }
    Ok(DeviceRecord {
        tenant_id: tenant.into(),
        device_id: device.into(),
        site_id: site.into(),
        status: "ACTIVE".into(),
        provision_token_hash: (!token.is_empty()).then(|| token_hash(token)),
    })
}

fn say_put(record: &DeviceRecord) {
    let token =
        if record.provision_token_hash.is_some() { "with its token's hash" } else { "without a token" };
    let site = printable(&format!("{:?}", record.site_id));
    println!(
        "{}/{} is ACTIVE at {site}, {token}",
        printable(&record.tenant_id),
        printable(&record.device_id)
    );
}

fn put(path: &Path, record: &DeviceRecord) -> anyhow::Result<Exit> {
    let _held = file::lock(path)?;
    let mut devices = if path.exists() { read(path)? } else { Vec::new() };
    let place = devices
        .iter()
        .position(|known| known.tenant_id == record.tenant_id && known.device_id == record.device_id);
    match place {
        Some(place) => devices[place] = record.clone(),
        None => devices.push(record.clone()),
    }
    file::write(path, &devices)?;
    say_put(record);
    Ok(Exit::Success)
}

fn change(
    path: &Path,
    tenant: &str,
    device: &str,
    act: impl FnOnce(&mut Vec<DeviceRecord>, usize),
) -> anyhow::Result<Exit> {
    let _held = file::lock(path)?;
    let mut devices = read(path)?;
    let Some(place) = devices.iter().position(|known| known.tenant_id == tenant && known.device_id == device)
    else {
        bail!("there is no device {device:?} of tenant {tenant:?} in {}", path.display());
    };
    act(&mut devices, place);
    file::write(path, &devices)?;
    Ok(Exit::Success)
}
