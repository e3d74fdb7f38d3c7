//! The settings of each part, made of the configuration.

pub(crate) mod registry;

use std::collections::HashMap;
use std::net::ToSocketAddrs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::admission::registry::postgres::connection::PgServer;
use crate::admission::registry::postgres::{PgSettings, PostgresRegistry};
use crate::admission::{AdmissionSettings, CredentialSource, OverRate};
use crate::config::checks::listener::{ConnectProof, connect_credentials, proxies};
use crate::config::error::ConfigError;
use crate::config::sections::{Config, GuestsLargeSection};
use crate::config::words::{MqttProtocol, OutputKind, RegistryKind, Retained, SpoolSync, Word};
use crate::config::{postgres_url, words};
use crate::core::age_clock::AgeClock;
use crate::core::books::Books;
use crate::core::device_hash::SeedTag;
use crate::core::disk_reserve::DiskReserve;
use crate::core::identity::NameTemplate;
use crate::core::ids::TenantId;
use crate::core::line_protocol::Dialect;
use crate::core::refused_topic::RefusedTopic;
use crate::core::tenant::budgets::BudgetLimits;
use crate::core::tenant::table::Tenants;
use crate::core::token_bucket::Rate;
use crate::core::topic::TopicTemplates;
use crate::decode::{DecodeSettings, LargeClassSettings};
use crate::fleet::drain::DrainSettings;
use crate::quarantine::QuarantineSettings;
use crate::rollout::{CompileLimits, CompilerSettings, Persistence, TenantLimits};
use crate::source::broker::{BrokerSettings, Protocol, TopicFilter};
use crate::source::listener::{
    ClientCertificates, ConnectLimitSettings, CredentialPolicy, ListenerSettings, TlsKeys, TlsSettings,
};
use crate::spool::SpoolSettings;
use crate::writer::BackoffLimits;
use crate::writer::{Gzip, HttpSettings, OutputSettings, ServerKind, WriterSettings};
use crate::{config, limits};

fn credentials(word: &Word<words::Credentials>) -> CredentialSource {
    match word.get() {
        words::Credentials::Envelope => CredentialSource::Envelope,
        words::Credentials::Broker => CredentialSource::Broker,
        words::Credentials::Listener => CredentialSource::Listener,
    }
}

/// The topic templates.
pub fn topics(config: &Config) -> Arc<TopicTemplates> {
    Arc::new(crate::config::topics::read(config).expect("checked with the configuration"))
}

pub fn admission(config: &Config) -> AdmissionSettings {
    let admission = &config.admission;
    AdmissionSettings {
        topics: topics(config),
        payload_bytes_max: admission.payload_bytes_max as usize,
        payload_bytes_kept: payload_bytes_kept(config),
        rate: (admission.rate_per_s > 0.0)
            .then_some(Rate { per_s: admission.rate_per_s, burst: admission.burst }),
        over_rate: match admission.over_rate.get() {
            words::OverRate::Slow => OverRate::Slow,
            words::OverRate::Refuse => OverRate::Refuse,
        },
        credentials: credentials(&admission.credentials),
        credentials_of_type: admission
            .types
            .iter()
            .map(|(name, rules)| (name.clone(), credentials(&rules.credentials)))
            .collect::<HashMap<_, _>>(),
        require_token: config.registry.require_token,
        cache_ttl_s: config.registry.cache_ttl_s as f64,
        cache_entries_max: match config.registry.cache_entries_max {
            0 => limits::CACHE_ENTRIES_UNBOUNDED,
            entries => entries as usize,
        },
    }
}

/// The tenants of this configuration, counted in `books`. All of them have the common output.
pub fn tenants(config: &Config, books: &Arc<Books>, limits: BudgetLimits) -> Arc<Tenants> {
    let tenants = Tenants::new(crate::config::tenants::tenancy(config), books.clone());
    Arc::new(tenants.with_budgets(limits))
}

/// The tenants whose lines go to servers of their own, or with credentials of their own.
///
/// # Errors
/// A file that they name cannot be read.
pub fn own_outputs(config: &Config) -> Result<HashMap<TenantId, HttpSettings>, ConfigError> {
    let mut outputs = HashMap::new();
    let Some(common) = http(config)? else { return Ok(outputs) };
    for (name, own) in config.tenants.iter().filter(|(_, own)| own.has_own_output()) {
        // What proves who we are is for the server that it was given to.
        let is_elsewhere = own.output_url.as_ref().is_some_and(|url| *url != common.url);
        let secret =
            |key: &str, value: &Option<String>, file: &Option<String>, common: &str| match (value, file) {
                (None, None) if is_elsewhere => Ok(String::new()),
                (None, None) => Ok(common.to_owned()),
                (value, file) => {
                    let (value, file) = (value.as_deref().unwrap_or(""), file.as_deref().unwrap_or(""));
                    config::secret(&format!("tenants.{name}.{key}"), value, file)
                }
            };
        let none = if is_elsewhere { "" } else { &common.username };
        outputs.insert(
            TenantId::new(name),
            HttpSettings {
                url: own.output_url.clone().unwrap_or_else(|| common.url.clone()),
                token: secret("output_token", &own.output_token, &own.output_token_file, &common.token)?,
                org: own.output_org.clone().unwrap_or_else(|| common.org.clone()),
                username: own.output_username.clone().unwrap_or_else(|| none.to_owned()),
                password: secret(
                    "output_password",
                    &own.output_password,
                    &own.output_password_file,
                    &common.password,
                )?,
                ..common.clone()
            },
        );
    }
    Ok(outputs)
}

