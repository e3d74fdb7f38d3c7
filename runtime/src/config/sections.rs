//! One struct a section of the TOML file. The doc comments are the reference page: `tidegate
//! validate --explain` prints them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::words::{
    ClientCertificates, ConnectCredentials, Credentials, Gzip, LogFormat, OutputKind, RegistryKind, Retained,
    SpoolSync, Word,
};
use crate::domain::tenant::settings::WhenFull;

/// One key of the reference page.
#[derive(Debug)]
pub struct KeyDoc {
    pub key: &'static str,
    pub doc: &'static str,
}

macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $( $(#[doc = $doc:literal])* $field:ident : $ty:ty = $default:expr, )* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $( $(#[doc = $doc])* pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            pub const KEYS: &'static [KeyDoc] =
                &[$( KeyDoc { key: stringify!($field), doc: concat!($($doc, "\n"),*) }, )*];
        }
    };
}

section! {
    /// The whole configuration.
    Config {
        /// The folder for quarantine, the session's state and guest history. Made with mode 0700,
        /// its files with 0600. One gateway at a time may use it.
        data_dir: String = "tidegate-data".into(),
        mqtt: Mqtt = Mqtt::default(),
        listen: Listen = Listen::default(),
        registry: Registry = Registry::default(),
        admission: Admission = Admission::default(),
        guests: Guests = Guests::default(),
        spool: Spool = Spool::default(),
        output: Output = Output::default(),
        quarantine: Quarantine = Quarantine::default(),
        admin: Admin = Admin::default(),
        log: Log = Log::default(),
        shutdown: Shutdown = Shutdown::default(),
        /// Tenants with settings of their own: `[tenants.NAME]`.
        tenants: BTreeMap<String, Tenant> = BTreeMap::new(),
    }
}

section! {
    /// The broker to subscribe to.
    Mqtt {
        /// `mqtt://host:port` or `mqtts://host:port` (TLS); empty: no broker.
        url: String = "mqtt://127.0.0.1:1883".into(),
        /// The topic template. `{tenant}`, `{device}` and `{type}` name levels; the filter to
        /// subscribe to is made of it.
        topic: String = "tenant/{tenant}/device/{device}/{type}".into(),
        /// The client id. The session is persistent, so it must be stable, and no other client
        /// may use it.
        client_id: String = "tidegate".into(),
        /// The QoS to subscribe with: 1, the only one that keeps the promise that nothing is lost.
        qos: u8 = 1,
        /// What becomes of retained messages: `drop` (they are old news, counted as RETAINED) or
        /// `accept`.
        retained: Word<Retained> = Retained::Drop.into(),
        /// The user name for the broker; empty: none is sent.
        username: String = String::new(),
        /// The password for the broker; better in `password_file`.
        password: String = String::new(),
        /// A file that holds the password.
        password_file: String = String::new(),
        /// A PEM file of the authorities to trust for mqtts; empty: those of the system.
        ca_file: String = String::new(),
        /// The topic at the broker on which a device is told why its message was refused, as
        /// `tenant/{tenant}/device/{device}/refused`; empty: nobody is told. Where `topic` would match
        /// it, it must be a message type of its own there, which devices then cannot use.
        refused_topic: String = String::new(),
        /// Keep-alive in seconds, 5 to 65535: how soon a dead connection is noticed.
        keep_alive_s: u16 = 30,
    }
}

