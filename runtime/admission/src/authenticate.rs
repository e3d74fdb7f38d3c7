//! Authentication of a message's device: by its envelope, the cache and the registry.

use std::sync::Arc;

use crate::admission::Admission;
use crate::auth_cache::CachedDevice;
use crate::claims::Claims;
use crate::credentials::{CredentialSource, check_device, has_proved};
use crate::envelope::{Envelope, EnvelopeError, EnvelopeValue, content};
use crate::outcome::{AuthFailure, LookupSource, MessageView};
use crate::registry::{Registry, RegistryRow, postgres};
use tidegate_core::detail::Quoted;
use tidegate_core::device::{Device, make_device};
use tidegate_core::envelope_content::EnvelopeContent;
use tidegate_core::message::Via;
use tidegate_core::reason::Reason;
use tidegate_core::tenant::Tenant;
use tidegate_core::topic::TopicTemplate;
use tidegate_json::TapeWriter;

impl Admission {
    /// Runs the checks that need the registry's entry of the device.
    fn check_known(&self, known: &CachedDevice, claims: &Claims<'_>) -> Result<(), AuthFailure> {
        let proven = &self.proven_tokens;
        check_device(known, claims, self.settings.require_token, proven).map_err(|(reason, detail)| {
            AuthFailure::Refuse {
                reason,
                detail,
                is_proven: has_proved(known, claims, proven),
                is_known: true,
            }
        })
    }

    /// The credentials that a message of a template without any in its payloads needs: its source must vouch for it,
    /// unless the registry asks for no token.
    pub(super) fn credentials_of_source(&self, via: Via) -> Result<CredentialSource, AuthFailure> {
        let needs_token = self.settings.require_token && !matches!(self.registry, Registry::Open(_));
        match via {
            Via::Broker => Ok(CredentialSource::Broker),
            Via::Proven => Ok(CredentialSource::Listener),
            Via::Listener if !needs_token => Ok(CredentialSource::Listener),
            Via::Listener => {
                let detail = "messages on this topic bring no token: the device must prove itself at CONNECT";
                Err((Reason::TokenMissing, detail.to_owned()).into())
            }
        }
    }

