//! A persistent session at a broker: MQTT 5 or 3.1.1, QoS 1, acknowledged by hand.
//!
//! - Each connection has its own `AckTracker`. A message that is settled after its end is not acknowledged,
//!   and the broker sends it again.
//! - No message ends the session: a payload of any size is read to its end, and only its beginning is
//!   kept.
//! - While the window is full nothing is read, but pings go on. If that lasts past half the
//!   keep-alive the session disconnects, so that the broker sees it, and returns when half is
//!   settled.
//! - The broker's queue and in-flight settings are the operator's; nothing here is sized by them.

mod host_state;
mod settings;
mod session;
mod subscription;
mod session_file;
mod transport;
mod backoff;
mod probe;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::broker::backoff::Backoff;
use crate::broker::session::{BrokerSession, connect};
use crate::broker::session_file::SessionFile;
use crate::broker::settings::Outbox;
use crate::broker::subscription::Subscription;
use crate::broker::transport::{BrokerStream, Transport};
use crate::limits;
use crate::mqtt::connection_writer::WriteEnd;
use crate::publish_receiver::PublishReceiver;
use crate::sink::MessageSink;
use crate::status::{SourceStatus, StopSignal, stopped};
use tidegate_core::ack::redelivery::RedeliveryFilter;
use tidegate_core::ack::tracker::{AckTracker, RefusalChannel};
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::message::Via;

pub use crate::broker::probe::BrokerReport;
pub use crate::broker::probe::ProbeError;
pub use crate::broker::probe::ProbeSession;
pub use crate::broker::probe::probe;
pub use crate::broker::session::ConnectError;
pub use crate::broker::session::SessionEnd;
pub use crate::broker::session_file::SessionRecord;
pub use crate::broker::session_file::recorded_session;
pub use crate::broker::settings::BrokerSettings;
pub use crate::broker::settings::OutgoingPublish;
pub use crate::broker::settings::Protocol;
pub use crate::broker::settings::TopicFilter;
pub use crate::broker::transport::BrokerUrl;
pub use crate::broker::transport::BrokerUrlError;
pub use crate::broker::transport::TlsError;

/// A session that lasted so long was a good one: the next try comes soon again.
const LASTING: Duration = Duration::from_secs(60);

/// Sessions in a row that the broker ended early: so many are no accident.
const EARLY_ENDS_MAX: u32 = 3;