section! {
    /// The listener: devices connect straight to Tidegate. It takes publishers of MQTT 3.1.1 and 5 and
    /// nothing else; it is not a broker (docs/LISTENER.md).
    Listen {
        /// `address:port` to listen on; empty: no listener. An address that is not loopback is
        /// refused while a message could enter without a credential.
        address: String = String::new(),
        /// Connections at once, 1 to 1,000,000. One more is refused.
        connections_max: u32 = 10_000,
        /// Of those, connections of one address (of IPv6: of one /64 network); it does not hold for
        /// loopback.
        connections_per_address_max: u32 = 1_000,
        /// Of those, connections of one tenant whose devices prove who they are.
        connections_per_tenant_max: u32 = 5_000,
        /// New connections a second of one address; 0: no limit. It does not hold for loopback.
        connects_per_s: f64 = 100.0,
        /// New connections that one address may make at once before that rate holds.
        connects_burst: f64 = 1_000.0,
        /// CONNECTs a minute that may fail of one address under one name, and twenty times as many under
        /// any; what is over is turned away unlooked at. 0: no limit.
        failed_connects_per_min: u32 = 30,
        /// Messages a second of one tenant whose devices prove who they are: its connections are read
        /// so fast and no faster; 0: no limit.
        messages_per_s_per_tenant: u32 = 0,
        /// What a device must prove at CONNECT, by a password or a client certificate: `none` (nothing;
        /// what it brings is read over), `optional` (what it brings must be good), `required`, or
        /// `auto`: `required` with admission.credentials = "listener", `optional` where only some
        /// message types have that, else `none`.
        credentials: Word<ConnectCredentials> = ConnectCredentials::Auto.into(),
        /// How a user name says who a device is; its password is then its provision token. Text must
        /// stand between `{tenant}` and `{device}`.
        username: String = "{tenant}/{device}".into(),
        /// How the common name, or a DNS name, URI or e-mail address among the alternative names, of a
        /// client certificate says so.
        certificate_name: String = "{tenant}/{device}".into(),
        /// A PEM file of our certificate and its chain; with it `address` speaks TLS and nothing else.
        /// It is read again when it changes.
        tls_cert_file: String = String::new(),
        /// A PEM file of its private key.
        tls_key_file: String = String::new(),
        /// Whether devices show certificates: `no`, `optional` or `required`.
        client_certificates: Word<ClientCertificates> = ClientCertificates::No.into(),
        /// A PEM file of the authorities whose certificates are believed; for devices' alone.
        client_ca_file: String = String::new(),
    }
}

section! {
    /// Which devices there are.
    Registry {
        /// `file`, `postgres`, or `open`: any device of the tenants in `open_tenants`.
        kind: Word<RegistryKind> = RegistryKind::File.into(),
        /// The CSV file (RFC 4180) with the header
        /// `tenant_id,device_id,site_id,status,provision_token_hash`. An empty cell is NULL, `""`
        /// the empty string. It is read again when it changes.
        file: String = "devices.csv".into(),
        /// The tenants of kind `open`.
        open_tenants: Vec<String> = Vec::new(),
        /// `postgres://user:password@host:port/database`, of kind `postgres`. `?sslmode=`: `disable`,
        /// `prefer` (the default: encrypted if the server can), `require` (encrypted), `verify-ca`
        /// and `verify-full` (and it is who it should be); `&sslrootcert=` names the authority's file.
        url: String = String::new(),
        /// A file that holds the password, in place of the one in `url`.
        password_file: String = String::new(),
        /// Whether a device must bring its token.
        require_token: bool = true,
        /// Whether unknown devices are added to a PostgreSQL registry.
        auto_provision: bool = false,
        /// How long what the registry said of a device is believed, in seconds; 0: never.
        cache_ttl_s: u64 = 60,
        /// Devices in that cache; 0 means 1,000,000.
        cache_entries_max: u64 = 10_000,
        /// While a PostgreSQL registry is down, devices serve on by what was known of them for so
        /// many seconds.
        stale_max_s: u64 = 86_400,
        /// How long one query to a PostgreSQL registry may take, in milliseconds, 100 to 60,000.
        query_timeout_ms: u64 = 2_000,
        /// How often the settings table of a PostgreSQL registry is read, in seconds.
        settings_poll_s: u64 = 5,
        /// Whether refusals are counted in a PostgreSQL registry.
        counters: bool = true,
    }
}