/// Quarantine, which charges the disk budgets of `tenants` if there are any.
pub fn quarantine(
    config: &Config,
    age_clock: Arc<AgeClock>,
    disk_reserve: Arc<DiskReserve>,
    tenants: Option<&Arc<Tenants>>,
) -> QuarantineSettings {
    let bounds = &config.quarantine;
    let mut settings = QuarantineSettings::new(bounds.bytes_max, bounds.days_max as u32);
    settings.topics = Some(topics(config));
    (settings.age_clock, settings.disk_reserve) = (age_clock, disk_reserve);
    settings.tenants = tenants.cloned();
    settings
}

/// Payload bytes that sources keep: with a settings table, as many as it may come to allow.
fn payload_bytes_kept(config: &Config) -> usize {
    let configured = config.admission.payload_bytes_max;
    match config.registry.kind.get() {
        RegistryKind::Postgres => configured.max(limits::PAYLOAD_BYTES_LIVE_MAX) as usize,
        RegistryKind::File | RegistryKind::Open => configured as usize,
    }
}

/// The registry in PostgreSQL; no connection is made here.
///
/// # Errors
/// A file that `registry` names cannot be read.
pub fn postgres(config: &Config) -> Result<PostgresRegistry, ConfigError> {
    let registry = &config.registry;
    let hidden = |fault: String| {
        ConfigError::value("registry.url", "(hidden)", format!("the URL of a PostgreSQL server: {fault}"))
    };
    let mut url = postgres_url::parse(&registry.url).map_err(hidden)?;
    let password = config::secret("registry.password", "", &registry.password_file)?;
    if !password.is_empty() {
        url.server.password(password);
    }
    let timeout = Duration::from_millis(registry.query_timeout_ms);
    let server = PgServer::new(url.server, url.trust, url.root_cert.as_deref(), timeout)
        .map_err(|error| hidden(error.to_string()))?;
    let settings = PgSettings {
        settings_poll: Duration::from_secs(registry.settings_poll_s),
        auto_provision: registry.auto_provision,
        counters: registry.counters,
        stale_max_s: registry.stale_max_s as f64,
    };
    Ok(PostgresRegistry::new(server, settings))
}

/// The server of the fleet's table; `None`: there is none. No connection is made here.
///
/// # Errors
/// A file that `fleet` names cannot be read.
pub fn fleet(config: &Config) -> Result<Option<PgServer>, ConfigError> {
    let fleet = &config.fleet;
    if fleet.postgres.is_empty() {
        return Ok(None);
    }
    let hidden = |fault: String| {
        ConfigError::value("fleet.postgres", "(hidden)", format!("the URL of a PostgreSQL server: {fault}"))
    };
    let mut url = postgres_url::parse(&fleet.postgres).map_err(hidden)?;
    let password = config::secret("fleet.postgres_password", "", &fleet.postgres_password_file)?;
    if !password.is_empty() {
        url.server.password(password);
    }
    let timeout = Duration::from_millis(limits::FLEET_QUERY_TIMEOUT_MS);
    let server = PgServer::new(url.server, url.trust, url.root_cert.as_deref(), timeout);
    server.map(Some).map_err(|error| hidden(error.to_string()))
}

pub fn decode(config: &Config) -> DecodeSettings {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    DecodeSettings {
        threads: if config.guests.threads == 0 { cores } else { config.guests.threads },
        deadline_ms: config.guests.deadline_ms,
        memory_bytes_max: config.guests.memory_bytes_max,
        component_bytes_max: config.guests.component_bytes_max,
        // Files are for any database to read later, so for the strictest.
        dialect: if config.output.kind.is(OutputKind::InfluxDb3) { Dialect::V3 } else { Dialect::V1V2 },
        large: large(&config.guests.large),
    }
}

