//! One message through the same admission, guest and line check as in the stream, with nothing sent and
//! nothing counted, for `explain` and `test`. State is a copy: `explain` begins with that of the disk,
//! `test` with none, and both keep it from message to message.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;

use crate::admission::MessageView;
use crate::admission::registry::{Registry, RegistryRow, TokenHash};
use crate::admission::{Admission, CredentialSource};
use crate::config::settings::registry;
use crate::config::tenant_config::TenantConfig;
use crate::config::{Config, settings};
use crate::core::detail::printable_lines;
use crate::core::message::Admitted;
use crate::core::reason::Reason;
use crate::core::tenant::budgets::BudgetLimits;
use crate::core::topic::TopicFields;
use crate::decode::{DecodeHost, DecodeSettings, Decoder};
use crate::explain::captured_output::CapturingSink;
use crate::explain::registry_lookup::RegistryLookup;
use crate::explain::single_guest_dir::SingleGuestDir;
use crate::explain::stopped_gateway;
use crate::explain::verdict::{ExplainOutcome, ExplainRequest, ExplainVerdict, RowOverride};
use crate::rollout::GuestStore;

/// Prints a remark; its text may name devices of a registry.
fn note(text: &str) {
    eprintln!("note: {}", printable_lines(text));
}

/// Admission and a decoder of its own.
pub struct DryRun {
    admission: Admission,
    decoder: Decoder,
    host: Arc<DecodeHost>,
    /// The client of a registry in PostgreSQL.
    lookup: Option<RegistryLookup>,
    /// The folder of a single guest under test, deleted with this.
    _folder: Option<SingleGuestDir>,
}

