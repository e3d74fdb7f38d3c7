//! The admin side: its address, tokens and routes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use crate::admin;
use crate::admin::access::AdminTokens;
use crate::admin::context::AdminContext;
use crate::admin::guests::{GuestApi, GuestRoutes};
use crate::admin::server::{AdminLimits, AdminServer};
use crate::admin::tokens::TenantTokens;
use crate::config;
use crate::config::Config;
use crate::config::in_force::ConfigInForce;
use crate::telemetry::handles::Handles;

/// Starts it; `None` if no address is configured.
///
/// # Errors
/// The address is taken, or a token's file cannot be read.
pub(super) async fn start_admin(
    config: &Config,
    handles: &Arc<Handles>,
    in_force: ConfigInForce,
    limits: AdminLimits,
) -> anyhow::Result<Option<AdminServer>> {
    if config.admin.listen.is_empty() {
        return Ok(None);
    }
    let tokens = AdminTokens {
        operator: config::secret("admin.token", "", &config.admin.token_file)?,
        reader: config::secret("admin.read_token", "", &config.admin.read_token_file)?,
    };
    let (listener, address) = admin::bind(&config.admin.listen)
        .await
        .with_context(|| format!("admin.listen = {:?} cannot be listened on", config.admin.listen))?;
    tracing::info!(%address, tls = limits.tls.is_some(), "admin listens");
    let tenant_tokens =
        Some(&config.admin.tenant_tokens_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let api = GuestApi::new(
        handles.guests.clone(),
        handles.spool.clone(),
        handles.tenants.clone(),
        handles.audit.clone(),
    );
    let tenant_tokens = Arc::new(TenantTokens::new(tokens.clone(), tenant_tokens));
    let guests = GuestRoutes::new(api, tenant_tokens.clone());
    let context = AdminContext::new(handles.clone(), tokens, tenant_tokens, in_force, address.port());
    let router = admin::router(context, guests);
    Ok(Some(AdminServer::start(listener, router, limits).context("the admin side's thread cannot start")?))
}