/// A setting with which no session can be tried.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("{key} is empty; a persistent session needs it")]
    Empty { key: &'static str },
    #[error("{key} has {bytes} bytes; MQTT allows {}", u16::MAX)]
    TooLong { key: &'static str, bytes: usize },
    #[error("keep_alive_s is {0}; at least 2")]
    KeepAlive(u16),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct BrokerCounters {
    /// QoS 1 messages that came with DUP set.
    pub redelivered: Arc<AtomicU64>,
    /// Connections that reached CONNACK.
    pub connects: AtomicU64,
    /// Times that the session left because the output was blocked.
    pub blocked: AtomicU64,
}

/// A session at a broker that is kept up over its connections.
pub struct Broker<I> {
    settings: BrokerSettings,
    /// The filters that the session is to hold, with their `$share` if they are shared.
    subscriptions: Vec<TopicFilter>,
    transport: Transport,
    window: Arc<ReceiveWindow>,
    sink: Arc<I>,
    status: watch::Sender<SourceStatus>,
    counters: Arc<BrokerCounters>,
    outbox: Outbox,
    /// The session over its connections.
    session: Mutex<Arc<RedeliveryFilter>>,
}

impl<I: MessageSink> Broker<I> {
    /// Checks the settings and reads the roots; opens no socket.
    ///
    /// # Errors
    /// A setting could never work.
    pub fn new(
        settings: BrokerSettings,
        window: Arc<ReceiveWindow>,
        sink: Arc<I>,
    ) -> Result<Self, BrokerError> {
        let mut subscriptions = settings.filters.clone();
        if let Some(group) = &settings.share {
            for TopicFilter { filter, .. } in &mut subscriptions {
                *filter = format!("$share/{group}/{filter}");
            }
        }
        if let Some(host_id) = &settings.sparkplug_host_id {
            subscriptions.push(TopicFilter { filter: host_state::topic(host_id), qos: 0 });
        }
        let no_filter =
            settings.filters.is_empty() || settings.filters.iter().any(|one| one.filter.is_empty());
        for (key, is_empty) in [("client_id", settings.client_id.is_empty()), ("topic", no_filter)] {
            if is_empty {
                return Err(BrokerError::Empty { key });
            }
        }
        let longest = subscriptions.iter().map(|one| one.filter.as_str()).max_by_key(|filter| filter.len());
        let password = settings.password.as_deref().unwrap_or_default();
        for (key, text) in [
            ("client_id", settings.client_id.as_str()),
            ("topic", longest.unwrap_or_default()),
            ("username", &settings.username),
            ("password", password),
        ] {
            if text.len() > usize::from(u16::MAX) {
                return Err(BrokerError::TooLong { key, bytes: text.len() });
            }
        }
        if settings.keep_alive_s < 2 {
            return Err(BrokerError::KeepAlive(settings.keep_alive_s));
        }
        let transport = Transport::new(settings.url.clone(), settings.ca_file.as_deref())?;
        let status = watch::Sender::new(SourceStatus::default());
        let session = Mutex::new(Arc::new(RedeliveryFilter::new(limits::BROKER_SESSION_IDS_MAX)));
        Ok(Self {
            settings,
            subscriptions,
            transport,
            window,
            sink,
            status,
            counters: Arc::default(),
            outbox: None,
            session,
        })
    }

    /// Adds messages to publish, while there is a session.
    pub fn publishing(self, outgoing: mpsc::Receiver<OutgoingPublish>) -> Self {
        Self { outbox: Some(outgoing), ..self }
    }

    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    pub fn counters(&self) -> Arc<BrokerCounters> {
        self.counters.clone()
    }

    /// Keeps the session up until the order to stop. Then it reads no more, sends the PUBACKs of the messages
    /// that settle before the deadline, and disconnects.
    pub async fn run(mut self, mut stop: StopSignal) {
        let mut outbox = self.outbox.take();
        let broker = self.settings.url.to_string();
        let mut file = SessionFile::open(&self.settings.data_dir, &broker, &self.settings.client_id);
        let mut backoff = Backoff::default();
        let mut early_ends = 0;
        let mut protocol = self.settings.protocol;
        while stop.borrow().is_none() {
            let began = Instant::now();
            let opened = tokio::select! {
                biased;
                _ = stopped(&mut stop) => return,
                opened = timeout(
                    Duration::from_secs(limits::BROKER_CONNECT_TIMEOUT_S),
                    self.open(&mut protocol),
                ) => opened,
            };
            let end = match opened.unwrap_or(Err(ConnectError::Timeout)) {
                Ok(opened) => self.session(opened, &mut file, &mut outbox, &mut stop).await,
                Err(error) => {
                    warn!(broker, %error, "no session at the broker");
                    self.record_loss(error.to_string());
                    self.sleep(backoff.next(), &mut stop).await;
                    continue;
                }
            };
            file.record_alive();
            match &end {
                SessionEnd::Stopped => {
                    info!(broker, "session left");
                    self.status.send_replace(SourceStatus::default());
                    return;
                }
                SessionEnd::Blocked => {
                    warn!(
                        broker,
                        unsettled = self.window.messages(),
                        "disconnected until half of the waiting messages have a result: the output is blocked"
                    );
                    self.counters.blocked.fetch_add(1, Ordering::Relaxed);
                    self.record_loss(end.to_string());
                    self.until_half_settled(&mut stop).await;
                    backoff.reset();
                    early_ends = 0;
                    continue;
                }
                SessionEnd::TakenOver => {
                    error!(
                        broker,
                        client_id = self.settings.client_id,
                        error = %end,
                        "another program uses the same client_id"
                    );
                    self.record_loss(format!(
                        "{end}: another program uses the client_id {:?}",
                        self.settings.client_id
                    ));
                    // Each connection takes the session from the other: connect less and less often.
                    self.sleep(backoff.next(), &mut stop).await;
                    continue;
                }
                SessionEnd::Closed | SessionEnd::Lost(_) | SessionEnd::Write(WriteEnd::Lost(_))
                    if began.elapsed() < LASTING =>
                {
                    early_ends += 1
                }
                _ => early_ends = 0,
            }
            if began.elapsed() >= LASTING {
                backoff.reset();
            }
            if early_ends >= EARLY_ENDS_MAX {
                error!(
                    broker,
                    client_id = self.settings.client_id,
                    connections = early_ends,
                    "the broker ends our connections soon after it accepts them: another program probably uses the same client_id"
                );
                self.record_loss(format!(
                    "the broker ended {early_ends} connections in a row within {} s: another program probably \
                     uses the client_id {:?}",
                    LASTING.as_secs(),
                    self.settings.client_id
                ));
            } else {
                warn!(broker, error = %end, "session lost");
                self.record_loss(end.to_string());
            }
            self.sleep(backoff.next(), &mut stop).await;
        }
    }

    /// Connects, and goes over to MQTT 3.1.1 for good if the broker does not speak MQTT 5.
    async fn open(&self, protocol: &mut Protocol) -> Result<OpenedStream, ConnectError> {
        let error = match self.open_in(*protocol).await {
            Err(error) if *protocol == Protocol::V5 && error.may_be_the_version() => error,
            opened => return opened,
        };
        if self.settings.share.is_some() {
            return Err(ConnectError::ShareNeedsV5(Box::new(error)));
        }
        let opened = self.open_in(Protocol::V4).await;
        // A broker that closes on either version has said nothing of versions: it may be starting.
        let is_v4 = error.is_the_version() || matches!(opened, Ok(_) | Err(ConnectError::Refused { .. }));
        if is_v4 {
            warn!(
                broker = %self.settings.url,
                %error,
                "the broker does not speak MQTT 5: going on in MQTT 3.1.1 until the gateway is started again"
            );
            *protocol = Protocol::V4;
        }
        opened
    }

    async fn open_in(&self, protocol: Protocol) -> Result<OpenedStream, ConnectError> {
        Ok(match self.transport.open().await? {
            BrokerStream::Plain(stream) => {
                OpenedStream::Plain(connect(stream, &self.settings, protocol).await?)
            }
            BrokerStream::Tls(stream) => OpenedStream::Tls(connect(stream, &self.settings, protocol).await?),
        })
    }

    async fn session(
        &self,
        opened: OpenedStream,
        file: &mut SessionFile,
        outbox: &mut Outbox,
        stop: &mut StopSignal,
    ) -> SessionEnd {
        match opened {
            OpenedStream::Plain(accepted) => self.session_on(accepted, file, outbox, stop).await,
            OpenedStream::Tls(accepted) => self.session_on(accepted, file, outbox, stop).await,
        }
    }

    async fn session_on<S>(
        &self,
        mut accepted: session::AcceptedConnection<S>,
        file: &mut SessionFile,
        outbox: &mut Outbox,
        stop: &mut StopSignal,
    ) -> SessionEnd
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let session_present = accepted.session_present;
        let offline = file.offline_for();
        let protocol = accepted.protocol;
        info!(
            broker = %self.settings.url,
            %protocol,
            session_present,
            away_s = offline.map(|offline| offline.as_secs()),
            "connected"
        );
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        if session_present {
            self.sink.session_resumed(offline.unwrap_or_default());
        }
        let subscription =
            match Subscription::begin(file, &self.subscriptions, session_present, protocol == Protocol::V5) {
                Ok(subscription) => subscription,
                Err(error) => return SessionEnd::File(error),
            };
        self.status.send_modify(|status| {
            status.connected = true;
            status.subscribed = false;
        });
        let receiver = PublishReceiver {
            sink: self.sink.clone(),
            tracker: AckTracker::builder(self.window.clone())
                .refusal_channel(match self.settings.answer_topic {
                    Some(_) => RefusalChannel::Topic,
                    None => RefusalChannel::Nothing,
                })
                .session(Some(self.mqtt_session(session_present)))
                .build(),
            via: Via::Broker,
            drops_retained: !self.settings.accepts_retained,
            redelivered: self.counters.redelivered.clone(),
        };
        let session = BrokerSession {
            settings: &self.settings,
            receiver,
            subscription,
            status: &self.status,
            outbox,
            protocol,
            packet_bytes_max: accepted.packet_bytes_max,
            host_state: accepted.host_state.take(),
            is_contradicted: false,
        };
        session.run(accepted, stop).await
    }

    /// The session that the broker resumed, or a new one.
    fn mqtt_session(&self, goes_on: bool) -> Arc<RedeliveryFilter> {
        let mut session = self.session.lock();
        if !goes_on {
            *session = Arc::new(RedeliveryFilter::new(limits::BROKER_SESSION_IDS_MAX));
        }
        session.clone()
    }

    fn record_loss(&self, error: String) {
        self.status.send_replace(SourceStatus {
            connected: false,
            subscribed: false,
            last_error: Some(error),
        });
    }

    async fn sleep(&self, delay: Duration, stop: &mut StopSignal) {
        tokio::select! {
            _ = stopped(stop) => {}
            () = sleep(delay) => {}
        }
    }

    async fn until_half_settled(&self, stop: &mut StopSignal) {
        while self.window.is_half_full() && stop.borrow().is_none() {
            self.sleep(Duration::from_millis(100), stop).await;
        }
    }
}

enum OpenedStream {
    Plain(session::AcceptedConnection<tokio::net::TcpStream>),
    Tls(session::AcceptedConnection<Box<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>>),
}
