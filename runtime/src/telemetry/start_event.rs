//! The first event of the log: the version, and all that the gateway listens to, reads and writes to.

use crate::config::words::{OutputKind, RegistryKind};
use crate::config::{Config, settings};
use crate::core::redacted_url::RedactedUrl;

/// Logs it. `place`: that of the configuration. Addresses that are not configured are left out, and credentials too.
pub fn log(config: &Config, place: Option<String>) {
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let output = &config.output;
    let written_to = match output.kind.get() {
        OutputKind::File => output.path.clone(),
        _ => RedactedUrl(&output.url).to_string(),
    };
    let registry = match config.registry.kind.get() {
        RegistryKind::File => config.registry.file.clone(),
        RegistryKind::Postgres => RedactedUrl(&config.registry.url).to_string(),
        RegistryKind::Open => "open".into(),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = place,
        data_dir = config.data_dir,
        broker = set(&config.mqtt.url),
        topic = set(&config.mqtt.url).map(|_| settings::topics(config).to_string()),
        client_id = set(&config.mqtt.url).map(|_| config.mqtt.client_id.clone()),
        listen = set(&config.listen.address),
        admin = set(&config.admin.listen),
        registry,
        guests = config.guests.dir,
        output = written_to,
        output_kind = output.kind.as_str(),
        database = output.database,
        "tidegate starts"
    );
}
