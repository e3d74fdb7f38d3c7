//! Bare clients behind Mosquitto, on one thread of the bench: one that does the least that any gateway
//! must do, and one that writes each batch to a database before it acknowledges it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS};
use tokio::sync::oneshot;

use crate::Paths;
use crate::broker::Broker;
use crate::load::{Load, Plan};
use crate::native;
use crate::statistics::thread_cpu;

/// Messages of a batch that is written before it is acknowledged: the defaults `metric_batch_size` and
/// `max_undelivered_messages` of Telegraf, which work together as its documentation says.
const BATCH: usize = 1_000;

/// The time from the first message to the last, and the CPU of the client's thread.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    pub messages: usize,
    pub took: Duration,
    pub cpu: Duration,
}

impl Drained {
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }
}

/// The work of a bare client.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Reads each PUBLISH and acknowledges it.
    Acknowledge,
    /// Decodes each payload with `serde_json::Value`, and acknowledges a batch after the database at
    /// this URL has taken its lines.
    WriteFirst(&'a str),
}

/// Runs a bare client against a broker of its own under the load of `plan`.
pub fn behind_mosquitto(paths: &Paths, plan: &Plan, work: Work<'_>) -> Result<Drained> {
    let broker = Broker::start(&paths.scratch.join("bare"))?;
    let (ready, is_ready) = oneshot::channel();
    std::thread::scope(|threads| {
        let draining = threads.spawn(|| drain(&broker.address, plan.messages, work, ready));
        is_ready.blocking_recv().context("the bare client did not subscribe")?;
        Load::prepare(plan, &broker.address)?.run()?;
        draining.join().map_err(|_| anyhow::anyhow!("the bare client panicked"))?
    })
}

/// Subscribes, tells `ready`, and works until it has acknowledged so many messages.
fn drain(address: &str, messages: usize, work: Work<'_>, ready: oneshot::Sender<()>) -> Result<Drained> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        let mut options = MqttOptions::new("bare", host, port.parse()?);
        options.set_clean_session(true).set_max_packet_size(1 << 20, 1 << 20);
        options.set_manual_acks(matches!(work, Work::WriteFirst(_)));
        let (client, events) = AsyncClient::new(options, BATCH);
        let mut session = Session { events, early: VecDeque::new() };
        client.subscribe("tenant/+/device/+/+", QoS::AtLeastOnce).await?;
        while !matches!(session.events.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
        let _ = ready.send(());
        // The first message starts the clock.
        let mut waiting = vec![session.publish().await?];
        let (began, cpu) = (Instant::now(), thread_cpu()?);
        let mut received = 1;
        match work {
            Work::Acknowledge => {
                while received < messages {
                    session.publish().await?;
                    received += 1;
                }
            }
            Work::WriteFirst(url) => {
                let database = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
                loop {
                    while waiting.len() < BATCH && received < messages {
                        waiting.push(session.publish().await?);
                        received += 1;
                    }
                    write(&database, url, &waiting).await?;
                    for message in &waiting {
                        client.ack(message).await?;
                    }
                    session.send_acknowledgements(waiting.len()).await?;
                    waiting.clear();
                    if received == messages {
                        break;
                    }
                }
            }
        }
        let took = began.elapsed();
        Ok(Drained { messages, took, cpu: thread_cpu()? - cpu })
    })
}

/// The client's side of the connection, which works only while it is polled.
struct Session {
    events: EventLoop,
    /// Messages that came while acknowledgements were sent.
    early: VecDeque<Publish>,
}

impl Session {
    /// The next message.
    async fn publish(&mut self) -> Result<Publish> {
        if let Some(message) = self.early.pop_front() {
            return Ok(message);
        }
        loop {
            if let Event::Incoming(Packet::Publish(message)) = self.events.poll().await? {
                return Ok(message);
            }
        }
    }

    /// Polls until so many acknowledgements have gone out.
    async fn send_acknowledgements(&mut self, mut left: usize) -> Result<()> {
        while left > 0 {
            match self.events.poll().await? {
                Event::Outgoing(Outgoing::PubAck(_)) => left -= 1,
                Event::Incoming(Packet::Publish(message)) => self.early.push_back(message),
                _ => {}
            }
        }
        Ok(())
    }
}

async fn write(database: &reqwest::Client, url: &str, messages: &[Publish]) -> Result<()> {
    let mut lines = String::new();
    for message in messages {
        native::value(&message.payload, &mut lines)?;
    }
    let request = database.post(format!("{url}/api/v3/write_lp?precision=ns&db=telemetry")).body(lines);
    ensure!(request.send().await?.status().as_u16() == 204, "the sink takes every POST");
    Ok(())
}