section! {
    /// Which messages are let in.
    Admission {
        /// Who vouches for a device: `envelope` (site_id and provision_token in the JSON
        /// payload), `broker` (whoever could publish there was allowed to) or `listener` (the device proved who
        /// it is when it connected); with the last two the site is the registry's. The broker's word
        /// never holds for what came by the listener, nor the listener's for what came by the broker:
        /// that needs the envelope.
        credentials: Word<Credentials> = Credentials::Envelope.into(),
        /// The largest payload in bytes, 0 to 268,435,455. A larger one is quarantined with its
        /// first 1,024 bytes.
        payload_bytes_max: u64 = 262_144,
        /// Messages a second a device; 0: no limit.
        rate_per_s: f64 = 5.0,
        /// Messages that a device may send at once before the rate holds.
        burst: f64 = 20.0,
        /// Messages a second of all devices of a tenant together; 0: no limit.
        tenant_rate_per_s: f64 = 0.0,
        /// Messages that all devices of a tenant together may send at once before that rate holds.
        tenant_burst: f64 = 1_000.0,
        /// How far a line's time may lie before the receipt of its message, in seconds; 0: any. What
        /// is further is refused as BAD_LINE.
        time_past_max_s: u64 = 0,
        /// How far it may lie after the receipt, in seconds; 0: any.
        time_future_max_s: u64 = 0,
        /// Messages that may be unsettled at once; at the ceiling sources stop reading.
        unsettled_messages_max: u64 = 100_000,
        /// Bytes of topics and payloads that may be unsettled at once.
        unsettled_bytes_max: u64 = 67_108_864,
        /// Message types with rules of their own: `[admission.types.TYPE]`.
        types: BTreeMap<String, AdmissionType> = BTreeMap::new(),
    }
}

section! {
    /// `[admission.types.TYPE]`: what differs for one message type.
    AdmissionType {
        /// As `admission.credentials`, for this type.
        credentials: Word<Credentials> = Credentials::Envelope.into(),
    }
}

section! {
    /// The decoders and what each may use.
    Guests {
        /// The folder that is the routing table.
        dir: String = "guests".into(),
        /// Decode threads; 0: one a core.
        threads: usize = 0,
        /// CPU time that a guest may take for a message, in milliseconds, 1 to 1000.
        deadline_ms: u64 = 10,
        /// The part of the decode threads' CPU time, above 0 to 1, that a tenant may use while others
        /// wait; what is over goes after the others. 0: an even part among those that are active.
        cpu_share: f64 = 0.0,
        /// Linear memory of one instance in bytes, 65,536 to 67,108,864.
        memory_bytes_max: u64 = 16_777_216,
        /// The largest component in bytes.
        component_bytes_max: u64 = 10_485_760,
        /// What the operator grants beyond that: `[guests.large]`.
        large: GuestsLarge = GuestsLarge::default(),
    }
}

section! {
    /// `[guests.large]`: the class large, for guests that bring an engine of their own, as for
    /// JavaScript. Each may take much more than a normal one, so it is granted route by route, here
    /// and nowhere else.
    GuestsLarge {
        /// The routes that have it: TENANT/TYPE as the folder and the file in `guests.dir` are named,
        /// `_default/TYPE` and `TENANT/_any` too. Empty: nobody.
        routes: Vec<String> = Vec::new(),
        /// CPU time that such a guest may take for a message, in milliseconds, 1 to 1000.
        deadline_ms: u64 = 50,
        /// Linear memory of one instance in bytes, 1,048,576 to 1,073,741,824.
        memory_bytes_max: u64 = 67_108_864,
        /// Instances at once, 3 to 1,000, two of which are for trying out new versions. All of them
        /// together take at most this many times `memory_bytes_max`.
        instances_max: usize = 8,
        /// The largest component in bytes, at most 104,857,600.
        component_bytes_max: u64 = 33_554_432,
        /// CPU time that compiling one may take, in seconds, 1 to 3,600.
        compile_cpu_s: u64 = 120,
        /// Memory that compiling one may take in bytes, at least 268,435,456.
        compile_memory_bytes_max: u64 = 2_147_483_648,
    }
}

