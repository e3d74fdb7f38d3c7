//! A configuration from afar while the gateway runs: each version that passes all checks is applied.

use std::sync::Arc;
use std::time::Duration;

use crate::app::housekeeping::{LoadConfig, reload};
use crate::app::tenant_settings::TenantUpdater;
use crate::config::remote::follower::{ConfigFollower, Look};

/// Keeps the version that holds, and looks for newer ones, until it is aborted.
pub(crate) async fn follow(
    follower: Arc<ConfigFollower>,
    tenants: Arc<TenantUpdater>,
    load: Arc<LoadConfig>,
    interval: Duration,
) {
    keep(&follower).await;
    loop {
        follower.due(interval).await;
        if follower.clone().look().await == Look::Held {
            keep(&follower).await;
            reload(&tenants, &load).await;
        }
    }
}

/// Writes off the threads of the stream.
async fn keep(follower: &Arc<ConfigFollower>) {
    let follower = follower.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || follower.keep()).await {
        tracing::error!(%error, "keeping the configuration failed");
    }
}
