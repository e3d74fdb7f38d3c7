//! A listener that runs in this process, before a fake of everything after it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rumqttc::QoS;
use tidegate::core::ack::window::ReceiveWindow;
use tidegate::core::identity::NameTemplate;
use tidegate::core::topic::TopicTemplate;
use tidegate::source::listener::{
    CertificateReloader, CloseReason, ConnectLimitSettings, CredentialPolicy, Listener, ListenerCounters,
    ListenerSettings,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::eventually;
use super::fake_pipeline::{FakePipeline, SettleMode};
use super::mqtt_client::MqttClient;

pub const TOPIC: &str = "tenant/acme/device/d1/telemetry";

pub fn settings() -> ListenerSettings {
    let name = || NameTemplate::parse("{tenant}/{device}").unwrap();
    ListenerSettings {
        address: "127.0.0.1:0".parse().unwrap(),
        connections_max: 100,
        connections_per_address_max: 1,
        proxies: Vec::new(),
        payload_bytes_max: 8192,
        ceilings: ConnectLimitSettings::default(),
        asks: CredentialPolicy::Nothing,
        username: name(),
        certificate_name: name(),
        topics: Arc::new(TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap().into()),
        tls: None,
        tenants: None,
    }
}

/// A listener that runs.
pub struct RunningListener {
    pub address: SocketAddr,
    pub downstream: Arc<FakePipeline>,
    pub window: Arc<ReceiveWindow>,
    pub counters: Arc<ListenerCounters>,
    pub tls: Option<Arc<CertificateReloader>>,
    pub stop: watch::Sender<Option<Instant>>,
    pub task: tokio::task::JoinHandle<()>,
}

impl RunningListener {
    pub fn start(settings: ListenerSettings, settling: SettleMode, messages_max: u64) -> Self {
        let downstream = FakePipeline::new(settling);
        let window = Arc::new(ReceiveWindow::new(messages_max, 64 << 20));
        let listener = Listener::bind(settings, window.clone(), downstream.clone()).unwrap();
        assert!(listener.status().borrow().is_ready());
        let (stop, stopping) = watch::channel(None);
        let (address, counters, tls) = (listener.local_address(), listener.counters(), listener.tls());
        let task = tokio::spawn(listener.run(stopping));
        Self { address, downstream, window, counters, tls, stop, task }
    }

    pub fn open(&self) -> usize {
        self.counters.connections.load(Ordering::Relaxed)
    }

    pub async fn ended(&self, ending: CloseReason, times: u64, seconds: u64) {
        eventually(ending.name(), seconds, || self.counters.ended(ending) >= times).await;
    }

    /// Asserts that a device that behaves is served.
    pub fn assert_serves(&self) {
        let mut device = MqttClient::connect(self.address, "good");
        let before = self.downstream.taken_count();
        let id = device.publish(TOPIC, QoS::AtLeastOnce, false, "good");
        assert_eq!(device.puback(), id);
        assert!(self.downstream.taken_count() > before);
    }
}