section! {
    /// The backlog between acknowledgement and database.
    Spool {
        /// Bytes on disk for all tenants.
        bytes_max: u64 = 1_073_741_824,
        /// Bytes on disk for one tenant's backlog.
        tenant_bytes_max: u64 = 268_435_456,
        /// What happens when a tenant's share is full. `block`: nothing is lost, its messages wait
        /// unacknowledged; `drop_oldest`: its oldest lines go, counted.
        when_full: Word<WhenFull> = WhenFull::Block.into(),
        /// Bytes of recent lines kept in memory beside the disk.
        memory_bytes_max: u64 = 67_108_864,
        /// `always`: a message is acknowledged once it is synced; `never`, for benches: a power cut
        /// loses what was acknowledged.
        sync: Word<SpoolSync> = SpoolSync::Always.into(),
    }
}

section! {
    /// Where lines are written to.
    Output {
        /// `influxdb3`, `influxdb2`, `influxdb1` or `file`.
        kind: Word<OutputKind> = OutputKind::InfluxDb3.into(),
        /// The server's base URL, `http://` or `https://`.
        url: String = "http://127.0.0.1:8181".into(),
        /// The folder of kind `file`: lines go to `{path}/{database}/{YYYY-MM-DDTHH}.lp`.
        path: String = "lines".into(),
        /// The token for InfluxDB 3 or 2; better in `token_file`.
        token: String = String::new(),
        /// A file that holds the token.
        token_file: String = String::new(),
        /// The organisation, for InfluxDB 2.
        org: String = String::new(),
        /// The user, for InfluxDB 1.
        username: String = String::new(),
        /// The password, for InfluxDB 1; better in `password_file`.
        password: String = String::new(),
        /// A file that holds the password.
        password_file: String = String::new(),
        /// The database (bucket) of a tenant; it must contain `{tenant}`, so that tenants stay
        /// apart, unless `tenant_tag` or `table_prefix` keeps them so.
        database: String = "telemetry_{tenant}".into(),
        /// A tag that carries the tenant's name in every line, as the first. Letters, digits, `_` and
        /// `-`; a line that brings it itself is refused as IDENTITY_IN_LINE. Empty: none.
        tenant_tag: String = String::new(),
        /// What every table's name begins with; may contain `{tenant}`. Empty: nothing.
        table_prefix: String = String::new(),
        /// Tables (measurements, without the prefix) that lines may be written to; a `*` at the end
        /// of a name stands for whatever follows. Others are refused as BAD_LINE. Empty: any.
        tables: Vec<String> = Vec::new(),
        /// Fields that lines may have, as `tables`. Empty: any.
        fields: Vec<String> = Vec::new(),
        /// Lines in a batch, 1 to `batch_lines_max`. A batch is one POST.
        batch_lines: u64 = 500,
        /// How long the first line of a batch waits for others, in milliseconds, 1 to 60,000. It
        /// goes earlier when its source waits for it.
        flush_interval_ms: u64 = 1_000,
        /// Lines in a batch while catching up after an outage, at most 100,000.
        batch_lines_max: u64 = 10_000,
        /// POSTs under way a database, 1 to 128.
        requests_max: u64 = 32,
        /// How long a POST may take, in milliseconds, 100 to 300,000.
        request_timeout_ms: u64 = 10_000,
        /// Whether bodies are compressed: `auto` (level 1, not on loopback), `always` or `never`.
        gzip: Word<Gzip> = Gzip::Auto.into(),
    }
}

section! {
    /// What was refused, and why.
    Quarantine {
        /// Bytes on disk; the oldest go first, but a tenant that holds little keeps its share.
        bytes_max: u64 = 536_870_912,
        /// Days that an entry is kept.
        days_max: u64 = 7,
    }
}

section! {
    /// The HTTP side for operators.
    Admin {
        /// `address:port`; empty: none. Without `token_file` it must be loopback.
        listen: String = "127.0.0.1:9464".into(),
        /// A file that holds the operator's bearer token. With it, every `/api` call needs it; what
        /// changes something needs it always.
        token_file: String = String::new(),
        /// A folder of tenants' own tokens, for their own guests alone: a file a tenant, named as its
        /// folder in `guests.dir`, mode 0600. Empty: none.
        tenant_tokens_dir: String = String::new(),
    }
}

