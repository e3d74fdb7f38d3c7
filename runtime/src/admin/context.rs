//! The parts that the admin side's handlers call, the tokens, and the sessions.

use std::sync::Arc;
use std::time::Instant;

use crate::admin::access::{Access, AdminTokens, Failures, Proof, Visitor};
use crate::admin::respond::blocking;
use crate::admin::sessions::Sessions;
use crate::admin::tenant_rates::TenantRates;
use crate::admin::tokens::TenantTokens;
use crate::config::in_force::ConfigInForce;
use crate::telemetry::handles::Handles;
use crate::telemetry::metrics::Metrics;

/// Shared by all handlers but those of guests.
#[derive(Debug)]
pub struct AdminContext {
    pub(crate) handles: Arc<Handles>,
    pub(crate) metrics: Metrics,
    /// Without an operator's token: loopback only, and nothing that holds a payload.
    pub(crate) tokens: AdminTokens,
    pub(crate) tenant_tokens: Arc<TenantTokens>,
    pub(crate) failures: Failures,
    /// Logins that failed, of this machine too: a browser there may be somebody else's.
    pub(crate) logins: Failures,
    pub(crate) sessions: Sessions,
    pub(crate) config: ConfigInForce,
    /// Calls that cost the gateway more than a look.
    pub(crate) rates: TenantRates,
}

impl AdminContext {
    pub fn new(
        handles: Arc<Handles>,
        tokens: AdminTokens,
        tenant_tokens: Arc<TenantTokens>,
        config: ConfigInForce,
        port: u16,
    ) -> Self {
        Self {
            metrics: Metrics::new(handles.clone()),
            handles,
            tokens,
            tenant_tokens,
            failures: Failures::default(),
            logins: Failures::default(),
            sessions: Sessions::new(port),
            config,
            rates: TenantRates::default(),
        }
    }

    /// The rights of a token, and the folder of its tenant. Reads the tenants' tokens about once a second.
    pub(crate) fn access_of(&self, token: &str) -> (Access, Option<Arc<str>>) {
        match self.tokens.access(Some(token)) {
            Access::Nobody => match self.tenant_tokens.owner_of(token) {
                Some(tenant) => (Access::Tenant, Some(tenant.into())),
                None => (Access::Nobody, None),
            },
            access => (access, None),
        }
    }

    /// True if a caller still has the rights that it had: its session has not ended, and its token is the same.
    pub(crate) async fn still_holds(self: &Arc<Self>, visitor: &Visitor) -> bool {
        let token = match &visitor.proof {
            Proof::Nothing => return true,
            Proof::Token(token) => token.to_string(),
            Proof::Session(name) => match self.sessions.token(name, Instant::now()) {
                Some(token) => token,
                None => return false,
            },
        };
        let (context, had) = (self.clone(), (visitor.access, visitor.tenant.clone()));
        blocking(move || context.access_of(&token) == had).await.unwrap_or(false)
    }

    /// True if a caller without a token may read what holds no payload.
    pub(crate) fn is_open_to(&self, visitor: &Visitor) -> bool {
        self.tokens.operator.is_empty() && visitor.is_local
    }
}
