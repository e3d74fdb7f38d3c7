//! The gateway of a run and everything around it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::runtime::Handle;

use super::devices::Device;
use super::watch::Watch;
use crate::harness::fake_influxdb3::FakeInfluxdb3;
use crate::harness::faults::Faults;
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_proxy::MqttProxy;
use crate::harness::victoria::Victoria;

/// `budget.memory_bytes_max`, and the ceiling of the process's resident memory.
pub const MEMORY_BYTES_MAX: u64 = 512 << 20;

/// Databases at the InfluxDB: tenants without one of their own share `common`.
pub const DATABASES: [&str; 3] = ["common", "backlog", "rewrite"];

/// The time within which the gateway is ready again after a fault, and says so while there is one.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Settings that only a restart changes.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub tls: bool,
    /// The gateway speaks to InfluxDB 1.x and VictoriaMetrics themselves, in their protocol.
    pub direct: bool,
}

pub struct World<'a> {
    pub scene: &'a GatewayDir,
    pub watch: Arc<Watch>,
    pub devices: Vec<Arc<Device>>,
    pub runtime: Handle,
    pub setup: Setup,
    gateway: Option<Gateway<'a>>,
    pub faults: Faults,
    pub broker: Mosquitto,
    pub proxy: MqttProxy,
    pub influxdb: Influxdb,
    pub front: FakeInfluxdb3,
    pub victoria: Victoria,
    pub victoria_front: FakeInfluxdb3,
    /// Parts of `/readyz` that an event keeps from being ready.
    pub broken: BTreeSet<&'static str>,
    /// Devices that are revoked.
    pub revoked: Vec<String>,
}

impl<'a> World<'a> {
    pub async fn new(scene: &'a GatewayDir, watch: Arc<Watch>, runtime: Handle) -> Self {
        let influxdb = Influxdb::start().await;
        for database in DATABASES {
            influxdb.create(database).await;
        }
        let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
        let victoria = Victoria::start().await;
        let victoria_front = FakeInfluxdb3::start(&victoria.url(), None).await;
        let broker = Mosquitto::start_in_memory();
        let proxy = MqttProxy::to(broker.port).await;
        let faults = Faults::on(scene);
        for (tenant, message_type, guest) in [
            ("_default", "reading", "json"),
            ("hostile", "telemetry", "pulse"),
            ("hostile", "_any", "hostile"),
        ] {
            scene.guest(tenant, message_type, guest);
        }
        Self {
            scene,
            watch,
            devices: Vec::new(),
            runtime,
            setup: Setup { tls: false, direct: false },
            gateway: None,
            faults,
            broker,
            proxy,
            influxdb,
            front,
            victoria,
            victoria_front,
            broken: BTreeSet::new(),
            revoked: Vec::new(),
        }
    }

    /// Writes the configuration for the setup.
    fn configure(&self) {
        let tls = "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n";
        let (kind, url, victoria) = if self.setup.direct {
            ("influxdb1", self.influxdb.url(), self.victoria.url())
        } else {
            ("influxdb3", self.front.url(), self.victoria_front.url())
        };
        let more = format!(
            "{tls}[output]\nkind = \"{kind}\"\nurl = \"{url}\"\ndatabase = \"common\"\ntenant_tag = \"tenant\"\n\
             flush_interval_ms = 100\nrequest_timeout_ms = 1000\n\
             [admission]\nrate_per_s = 0\nunsettled_messages_max = 10000\nunsettled_bytes_max = 8388608\n\
             [guests]\nthreads = 2\ndeadline_ms = 200\n\
             [spool]\nbytes_max = 67108864\ntenant_bytes_max = 4194304\nmemory_bytes_max = 1048576\n\
             [quarantine]\nbytes_max = 33554432\n\
             [budget]\nmemory_bytes_max = {MEMORY_BYTES_MAX}\ntenant_memory_bytes_max = 25165824\n\
             disk_bytes_max = 536870912\ntenant_disk_bytes_max = 16777216\n\
             [shutdown]\ndeadline_s = 5\n\
             [tenants.rated]\ntenant_rate_per_s = 50\ntenant_burst = 100\n\
             [tenants.backlog]\ndatabase = \"backlog\"\n\
             [tenants.rewrite]\ndatabase = \"rewrite\"\n\
             [tenants.hostile]\ncpu_share = 0.1\n\
             [tenants.victoria]\noutput_url = \"{victoria}\"\ndatabase = \"victoria\"\n",
            tls = if self.setup.tls { tls } else { "" },
        );
        self.scene.configure_both(&self.proxy.url(), &more);
    }