section! {
    /// What is logged, to stderr.
    Log {
        /// `error`, `warn`, `info`, `debug` or `trace`, or a filter as `info,tidegate::writer=debug`.
        level: String = "info".into(),
        /// `text` or `json`.
        format: Word<LogFormat> = LogFormat::Text.into(),
        /// How often the statistics line is logged, in seconds; 0: never.
        stats_interval_s: u64 = 30,
    }
}

section! {
    /// How the gateway stops.
    Shutdown {
        /// How long it may take to settle and flush, in seconds. What is unsettled then is not
        /// acknowledged, so the broker sends it again.
        deadline_s: u64 = 30,
    }
}

section! {
    /// `[tenants.NAME]`: what differs for one tenant. What is not named is as for all others. A table
    /// `tenants` in a PostgreSQL registry has the same keys, and wins for what it names.
    Tenant {
        /// As `output.database`.
        database: Option<String> = None,
        /// As `output.tenant_tag`; empty: none.
        tenant_tag: Option<String> = None,
        /// As `output.table_prefix`; empty: none.
        table_prefix: Option<String> = None,
        /// As `output.tables`; `["*"]`: any.
        tables: Option<Vec<String>> = None,
        /// As `output.fields`; `["*"]`: any.
        fields: Option<Vec<String>> = None,
        /// Tables whose fields are others than `fields`: `[tenants.NAME.fields_of]`, a list a table.
        fields_of: Option<BTreeMap<String, Vec<String>>> = None,
        /// As `admission.time_past_max_s`.
        time_past_max_s: Option<u64> = None,
        /// As `admission.time_future_max_s`.
        time_future_max_s: Option<u64> = None,
        /// As `admission.rate_per_s`: of each of its devices.
        rate_per_s: Option<f64> = None,
        /// As `admission.burst`.
        burst: Option<f64> = None,
        /// As `admission.tenant_rate_per_s`: of all its devices together.
        tenant_rate_per_s: Option<f64> = None,
        /// As `admission.tenant_burst`.
        tenant_burst: Option<f64> = None,
        /// As `spool.tenant_bytes_max`.
        spool_bytes_max: Option<u64> = None,
        /// As `spool.when_full`.
        spool_when_full: Option<Word<WhenFull>> = None,
        /// As `guests.cpu_share`.
        cpu_share: Option<f64> = None,
        /// As `output.url`: a server of its own, of the same kind. The common credentials are not sent
        /// there.
        output_url: Option<String> = None,
        /// As `output.token`; better in `output_token_file`.
        output_token: Option<String> = None,
        /// A file that holds the token.
        output_token_file: Option<String> = None,
        /// As `output.org`.
        output_org: Option<String> = None,
        /// As `output.username`.
        output_username: Option<String> = None,
        /// As `output.password`; better in `output_password_file`.
        output_password: Option<String> = None,
        /// A file that holds the password.
        output_password_file: Option<String> = None,
    }
}

/// The sections of the reference page, in order, with their keys.
pub fn reference() -> Vec<(&'static str, &'static [KeyDoc])> {
    vec![
        ("", &Config::KEYS[..1]),
        ("mqtt", Mqtt::KEYS),
        ("listen", Listen::KEYS),
        ("registry", Registry::KEYS),
        ("admission", Admission::KEYS),
        ("admission.types.TYPE", AdmissionType::KEYS),
        ("guests", &Guests::KEYS[..Guests::KEYS.len() - 1]),
        ("guests.large", GuestsLarge::KEYS),
        ("spool", Spool::KEYS),
        ("output", Output::KEYS),
        ("quarantine", Quarantine::KEYS),
        ("admin", Admin::KEYS),
        ("log", Log::KEYS),
        ("shutdown", Shutdown::KEYS),
        ("tenants.NAME", Tenant::KEYS),
    ]
}