fn large(large: &GuestsLargeSection) -> Option<LargeClassSettings> {
    let place = |route: &String| {
        let (tenant, stem) = route.split_once('/')?;
        Some((tenant.to_owned(), stem.to_owned()))
    };
    (!large.routes.is_empty()).then(|| LargeClassSettings {
        routes: large.routes.iter().filter_map(place).collect(),
        deadline_ms: large.deadline_ms,
        memory_bytes_max: large.memory_bytes_max,
        component_bytes_max: large.component_bytes_max,
        instances_max: large.instances_max,
    })
}

/// The times of a drain.
pub fn drain(config: &Config) -> DrainSettings {
    let fleet = &config.fleet;
    DrainSettings {
        notice: Duration::from_secs(fleet.drain_notice_s),
        spread: Duration::from_secs(fleet.drain_spread_s),
        patience: Duration::from_secs(config.shutdown.deadline_s),
    }
}

/// The room that tenants may take with their own tokens.
pub fn tenant_limits(config: &Config) -> TenantLimits {
    let guests = &config.guests;
    TenantLimits { decoders_max: guests.tenant_decoders_max, bytes_max: guests.tenant_disk_bytes_max }
}

/// A store of guests that compiles as the gateway does, and keeps nothing.
pub fn without_persistence(config: &Config) -> Persistence {
    let large = &config.guests.large;
    let cpu_s = large.compile_cpu_s;
    let large_compile_limits = (!large.routes.is_empty()).then(|| CompileLimits {
        cpu_s,
        memory_bytes_max: large.compile_memory_bytes_max,
        output_bytes_max: crate::rollout::limits::LARGE_COMPILE_OUTPUT_BYTES_MAX,
        // Three times its CPU time, and never less than that of the others.
        wall_s: (3 * cpu_s).max(crate::rollout::limits::COMPILE_WALL_S),
        keeps_priority: false,
    });
    let persistence = Persistence::none(CompilerSettings::new(shared_cache(config)), large_compile_limits);
    Persistence { tenant_limits: tenant_limits(config), ..persistence }
}

/// The gateway's folder of compiled guests, where it is there and ours. A verb makes none: what it
/// made as another user the gateway could not use.
fn shared_cache(config: &Config) -> Option<PathBuf> {
    let cache = guests_data(config).join("cache");
    let metadata = std::fs::symlink_metadata(&cache).ok()?;
    // SAFETY: geteuid(2) cannot fail.
    (metadata.uid() == unsafe { libc::geteuid() }).then_some(cache)
}

/// The folder of serving guests, their history and their compiled components.
pub fn guests_data(config: &Config) -> PathBuf {
    Path::new(&config.data_dir).join("guests")
}

/// The listener's TLS files; None: no TLS.
pub fn tls(config: &Config) -> Option<TlsSettings> {
    let listen = &config.listen;
    (!listen.tls_cert_file.is_empty()).then(|| TlsSettings {
        keys: TlsKeys::LISTEN,
        client_crl_file: PathBuf::from(&listen.client_crl_file),
        cert_file: PathBuf::from(&listen.tls_cert_file),
        key_file: PathBuf::from(&listen.tls_key_file),
        client_ca_file: PathBuf::from(&listen.client_ca_file),
        client_certificates: match listen.client_certificates.get() {
            words::ClientCertificates::No => ClientCertificates::No,
            words::ClientCertificates::Optional => ClientCertificates::Optional,
            words::ClientCertificates::Required => ClientCertificates::Required,
        },
    })
}

/// The TLS files of the admin side; None: no TLS.
pub fn admin_tls(config: &Config) -> Option<TlsSettings> {
    let admin = &config.admin;
    (!admin.cert_file.is_empty()).then(|| TlsSettings {
        keys: TlsKeys::ADMIN,
        cert_file: PathBuf::from(&admin.cert_file),
        key_file: PathBuf::from(&admin.key_file),
        client_ca_file: PathBuf::new(),
        client_crl_file: PathBuf::new(),
        client_certificates: ClientCertificates::No,
    })
}

/// The listener, which charges the memory budgets of `tenants`.
///
/// # Errors
/// The address is none.
pub fn listener(config: &Config, tenants: &Arc<Tenants>) -> anyhow::Result<ListenerSettings> {
    let address =
        config.listen.address.to_socket_addrs()?.next().context("listen.address names no address")?;
    let listen = &config.listen;
    let connections_max = listen.connections_max as usize;
    let name = |text: &str| NameTemplate::parse(text).expect("checked with the configuration");
    Ok(ListenerSettings {
        address,
        connections_max,
        proxies: proxies(config)?,
        connections_per_address_max: connections_max.min(listen.connections_per_address_max as usize),
        payload_bytes_max: payload_bytes_kept(config),
        ceilings: ConnectLimitSettings {
            connects: (listen.connects_per_s > 0.0)
                .then_some(Rate { per_s: listen.connects_per_s, burst: listen.connects_burst }),
            failed_connects_per_min: listen.failed_connects_per_min,
            connections_per_tenant_max: listen.connections_per_tenant_max as usize,
            messages_per_s_per_tenant: listen.messages_per_s_per_tenant,
        },
        asks: match connect_credentials(config) {
            ConnectProof::None => CredentialPolicy::Nothing,
            ConnectProof::Optional => CredentialPolicy::IfAny,
            ConnectProof::Required => CredentialPolicy::Always,
        },
        username: name(&listen.username),
        certificate_name: name(&listen.certificate_name),
        topics: topics(config),
        tls: tls(config),
        tenants: Some(tenants.clone()),
    })
}