impl DryRun {
    /// The judgement of a gateway with this configuration.
    ///
    /// # Errors
    /// The registry or the guests folder cannot be read.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        // A registry that is not there yet knows nobody: a row given with the question still counts.
        let registry = match registry::registry(config) {
            Ok(registry) => registry,
            Err(error) => {
                note(&format!("{error:#}; no device is registered"));
                Registry::Open(Vec::new())
            }
        };
        let mut lookup = match &registry {
            Registry::Postgres(registry) => Some(RegistryLookup::new(registry.clone())?),
            Registry::File(_) | Registry::Open(_) => None,
        };
        let mut tenant_config = TenantConfig::new(config);
        let mut app_settings = None;
        if let Some(lookup) = &mut lookup {
            match lookup.settings() {
                Ok((found, rows)) => {
                    app_settings = Some(found);
                    tenant_config.update(rows);
                }
                Err(error) => note(&format!("{error}; the settings known here are used")),
            }
        }
        let config = &*tenant_config.current().get();
        let tenants = settings::tenants(config, &Arc::default(), BudgetLimits::UNLIMITED);
        let admission = Admission::new(settings::admission(config), registry, tenants);
        if let Some(app_settings) = app_settings {
            admission.apply_app_settings(&app_settings);
        }
        let guests = stopped_gateway::open_read_only(config)?;
        if guests.any_keeps_state() {
            // A copy: what is asked about changes nothing of it.
            match stopped_gateway::state_on_disk(config) {
                Ok(state) => guests.host().state().fill(&state),
                Err(error) => note(&format!("{error}; decoders begin without state")),
            }
        }
        Ok(Self { lookup, ..Self::of(admission, guests.host().clone(), None) })
    }

    /// The lines of one guest of the routing folder, whatever its devices' credentials.
    ///
    /// # Errors
    /// The guest may not serve.
    pub fn of_guest(config: &Config, guest: &Path) -> anyhow::Result<Self> {
        let folder = SingleGuestDir::with_route(guest, Path::new(&config.guests.dir))?;
        Self::of_folder(config, folder, &guest.display().to_string())
    }

    /// The lines of one guest for every tenant and message type, whatever its devices' credentials.
    ///
    /// # Errors
    /// The guest may not serve.
    pub fn of_guest_for_any(
        config: &Config,
        guest: &Path,
        route_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let folder = SingleGuestDir::for_any(guest, route_file)?;
        Self::of_folder(config, folder, &guest.display().to_string())
    }

    /// The lines of a built-in decoder without options.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn of_built_in(config: &Config, name: &str) -> anyhow::Result<Self> {
        Self::of_folder(config, SingleGuestDir::with_built_in(name)?, name)
    }

    fn of_folder(config: &Config, folder: SingleGuestDir, shown: &str) -> anyhow::Result<Self> {
        let admission = without_credentials(config);
        let decode = DecodeSettings { threads: 1, ..settings::decode(config) };
        let host = Arc::new(DecodeHost::new(decode, Arc::default())?);
        let persistence = settings::without_persistence(config);
        let (guests, _) = GuestStore::open(folder.path(), persistence, host.clone())
            .with_context(|| format!("the guests folder {}", folder.path().display()))?;
        let listed = guests.list();
        let served = listed.first().with_context(|| {
            format!("{shown} is no decoder: expected a component, or a route file with decoder = \"NAME\"")
        })?;
        if let Some(error) = &served.error {
            anyhow::bail!("{shown}: {error}");
        }
        Ok(Self::of(admission, host, Some(folder)))
    }

    /// The lines of the guests of this host, whatever their devices' credentials.
    pub fn of_host(config: &Config, host: Arc<DecodeHost>) -> Self {
        Self::of(without_credentials(config), host, None)
    }

    fn of(admission: Admission, host: Arc<DecodeHost>, folder: Option<SingleGuestDir>) -> Self {
        Self { admission, decoder: Decoder::new(host.clone()), host, lookup: None, _folder: folder }
    }

    /// The verdict on a message, as the stream would give it.
    pub fn judge(&mut self, question: ExplainRequest) -> ExplainVerdict {
        let row = question.registry_row.map(|row| {
            // A row is that of one device; to a topic that names another it is nobody's.
            let named = self.admission.names_of(&question.topic);
            let is_of = |row: &RowOverride, names: &TopicFields| {
                row.tenant_id.as_ref().is_none_or(|named| named == names.tenant.of(&question.topic))
                    && row.device_id.as_ref().is_none_or(|named| named == names.device.of(&question.topic))
            };
            row.filter(|row| named.as_ref().is_some_and(|named| is_of(row, named))).map(|row| RegistryRow {
                site_id: row.site_id,
                status: row.status,
                token: TokenHash::parse(row.provision_token_hash.as_deref()),
            })
        });
        let asked = MessageView {
            topic: &question.topic,
            payload: &question.payload,
            payload_bytes: question.payload.len(),
            via: self.admission.usual_via(&question.topic),
        };
        let mut judged = self.admission.check(asked, row);
        if let (Err(refusal), Some(lookup)) = (&mut judged, &mut self.lookup)
            && refusal.reason == Reason::RegistryUnavailable
            && let Some(names) = self.admission.names_of(&question.topic)
        {
            match lookup.look_up(names.tenant.of(&question.topic), names.device.of(&question.topic)) {
                Ok(row) => judged = self.admission.check(asked, Some(row)),
                Err(error) => refusal.detail = error.to_string().into(),
            }
        }
        let judged = match judged {
            Ok(judged) => judged,
            Err(refusal) => {
                let named = self.admission.names_of(&question.topic);
                let named = named.as_ref();
                let parked = refusal.reason == Reason::RegistryUnavailable;
                return ExplainVerdict {
                    outcome: if parked { ExplainOutcome::Parked } else { ExplainOutcome::Quarantined },
                    reason: Some(refusal.reason),
                    detail: Some(refusal.detail.into()),
                    admitted: false,
                    tenant: named.map(|names| names.tenant.of(&question.topic).to_owned()),
                    device: named.map(|names| names.device.of(&question.topic).to_owned()),
                    database: None,
                    guest: None,
                    lines: Vec::new(),
                    ignored: Vec::new(),
                    decoder_payload: None,
                    cpu: Duration::ZERO,
                };
            }
        };
        let database = judged.tenant.database().ok().map(|database| database.to_string());
        let (tenant, device) = (judged.tenant.id.to_string(), judged.device.id.to_string());
        let message = Admitted::for_trial(
            question.topic,
            judged.fields.message_type,
            question.payload,
            question.received_ns,
            judged.tenant,
            judged.device,
        )
        .with_content(judged.content);
        let route = self.host.table().route(message.tenant.id.as_str(), message.message_type());
        let guest = route.as_ref().map(|route| route.version.guest.tag.to_string());
        let decoder_payload = route.as_ref().map(|route| {
            let part = message.payload_for(route.version.rules.prefers_object);
            if message.content.is_none() { message.payload.clone() } else { Bytes::copy_from_slice(part) }
        });
        message.tenant.account.receive(1);
        let cpu = || route.as_ref().map(|route| route.version.activity.stats.cpu()).unwrap_or_default();
        let cpu_before = cpu();
        let seen = CapturingSink::default();
        self.decoder.decode(vec![message], &seen);
        let seen = seen.into_output();
        let cpu = cpu().saturating_sub(cpu_before);
        let ignored = route.map(|route| route.version.activity.ignored.take()).unwrap_or_default();
        ExplainVerdict {
            outcome: match (&seen.refused, seen.lines.is_empty()) {
                (Some(_), _) => ExplainOutcome::Quarantined,
                (None, true) => ExplainOutcome::Empty,
                (None, false) => ExplainOutcome::Lines,
            },
            reason: seen.refused.as_ref().map(|(reason, _)| *reason),
            detail: seen.refused.map(|(_, detail)| detail),
            admitted: true,
            tenant: Some(tenant),
            device: Some(device),
            database,
            guest,
            lines: seen.lines,
            ignored,
            decoder_payload,
            cpu,
        }
    }
}

/// Admission that believes the registry row of each question.
fn without_credentials(config: &Config) -> Admission {
    let mut settings = settings::admission(config);
    settings.credentials = CredentialSource::Broker;
    settings.credentials_of_type.clear();
    let tenants = settings::tenants(config, &Arc::default(), BudgetLimits::UNLIMITED);
    Admission::new(settings, Registry::Open(Vec::new()), tenants)
}
