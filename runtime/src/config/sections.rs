//! One struct a section of the TOML file. The doc comments are the reference page: `tidegate
//! validate --explain` prints them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::words::{
    ClientCertificates, ConnectCredentials, Credentials, Gzip, LogFormat, MqttProtocol, OutputKind, OverRate,
    RegistryKind, Retained, SpoolSync, Word,
};
use crate::core::tenant::settings::WhenFull;
use crate::core::topic::EnvelopeKind;

/// The client id of a gateway that is given none.
pub const DEFAULT_CLIENT_ID: &str = "tidegate-{random}";

/// One key of the reference page.
#[derive(Debug)]
pub struct KeyDoc {
    pub key: &'static str,
    pub doc: &'static str,
}

macro_rules! section {
    // `as "key"`: the key is a word that no field can have.
    ($(#[$meta:meta])* $name:ident {
        $( $(#[doc = $doc:literal])* $field:ident $(as $key:literal)? : $ty:ty = $default:expr, )*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $( $(#[doc = $doc])* $(#[serde(rename = $key)])? pub $field: $ty, )* }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $name {
            pub const KEYS: &'static [KeyDoc] =
                &[$( KeyDoc { key: section!(@key $field $($key)?), doc: concat!($($doc, "\n"),*) }, )*];
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

section! {
    /// The whole configuration.
    Config {
        /// The folder for the spool, quarantine, the broker session's file and decoder history. The
        /// gateway makes it with mode 0700 and its files with mode 0600. Only one gateway at a time can
        /// use it.
        data_dir: String = "tidegate-data".into(),
        mqtt: MqttSection = MqttSection::default(),
        /// The topic templates: `[[topics]]`, one for each form of topics. Empty: `mqtt.topic`.
        topics: Vec<TopicSection> = Vec::new(),
        listen: ListenSection = ListenSection::default(),
        registry: RegistrySection = RegistrySection::default(),
        admission: AdmissionSection = AdmissionSection::default(),
        guests: GuestsSection = GuestsSection::default(),
        spool: SpoolSection = SpoolSection::default(),
        output: OutputSection = OutputSection::default(),
        quarantine: QuarantineSection = QuarantineSection::default(),
        budget: BudgetSection = BudgetSection::default(),
        admin: AdminSection = AdminSection::default(),
        log: LogSection = LogSection::default(),
        shutdown: ShutdownSection = ShutdownSection::default(),
        fleet: FleetSection = FleetSection::default(),
        /// Settings of single tenants: `[tenants.NAME]`.
        tenants: BTreeMap<String, TenantSection> = BTreeMap::new(),
    }
}

section! {
    /// The broker to which the gateway subscribes.
    MqttSection {
        /// The broker, `mqtt://host:port` or `mqtts://host:port` (TLS). Empty: no broker. If it is not set
        /// and `listen.address` is, there is no broker.
        url: String = "mqtt://127.0.0.1:1883".into(),
        /// `5` or `3.1.1`. With `5`, a broker that does not speak MQTT 5 is spoken to in MQTT 3.1.1.
        protocol: Word<MqttProtocol> = MqttProtocol::V5.into(),
        /// The topic template. `{tenant}`, `{device}` and `{type}` each stand for one level. The gateway
        /// makes its subscription from it. For several templates, use `[[topics]]` in its place.
        topic: String = "tenant/{tenant}/device/{device}/{type}".into(),
        /// The client id. The session is persistent, so the id must stay the same. No other client may use
        /// it. `{random}` stands for 12 digits that belong to `data_dir`.
        client_id: String = DEFAULT_CLIENT_ID.into(),
        /// The group of gateways that share one subscription, each message going to one of them
        /// (docs/BROKER.md): a name without `/`, `+`, `#` and spaces; empty: the subscription is not
        /// shared. It needs MQTT 5, and each gateway a client_id of its own.
        share: String = String::new(),
        /// The QoS of the subscription. Only 1 is allowed: with 0 a message can be lost.
        qos: u8 = 1,
        /// Treatment of retained messages. `drop`: they are old, so they are dropped and counted as
        /// RETAINED. `accept`: they are treated like other messages.
        retained: Word<Retained> = Retained::Drop.into(),
        /// The user name for the broker. Empty: none is sent.
        username: String = String::new(),
        /// The password for the broker. Prefer `password_file`.
        password: String = String::new(),
        /// A file that contains the password.
        password_file: String = String::new(),
        /// A PEM file with the authorities that mqtts trusts. Empty: those of the system.
        ca_file: String = String::new(),
        /// The topic at the broker on which the gateway publishes why a message was refused, such as
        /// `tenant/{tenant}/device/{device}/refused`. Empty: it publishes nothing. If `topic` matches it,
        /// it must be a separate message type, which devices then cannot use.
        refused_topic: String = String::new(),
        /// The id under which the session is a primary host of Sparkplug B 3.0. It publishes
        /// `spBv1.0/STATE/{id}`, retained: online while the session stands, offline when it ends. Empty: it is
        /// no host.
        sparkplug_host_id: String = String::new(),
        /// The keep-alive in seconds, 5 to 65535. The gateway notices a dead connection after about this
        /// time.
        keep_alive_s: u16 = 30,
    }
}

section! {
    /// One topic template: at the broker a subscription, at the listener topics that devices can publish to
    /// (docs/TOPICS.md). No topic may match two templates.
    TopicSection {
        /// The levels of the topic: text, `+`, and captures in braces such as `{device}`. A capture is a
        /// whole level, or a part of one as in `{application}@{org}`. `/#` at the end stands for any
        /// further levels.
        template: String = String::new(),
        /// The tenant: a fixed name, or a capture.
        tenant: String = "{tenant}".into(),
        /// The tenant for each value of the capture in `tenant`, such as `{ meters = "acme" }`. A topic with
        /// another value is refused. Empty: the value is the tenant.
        tenants: BTreeMap<String, String> = BTreeMap::new(),
        /// The device: a fixed name, a capture, or several as in `{group}/{edge}`.
        device: String = "{device}".into(),
        /// The message type: a fixed name, or a capture.
        message_type as "type": String = "{type}".into(),
        /// The site: a fixed name, or a capture. It must be that of the device in the registry. Empty: the
        /// capture `{site}` if the template has it.
        site: String = String::new(),
        /// The form of the payloads. `pulse`: for the decoder as they are; the credentials of the device
        /// are in their JSON, as `admission.credentials` says. `things_stack` or `chirpstack`: an uplink
        /// message of that network server. `none`: for the decoder as they are. Only with `pulse` can a
        /// payload bring credentials: for the others the broker, or a proof at CONNECT, vouches.
        envelope: Word<EnvelopeKind> = EnvelopeKind::Pulse.into(),
        /// The QoS of the subscription, 0 or 1. With 0 a message can be lost between broker and gateway.
        qos: u8 = 1,
        /// Sparkplug B: the least seconds between two requests that an edge node sends its births again
        /// (`Node Control/Rebirth`), up to 86,400. The gateway publishes one on the node's NCMD topic when a
        /// decoder cannot resolve its data. 0: it publishes none.
        rebirth_interval_s: u32 = 0,
    }
}

section! {
    /// The listener, to which devices connect directly. It accepts publishers of MQTT 3.1.1 and 5 and
    /// nothing else. It is not a broker (docs/LISTENER.md).
    ListenSection {
        /// The address, `address:port`. Empty: no listener. An address that is not loopback is refused if
        /// a message could come in without a credential.
        address: String = String::new(),
        /// Connections at the same time, 1 to 1,000,000. The gateway refuses others.
        connections_max: u32 = 10_000,
        /// Connections from one address (IPv6: from one /64 network), 1 to 1,000,000. Loopback has no such
        /// limit.
        connections_per_address_max: u32 = 1_000,
        /// Addresses, or networks such as `10.0.0.0/24`, of balancers that send a PROXY header (version 1 or 2)
        /// before the first byte of a device. The limits of an address then hold for the device's own. A
        /// connection from there without the header is closed; from elsewhere a header is refused. Empty: none.
        proxies: Vec<String> = Vec::new(),
        /// Connections of one tenant whose devices prove themselves, 1 to 1,000,000.
        connections_per_tenant_max: u32 = 5_000,
        /// New connections a second from one address, 0 to 1,000,000. 0: no limit. Loopback has no such
        /// limit.
        connects_per_s: f64 = 100.0,
        /// New connections that one address can make at once, 1 to 1,000,000, before `connects_per_s`
        /// holds.
        connects_burst: f64 = 1_000.0,
        /// Failed CONNECTs a minute of one name from one address, 0 to 100,000. For all names from one
        /// address it is 20 times that. Above it, CONNECTs are refused without a check. 0: no limit.
        failed_connects_per_min: u32 = 30,
        /// Messages a second of one tenant whose devices prove themselves, 0 to 10,000,000. Above it, the
        /// tenant's connections are read more slowly. 0: no limit.
        messages_per_s_per_tenant: u32 = 0,
        /// Proof that a device must give at CONNECT, by password or client certificate. `none`: none, and
        /// user name and password are ignored. `optional`: none is needed, but a given one must be right.
        /// `required`: one is needed. `auto`: `required` with admission.credentials = "listener";
        /// `optional` if only some message types have that; else `none`.
        credentials: Word<ConnectCredentials> = ConnectCredentials::Auto.into(),
        /// The form in which a user name names the device. The password is then the device's provision
        /// token. `{tenant}` and `{device}` need text between them.
        username: String = "{tenant}/{device}".into(),
        /// The form in which a client certificate names the device: in the common name, or in a DNS name,
        /// URI or e-mail address of the alternative names.
        certificate_name: String = "{tenant}/{device}".into(),
        /// A PEM file with the gateway's certificate and chain. With it, `address` speaks only TLS. A
        /// changed file is read again.
        tls_cert_file: String = String::new(),
        /// A PEM file with the private key of that certificate.
        tls_key_file: String = String::new(),
        /// Client certificates: `no`, `optional` or `required`.
        client_certificates: Word<ClientCertificates> = ClientCertificates::No.into(),
        /// A PEM file with the authorities that sign client certificates. It has no other use.
        client_ca_file: String = String::new(),
        /// A PEM file with lists of revoked client certificates (CRL). A changed file is read again, and
        /// connections with a revoked certificate are closed. Empty: none.
        client_crl_file: String = String::new(),
    }
}

section! {
    /// The list of devices.
    RegistrySection {
        /// The kind of registry: `file`, `postgres`, or `open` (every device of the tenants in
        /// `open_tenants` is accepted).
        kind: Word<RegistryKind> = RegistryKind::File.into(),
        /// The CSV file (RFC 4180) of kind `file`, with the header
        /// `tenant_id,device_id,site_id,status,provision_token_hash`. An empty cell is NULL; `""` is the
        /// empty string. A changed file is read again.
        file: String = "devices.csv".into(),
        /// The tenants of kind `open`. Kind `open` needs at least one.
        open_tenants: Vec<String> = Vec::new(),
        /// The server of kind `postgres`: `postgres://user:password@host:port/database`. `?sslmode=` is
        /// `disable`, `prefer` (the default: TLS if the server can), `require` (TLS), `verify-ca` (TLS
        /// with a known authority) or `verify-full` (the certificate also names the host). `&sslrootcert=`
        /// names the authority's file.
        url: String = String::new(),
        /// A file that contains the password. It replaces the password in `url`.
        password_file: String = String::new(),
        /// Requires a device to send its token in the envelope.
        require_token: bool = true,
        /// Adds unknown devices to a PostgreSQL registry.
        auto_provision: bool = false,
        /// Seconds for which an answer about a device is valid, 0 to 31,536,000. 0: the registry is asked
        /// each time.
        cache_ttl_s: u64 = 60,
        /// Devices in the cache, at most 100,000,000. 0 means 1,000,000.
        cache_entries_max: u64 = 10_000,
        /// Seconds for which the last answer about a device is used while PostgreSQL is down, 0 to
        /// 31,536,000.
        stale_max_s: u64 = 86_400,
        /// Time limit of one PostgreSQL query in milliseconds, 100 to 60,000.
        query_timeout_ms: u64 = 2_000,
        /// Seconds between two reads of the settings tables in PostgreSQL, 1 to 86,400.
        settings_poll_s: u64 = 5,
        /// Counts refused messages in PostgreSQL.
        counters: bool = true,
    }
}

section! {
    /// The checks before a message reaches its decoder.
    AdmissionSection {
        /// Proof of a message's device. `envelope`: site_id and provision_token in the JSON payload.
        /// `broker`: the broker decided who may publish, and the payload is not looked at. `listener`: the
        /// device proved itself when it connected. With `broker` and `listener` the site comes from the
        /// registry. `broker` holds only for messages from the broker, `listener` only for the listener;
        /// all others need the envelope.
        credentials: Word<Credentials> = Credentials::Envelope.into(),
        /// The largest payload in bytes, 0 to 268,435,455. A larger one is refused, and its first 1,024
        /// bytes are kept.
        payload_bytes_max: u64 = 262_144,
        /// Messages a second of one device. 0: no limit.
        rate_per_s: f64 = 5.0,
        /// Messages that one device can send at once, at least 1, before `rate_per_s` holds.
        burst: f64 = 20.0,
        /// Treatment of a device at the listener that is over its rate. `slow`: its connection is read no
        /// faster than its rate, and nothing is refused. `refuse`: its messages are refused as RATE_LIMITED.
        /// Behind a broker they are always refused. With `slow`, too, messages are refused that would wait
        /// for more than 60 s.
        over_rate: Word<OverRate> = OverRate::Slow.into(),
        /// Messages a second of all devices of one tenant together. 0: no limit.
        tenant_rate_per_s: f64 = 0.0,
        /// Messages that all devices of one tenant can send at once, before `tenant_rate_per_s` holds.
        tenant_burst: f64 = 1_000.0,
        /// Seconds by which a line's time may be before the receipt of its message. Lines further away are
        /// refused as BAD_LINE. 0: no limit.
        time_past_max_s: u64 = 0,
        /// Seconds by which a line's time may be after the receipt of its message. 0: no limit.
        time_future_max_s: u64 = 0,
        /// Messages without a result at the same time, 100 to 10,000,000. At this limit the gateway stops
        /// reading.
        unsettled_messages_max: u64 = 100_000,
        /// Bytes of topics and payloads without a result at the same time, 1,048,576 to 17,179,869,184.
        unsettled_bytes_max: u64 = 67_108_864,
        /// Rules of single message types: `[admission.types.TYPE]`.
        types: BTreeMap<String, AdmissionTypeSection> = BTreeMap::new(),
    }
}

section! {
    /// `[admission.types.TYPE]`: rules of one message type.
    AdmissionTypeSection {
        /// Same as `admission.credentials`, for this message type.
        credentials: Word<Credentials> = Credentials::Envelope.into(),
    }
}

section! {
    /// The decoders and their limits. A key says *guest* for a decoder.
    GuestsSection {
        /// The guests folder. The place of a file in it says which messages the decoder decodes.
        dir: String = "guests".into(),
        /// Decode threads, 0 to 256. 0: one for each core.
        threads: usize = 0,
        /// CPU time of a decoder for one message in milliseconds, 1 to 1000.
        deadline_ms: u64 = 10,
        /// The part of the decode threads' CPU time that one tenant can use while others wait, above 0 to
        /// 1. A tenant above it goes after the others. 0: an equal part for each active tenant.
        cpu_share: f64 = 0.0,
        /// Memory of one instance in bytes, 65,536 to 67,108,864.
        memory_bytes_max: u64 = 16_777_216,
        /// The largest component in bytes, 1,024 to 104,857,600.
        component_bytes_max: u64 = 10_485_760,
        /// Decoders that a tenant may have in its folder when it puts one with its own token, 1 to 100,000.
        tenant_decoders_max: usize = 100,
        /// Bytes on disk of a tenant's decoders and their earlier versions when it puts one with its own
        /// token, at least 1,048,576.
        tenant_disk_bytes_max: u64 = 536_870_912,
        /// Higher limits for single routes: `[guests.large]`.
        large: GuestsLargeSection = GuestsLargeSection::default(),
    }
}

section! {
    /// `[guests.large]`: the class large, for decoders that contain an engine, such as JavaScript.
    /// Such a decoder needs much more than a normal one. So only this section grants the class, to
    /// single routes.
    GuestsLargeSection {
        /// The routes with the class large: TENANT/TYPE, as the folder and file in `guests.dir`; also
        /// `_default/TYPE` and `TENANT/_any`. Empty: none.
        routes: Vec<String> = Vec::new(),
        /// CPU time of such a decoder for one message in milliseconds, 1 to 1000.
        deadline_ms: u64 = 50,
        /// Memory of one instance in bytes, 1,048,576 to 1,073,741,824.
        memory_bytes_max: u64 = 67_108_864,
        /// Instances at the same time, 3 to 1,000. Two of them test new versions. Together they use at
        /// most this number times `memory_bytes_max`.
        instances_max: usize = 8,
        /// The largest component in bytes, 1,024 to 104,857,600.
        component_bytes_max: u64 = 33_554_432,
        /// CPU time for the compilation of one component in seconds, 1 to 3,600.
        compile_cpu_s: u64 = 120,
        /// Memory for the compilation of one component in bytes, at least 268,435,456.
        compile_memory_bytes_max: u64 = 2_147_483_648,
    }
}

section! {
    /// The files that hold acknowledged lines until their database has them.
    SpoolSection {
        /// Bytes on disk for all tenants, at least 262,144.
        bytes_max: u64 = 1_073_741_824,
        /// Bytes on disk for the backlog of one tenant, at least 16,384.
        tenant_bytes_max: u64 = 268_435_456,
        /// The action when a tenant's share is full. `block`: its messages wait without a PUBACK, and
        /// nothing is lost. `drop_oldest`: its oldest lines are dropped and counted.
        when_full: Word<WhenFull> = WhenFull::Block.into(),
        /// Bytes of lines on their way to databases, new ones and those of a backlog. Each database may have
        /// one batch more.
        memory_bytes_max: u64 = 67_108_864,
        /// Free bytes on the disk of `data_dir` that only the spool uses. Below it quarantine does not grow, and
        /// no new decoder is kept. 0: none.
        reserve_bytes: u64 = 67_108_864,
        /// `always`: a message is acknowledged after fsync. `never`: for benchmarks; a power cut loses
        /// acknowledged messages.
        sync: Word<SpoolSync> = SpoolSync::Always.into(),
    }
}

section! {
    /// The databases to which lines are written.
    OutputSection {
        /// The kind of server: `influxdb3`, `influxdb2`, `influxdb1`, or `file`.
        kind: Word<OutputKind> = OutputKind::InfluxDb3.into(),
        /// The server's base URL, `http://` or `https://`.
        url: String = "http://127.0.0.1:8181".into(),
        /// The folder of kind `file`. Lines go to `{path}/{database}/{YYYY-MM-DDTHH}.lp`.
        path: String = "lines".into(),
        /// The token for InfluxDB 3 or 2. Prefer `token_file`.
        token: String = String::new(),
        /// A file that contains the token.
        token_file: String = String::new(),
        /// The organisation, for InfluxDB 2.
        org: String = String::new(),
        /// The user, for InfluxDB 1.
        username: String = String::new(),
        /// The password, for InfluxDB 1. Prefer `password_file`.
        password: String = String::new(),
        /// A file that contains the password.
        password_file: String = String::new(),
        /// For InfluxDB 1: a database that is missing is created. The user needs the right to do so.
        create_database: bool = false,
        /// The database (bucket) of a tenant. It must contain `{tenant}`, unless `tenant_tag` or
        /// `table_prefix` separates the tenants.
        database: String = "telemetry_{tenant}".into(),
        /// A tag with the tenant's name, first in every line. Letters, digits, `_` and `-`. A line that
        /// already has it is refused as IDENTITY_IN_LINE. Empty: none.
        tenant_tag: String = String::new(),
        /// The beginning of every table name. It can contain `{tenant}`. Empty: none.
        table_prefix: String = String::new(),
        /// The tables (measurements, without the prefix) that lines may use. A `*` at the end of a name
        /// stands for any text. Others are refused as BAD_LINE. Empty: all are allowed.
        tables: Vec<String> = Vec::new(),
        /// The fields that lines may have, written like `tables`. Empty: all are allowed.
        fields: Vec<String> = Vec::new(),
        /// Lines in a batch, 1 to `batch_lines_max`. A batch is one POST.
        batch_lines: u64 = 500,
        /// Time for which the first line of a batch waits for others, in milliseconds, 1 to 60,000. It
        /// leaves earlier if its source waits for it.
        flush_interval_ms: u64 = 1_000,
        /// Longest time for which the first line of a batch waits while the gateway's threads wait for the
        /// CPU, in milliseconds, `flush_interval_ms` to 60,000. Batches then carry more lines, so that
        /// writing takes less of the CPU that acknowledging needs. Without that shortage lines wait for
        /// `flush_interval_ms`. By default it is not longer than that: lines that wait take memory.
        flush_interval_max_ms: u64 = 1_000,
        /// Lines in a batch while a backlog is written, 1 to 100,000.
        batch_lines_max: u64 = 10_000,
        /// POSTs to one database at the same time, 1 to 128.
        requests_max: u64 = 32,
        /// Time limit of one POST in milliseconds, 100 to 300,000.
        request_timeout_ms: u64 = 10_000,
        /// Compression of POSTs: `auto` (level 1, not on loopback), `always` or `never`.
        gzip: Word<Gzip> = Gzip::Auto.into(),
    }
}

section! {
    /// The store of refused messages and lines.
    QuarantineSection {
        /// Bytes on disk, at least 1,048,576. The oldest entries go first, but a tenant with few entries
        /// keeps its share.
        bytes_max: u64 = 536_870_912,
        /// Days for which an entry is kept, 1 to 3,650.
        days_max: u64 = 7,
    }
}

section! {
    /// Bytes that the gateway and each tenant may keep in memory and on disk (docs/BUDGET.md).
    BudgetSection {
        /// Resident memory of the gateway in bytes. The limits of other sections must fit in it, and a
        /// quarter must be left for tenants. 0: three quarters of the machine's memory, or of the
        /// container's.
        memory_bytes_max: u64 = 0,
        /// Bytes in memory of one tenant, at least 1,048,576: decoders and their state, messages that
        /// wait, and packets of its connections. 0: half of what all tenants have.
        tenant_memory_bytes_max: u64 = 0,
        /// Bytes on disk of all tenants, at least `spool.bytes_max` and `quarantine.bytes_max` together.
        /// 0: nine tenths of what is free on the disk of `data_dir`.
        disk_bytes_max: u64 = 0,
        /// Bytes on disk of one tenant, at least `spool.tenant_bytes_max`: lines in the spool, parked
        /// messages, quarantine, and decoders with their history. 0: half of what all tenants have.
        tenant_disk_bytes_max: u64 = 0,
    }
}

section! {
    /// The HTTP side for operators.
    AdminSection {
        /// The address, `address:port`. Empty: none. It must be loopback unless `token_file` is set.
        listen: String = "127.0.0.1:9464".into(),
        /// A file that contains the operator's bearer token. With it, every `/api` call needs the token.
        /// Changes always need it.
        token_file: String = String::new(),
        /// A file that contains a second bearer token, which reads and changes nothing. It shows no payloads.
        read_token_file: String = String::new(),
        /// A PEM file with the certificate and chain of the admin side. With it, `listen` speaks only TLS. A
        /// changed file is read again. Empty: no TLS.
        cert_file: String = String::new(),
        /// A PEM file with the private key of that certificate.
        key_file: String = String::new(),
        /// A folder with tenants' own tokens, which are valid for their own decoders only. It has one file
        /// for each tenant, with the name of its folder in `guests.dir` and mode 0600. Empty: none.
        tenant_tokens_dir: String = String::new(),
    }
}

section! {
    /// The log, which goes to stderr.
    LogSection {
        /// The level: `off`, `error`, `warn`, `info`, `debug` or `trace`; or a list such as
        /// `info,tidegate::writer=debug`.
        level: String = "info".into(),
        /// The format: `text` or `json`.
        format: Word<LogFormat> = LogFormat::Text.into(),
        /// Seconds between two statistics lines. 0: none.
        stats_interval_s: u64 = 30,
    }
}

section! {
    /// The stop of the gateway.
    ShutdownSection {
        /// Seconds to finish messages and writes at a stop, 1 to 3,600. Messages without a result after
        /// that are not acknowledged, so they come again.
        deadline_s: u64 = 30,
    }
}

section! {
    /// This gateway among others (docs/FLEET.md).
    FleetSection {
        /// The name of this gateway, which no other one has: letters, digits, `-`, `_` and `.`. All metrics then
        /// have the label `gateway`, except those that a caller without a token gets. Empty: none.
        name: String = String::new(),
        /// The PostgreSQL server in which each gateway keeps a row about itself, in the form of `registry.url`.
        /// `tidegate fleet init` creates the table. Needs `name`. Empty: none.
        postgres: String = String::new(),
        /// A file that contains the password. It replaces the password in `postgres`.
        postgres_password_file: String = String::new(),
        /// Seconds between two reports, 1 to 3,600.
        report_s: u64 = 10,
        /// Seconds from the begin of a drain, when `/readyz` begins to answer 503, until the first device is
        /// sent away, 0 to 3,600: the time in which balancers learn of it.
        drain_notice_s: u64 = 5,
        /// Seconds from the first device that a drain sends away to the last, 0 to 3,600.
        drain_spread_s: u64 = 10,
        /// Seconds between two looks for a new version of a configuration from afar (`--config https://…`, or a
        /// git checkout), 1 to 86,400. SIGHUP looks at once.
        config_poll_s: u64 = 60,
    }
}

section! {
    /// `[tenants.NAME]`: settings of one tenant. Others use the common settings. A table `tenants` in
    /// a PostgreSQL registry has the same keys, and overrides this section.
    TenantSection {
        /// Same as `output.database`.
        database: Option<String> = None,
        /// Same as `output.tenant_tag`. Empty: none.
        tenant_tag: Option<String> = None,
        /// Same as `output.table_prefix`. Empty: none.
        table_prefix: Option<String> = None,
        /// Same as `output.tables`. `["*"]`: all.
        tables: Option<Vec<String>> = None,
        /// Same as `output.fields`. `["*"]`: all.
        fields: Option<Vec<String>> = None,
        /// Allowed fields of one table, in place of `fields`: `[tenants.NAME.fields_of]`, one list for
        /// each table.
        fields_of: Option<BTreeMap<String, Vec<String>>> = None,
        /// Same as `admission.time_past_max_s`.
        time_past_max_s: Option<u64> = None,
        /// Same as `admission.time_future_max_s`.
        time_future_max_s: Option<u64> = None,
        /// Same as `admission.rate_per_s`, for each of its devices.
        rate_per_s: Option<f64> = None,
        /// Same as `admission.burst`.
        burst: Option<f64> = None,
        /// Same as `admission.tenant_rate_per_s`, for all its devices together.
        tenant_rate_per_s: Option<f64> = None,
        /// Same as `admission.tenant_burst`.
        tenant_burst: Option<f64> = None,
        /// Same as `spool.tenant_bytes_max`.
        spool_bytes_max: Option<u64> = None,
        /// Same as `spool.when_full`.
        spool_when_full: Option<Word<WhenFull>> = None,
        /// Same as `budget.tenant_memory_bytes_max`.
        memory_bytes_max: Option<u64> = None,
        /// Same as `budget.tenant_disk_bytes_max`.
        disk_bytes_max: Option<u64> = None,
        /// Same as `guests.cpu_share`.
        cpu_share: Option<f64> = None,
        /// Same as `output.url`: a server of the same kind for this tenant. The common credentials are not
        /// sent to it.
        output_url: Option<String> = None,
        /// Same as `output.token`. Prefer `output_token_file`.
        output_token: Option<String> = None,
        /// A file that contains the token.
        output_token_file: Option<String> = None,
        /// Same as `output.org`.
        output_org: Option<String> = None,
        /// Same as `output.username`.
        output_username: Option<String> = None,
        /// Same as `output.password`. Prefer `output_password_file`.
        output_password: Option<String> = None,
        /// A file that contains the password.
        output_password_file: Option<String> = None,
    }
}

/// The sections of the reference page, in order, with their keys.
pub fn reference() -> Vec<(&'static str, &'static [KeyDoc])> {
    vec![
        ("", &Config::KEYS[..1]),
        ("mqtt", MqttSection::KEYS),
        ("topics", TopicSection::KEYS),
        ("listen", ListenSection::KEYS),
        ("registry", RegistrySection::KEYS),
        ("admission", AdmissionSection::KEYS),
        ("admission.types.TYPE", AdmissionTypeSection::KEYS),
        ("guests", &GuestsSection::KEYS[..GuestsSection::KEYS.len() - 1]),
        ("guests.large", GuestsLargeSection::KEYS),
        ("spool", SpoolSection::KEYS),
        ("output", OutputSection::KEYS),
        ("quarantine", QuarantineSection::KEYS),
        ("budget", BudgetSection::KEYS),
        ("admin", AdminSection::KEYS),
        ("log", LogSection::KEYS),
        ("shutdown", ShutdownSection::KEYS),
        ("fleet", FleetSection::KEYS),
        ("tenants.NAME", TenantSection::KEYS),
    ]
}