/// The settings of the broker session. `client_id`: without `{random}`, as `data_dir::client_id` makes it.
pub fn broker(config: &Config, client_id: String) -> anyhow::Result<BrokerSettings> {
    let mqtt = &config.mqtt;
    let password = config::secret("mqtt.password", &mqtt.password, &mqtt.password_file)?;
    Ok(BrokerSettings {
        url: mqtt.url.parse()?,
        protocol: match mqtt.protocol.get() {
            MqttProtocol::V4 => Protocol::V4,
            MqttProtocol::V5 => Protocol::V5,
        },
        filters: topics(config)
            .iter()
            .map(|template| TopicFilter { filter: template.filter(), qos: template.qos() })
            .collect(),
        share: (!mqtt.share.is_empty()).then(|| mqtt.share.clone()),
        client_id,
        username: mqtt.username.clone(),
        password: (!password.is_empty()).then_some(password),
        ca_file: (!mqtt.ca_file.is_empty()).then(|| PathBuf::from(&mqtt.ca_file)),
        accepts_retained: mqtt.retained.is(Retained::Accept),
        payload_bytes_max: payload_bytes_kept(config),
        keep_alive_s: mqtt.keep_alive_s,
        data_dir: PathBuf::from(&config.data_dir),
        answer_topic: answer_topic(config),
        sparkplug_host_id: Some(mqtt.sparkplug_host_id.clone()).filter(|host_id| !host_id.is_empty()),
    })
}

/// The topic of answers to refused messages; None: nobody wants them.
pub fn answer_topic(config: &Config) -> Option<RefusedTopic> {
    let topic = &config.mqtt.refused_topic;
    let parse = || RefusedTopic::parse(topic, &topics(config)).expect("checked with the configuration");
    (!topic.is_empty()).then(parse)
}

/// The common server, where lines go to one.
fn http(config: &Config) -> Result<Option<HttpSettings>, ConfigError> {
    let output = &config.output;
    let kind = match output.kind.get() {
        OutputKind::InfluxDb3 => ServerKind::InfluxDb3,
        OutputKind::InfluxDb2 => ServerKind::InfluxDb2,
        OutputKind::InfluxDb1 => ServerKind::InfluxDb1,
        OutputKind::File => return Ok(None),
    };
    Ok(Some(HttpSettings {
        kind,
        url: output.url.clone(),
        token: config::secret("output.token", &output.token, &output.token_file)?,
        org: output.org.clone(),
        username: output.username.clone(),
        password: config::secret("output.password", &output.password, &output.password_file)?,
        gzip: match output.gzip.get() {
            words::Gzip::Auto => Gzip::Auto,
            words::Gzip::Always => Gzip::Always,
            words::Gzip::Never => Gzip::Never,
        },
        request_timeout: Duration::from_millis(output.request_timeout_ms),
        create_database: output.create_database,
    }))
}

pub fn writer(config: &Config) -> anyhow::Result<WriterSettings> {
    let output = &config.output;
    let to = match http(config)? {
        None => OutputSettings::File { path: PathBuf::from(&output.path) },
        Some(http) => OutputSettings::Http(http),
    };
    Ok(WriterSettings {
        output: to,
        batch_lines: output.batch_lines as u32,
        flush_interval: Duration::from_millis(output.flush_interval_ms),
        flush_interval_max: Duration::from_millis(output.flush_interval_max_ms),
        batch_lines_max: output.batch_lines_max as u32,
        requests_max: output.requests_max as u32,
        waits: BackoffLimits::default(),
        memory_bytes_max: config.spool.memory_bytes_max as usize,
    })
}

pub fn spool(config: &Config, device_seed: SeedTag, age_clock: Arc<AgeClock>) -> SpoolSettings {
    let spool = &config.spool;
    SpoolSettings {
        bytes_max: spool.bytes_max,
        tenant_bytes_max: spool.tenant_bytes_max,
        when_full: spool.when_full.get(),
        memory_bytes_max: spool.memory_bytes_max,
        sync: spool.sync.is(SpoolSync::Always),
        device_seed,
        age_clock,
    }
}