    /// Reads the envelope of a message: its claims about the sender, and its content. Leaves the tape of its
    /// credentials in `tape`.
    pub(super) fn open_envelope<'a>(
        &self,
        message: &'a MessageView<'_>,
        credentials: CredentialSource,
        template: &TopicTemplate,
        (tenant, message_type): (&str, &str),
        tape: &'a mut TapeWriter,
    ) -> Result<(Claims<'a>, Option<Arc<EnvelopeContent>>), AuthFailure> {
        tape.clear();
        let mut claims = Claims::default();
        if credentials == CredentialSource::Envelope {
            let envelope = Envelope::read(message.payload, tape).map_err(|fault| {
                // A tenant whose name no database can have must mend that first: its tenant_id
                // can never matter.
                match self.tenants.policies().rules_of(tenant).database {
                    Err(why) if matches!(fault, EnvelopeError::Type("tenant_id", _)) => {
                        (Reason::BadDatabaseName, why)
                    }
                    _ => (Reason::BadPayload, fault.with_remedy(message_type, message.via)),
                }
            })?;
            if let EnvelopeValue::Text(named) = &envelope.tenant_id
                && named != tenant
            {
                let detail = format!("tenant_id is {}, but the topic names {tenant:?}", Quoted(named));
                return Err((Reason::TenantMismatch, detail).into());
            }
            if let EnvelopeValue::Missing = envelope.site_id {
                let detail = "site_id is missing: expected the site of the device";
                return Err((Reason::MissingSiteId, detail.to_owned()).into());
            }
            claims.envelope = Some(envelope);
        }
        if template.has_more_names() {
            claims.topic_site = template.site(message.topic).map(|site| site.of(message.topic).to_owned());
        }
        let content = content(template, message.topic, message.payload)
            .map_err(|error| (Reason::BadEnvelope, error.to_string()))?;
        Ok((claims, content))
    }

    /// The tenant and the device of a message, by their key `key`.
    pub(super) fn authenticate(
        &self,
        claims: &Claims<'_>,
        (tenant, device, key): (&str, &str, u64),
        source: LookupSource<'_>,
    ) -> Result<(Arc<Tenant>, Arc<Device>), AuthFailure> {
        let (found, cached) = match source {
            LookupSource::Device(known) => {
                self.check_known(known, claims)?;
                return Ok((known.tenant.clone(), known.device.clone()));
            }
            LookupSource::Row(row) => (row, false),
            LookupSource::Registry if self.must_follow(key) => return Err(AuthFailure::Wait),
            LookupSource::Registry | LookupSource::Unparked => match &self.registry {
                Registry::Open(tenants) => return Ok(self.open_device(tenants, tenant, device, claims)?),
                Registry::Postgres(registry) => {
                    return self.authenticate_cached(registry, tenant, device, key, claims);
                }
                Registry::File(_) => {
                    if let Some(known) = self.cache.get(key, tenant, device, self.now_s()) {
                        self.check_known(&known, claims)?;
                        return Ok((known.tenant.clone(), known.device.clone()));
                    }
                    (self.registry.lookup(tenant, device), true)
                }
            },
        };
        let Some(found) = found else { return Err(unregistered(tenant, device).into()) };
        let known = self.cache_row(tenant, device, found, cached);
        let verdict = self.check_known(&known, claims);
        let identity = (known.tenant.clone(), known.device.clone());
        if cached {
            self.cache.insert(key, known, self.now_s());
        }
        verdict.map(|()| identity)
    }

    /// True if the registry has the device, as far as that is known without asking a database. None: it must
    /// be asked.
    pub(super) fn is_registered(
        &self,
        tenant: &str,
        device: &str,
        key: u64,
        source: &LookupSource<'_>,
    ) -> Option<bool> {
        match source {
            LookupSource::Row(row) => return Some(row.is_some()),
            LookupSource::Device(_) => return Some(true),
            LookupSource::Registry | LookupSource::Unparked => {}
        }
        match &self.registry {
            Registry::Open(tenants) => Some(tenants.iter().any(|open| open == tenant)),
            Registry::File(file) => Some(file.contains(tenant, device)),
            Registry::Postgres(_) if self.cache.knows(key, tenant, device) => Some(true),
            Registry::Postgres(registry) => {
                let is_absent = self.cache.has_absent(key, tenant, device, self.now_s());
                (is_absent || registry.is_down()).then_some(false)
            }
        }
    }

    /// True if others of its device wait before a message. Only PostgreSQL makes messages wait; those
    /// that an earlier run with another registry had parked are not waited for.
    fn must_follow(&self, key: u64) -> bool {
        matches!(self.registry, Registry::Postgres(_)) && self.pending.contains(key)
    }

    /// Authenticates from the cache alone, where the registry is asked over a network.
    fn authenticate_cached(
        &self,
        registry: &postgres::PostgresRegistry,
        tenant: &str,
        device: &str,
        key: u64,
        claims: &Claims<'_>,
    ) -> Result<(Arc<Tenant>, Arc<Device>), AuthFailure> {
        let now_s = self.now_s();
        if let Some(known) = self.cache.get(key, tenant, device, now_s) {
            self.check_known(&known, claims)?;
            return Ok((known.tenant.clone(), known.device.clone()));
        }
        if self.cache.is_absent(key, tenant, device, now_s) {
            return Err(unregistered(tenant, device).into());
        }
        if registry.is_down()
            && let Some(known) = self.cache.stale(key, tenant, device, now_s, registry.settings.stale_max_s)
        {
            self.cache.record_stale(1);
            self.check_known(&known, claims)?;
            return Ok((known.tenant.clone(), known.device.clone()));
        }
        Err(AuthFailure::Wait)
    }

    /// The cache entry of a registry row.
    pub(super) fn cache_row(
        &self,
        tenant: &str,
        device: &str,
        row: RegistryRow,
        counted: bool,
    ) -> CachedDevice {
        CachedDevice {
            tenant: self.tenant(tenant, counted),
            device: Arc::new(make_device(device, &row.site_id, self.device_hash(tenant, device))),
            active: row.status == "ACTIVE",
            status: row.status,
            site: row.site_id,
            token: row.token,
        }
    }

    fn open_device(
        &self,
        tenants: &[String],
        tenant: &str,
        device: &str,
        claims: &Claims<'_>,
    ) -> Result<(Arc<Tenant>, Arc<Device>), (Reason, String)> {
        if !tenants.iter().any(|open| open == tenant) {
            let detail = format!("the tenant {tenant:?} is not in registry.open_tenants");
            return Err((Reason::UnregisteredDevice, detail));
        }
        let affinity = self.device_hash(tenant, device);
        let device = make_device(device, claims.site().unwrap_or_default(), affinity);
        Ok((self.tenant(tenant, true), Arc::new(device)))
    }
}

fn unregistered(tenant: &str, device: &str) -> (Reason, String) {
    let detail = format!("there is no device {device:?} of tenant {tenant:?} in the registry");
    (Reason::UnregisteredDevice, detail)
}
