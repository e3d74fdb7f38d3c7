//! Asks a server for its version: at the start, and then each hour, because servers are replaced.

use std::sync::Weak;
use std::time::Duration;

use tracing::warn;

use crate::limits;
use crate::output::{Output, OutputTransport};
use crate::server_version::{ServerInfo, caveats};
use crate::settings::ServerKind;
use tidegate_core::detail::printable;

/// Characters kept of a version.
const VERSION_CHARS_MAX: usize = 64;

/// Asks until the output is closed. What does not hold is logged once for each version.
pub async fn watch(output: Weak<Output>) {
    loop {
        let wait_s = {
            let Some(output) = output.upgrade() else { return };
            let OutputTransport::Http(endpoint) = &output.transport else { return };
            match endpoint.version().await {
                Some(version) => {
                    record(&output, endpoint.kind(), endpoint.host(), version);
                    limits::VERSION_INTERVAL_S
                }
                None => limits::VERSION_RETRY_S,
            }
        };
        tokio::time::sleep(Duration::from_secs(wait_s)).await;
    }
}

fn record(output: &Output, kind: ServerKind, server: &str, version: String) {
    let version = printable(&version.chars().take(VERSION_CHARS_MAX).collect::<String>());
    let caveats = caveats(kind, &version);
    if output.server.info().version != version {
        for caveat in &caveats {
            warn!(server, %version, "{caveat}");
        }
    }
    output.server.set(ServerInfo { version, caveats });
}