    /// Writes the registry: all devices, each with the token that it sends.
    pub fn write_registry(&self) {
        let mut text = String::from("tenant_id,device_id,site_id,status,provision_token_hash\n");
        let counting = self.devices.iter().map(|device| (device.tenant, device.name.as_str()));
        for (tenant, device) in
            counting.chain([("hostile", "attacker"), ("backlog", "filler"), ("rated", "rate-filler")])
        {
            let hash = tidegate::admission::registry::token_hash(&self.watch.token(device));
            let status = if self.revoked.iter().any(|name| name == device) { "REVOKED" } else { "ACTIVE" };
            text += &format!("{tenant},{device},lab-1,{status},{hash}\n");
        }
        let staged = self.scene.path("devices.staged");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, self.scene.path("devices.csv")).unwrap();
    }

    /// Makes a certificate of a new authority, and the settings of devices that trust it.
    pub fn write_certificate(&self) {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".into()]).unwrap();
        std::fs::write(self.scene.path("cert.pem"), server.signed_by(&key, &authority).unwrap().pem())
            .unwrap();
        std::fs::write(self.scene.path("key.pem"), key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        *self.watch.tls.lock() = Some(Arc::new(config));
    }

    /// Starts the gateway and waits until it is ready; its disk does not fail.
    pub fn start(&mut self) {
        self.faults.set("");
        self.configure();
        if !self.setup.tls {
            *self.watch.tls.lock() = None;
        } else if self.watch.tls.lock().is_none() {
            self.write_certificate();
        }
        let gateway = self.scene.start_unready_with(&self.faults);
        self.watch.pid.store(gateway.pid(), Ordering::SeqCst);
        self.gateway = Some(gateway);
    }

    pub fn gateway(&self) -> &Gateway<'a> {
        self.gateway.as_ref().expect("the gateway runs")
    }

    fn take(&mut self) -> Gateway<'a> {
        self.watch.pid.store(0, Ordering::SeqCst);
        self.gateway.take().expect("the gateway runs")
    }

    /// Ends the gateway by SIGKILL.
    pub fn kill(&mut self) {
        self.take().kill();
    }

    /// Ends the gateway by SIGTERM.
    ///
    /// # Panics
    /// It does not end well.
    pub fn stop(&mut self) {
        self.faults.set("");
        let begin = Instant::now();
        let status = self.take().stop();
        assert_eq!(status.code(), Some(0), "the gateway stopped with {status}");
        self.watch.record(&format!("stopped in {:?}", begin.elapsed()));
    }

    /// Waits until every part is ready that no event keeps from it.
    ///
    /// # Panics
    /// It is not within a minute.
    pub fn expect_ready(&self) {
        self.gateway().wait_for(READY_PATIENCE, "ready", |gateway| {
            let (status, body) = gateway.get("/readyz");
            let answer: Value = serde_json::from_str(&body).unwrap_or_default();
            let is_ready = |part: &&str| self.broken.contains(*part) || answer[*part]["ready"] == true;
            ["source", "registry", "spool"].iter().all(is_ready) && (status == 200 || !self.broken.is_empty())
        });
    }

    /// Waits until `/readyz` answers 503 and says that this part is not ready.
    ///
    /// # Panics
    /// It does not within a minute.
    pub fn expect_unready(&self, part: &str) {
        let what = format!("said that {part} is out of order");
        self.gateway().wait_for(READY_PATIENCE, &what, |gateway| {
            let (status, body) = gateway.get("/readyz");
            let answer: Value = serde_json::from_str(&body).unwrap_or_default();
            status == 503 && answer[part]["ready"] == false
        });
    }

    /// Segments of the spool, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.scene.path("data/spool")).into_iter().flatten().flatten();
        let mut segments: Vec<PathBuf> = files
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|end| end == "seg"))
            .collect();
        segments.sort();
        segments
    }
}
