//! Load: many devices over a few connections, QoS 1 or 0, as fast as acknowledgements allow.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidegate_simulator::{Device, packet};

/// Packet ids of MQTT.
const PACKET_IDS: usize = 65_535;

/// The senders and their messages.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The prefix of its tenants' names.
    pub name: &'static str,
    pub tenants: usize,
    pub devices: usize,
    pub connections: usize,
    pub messages: usize,
    /// PUBLISHes without a PUBACK, a connection. 0: QoS 0.
    pub window: usize,
}

impl Plan {
    pub fn tenant_of(&self, device: usize) -> String {
        format!("{}{:03}", self.name, device % self.tenants)
    }

    pub fn device_name(&self, device: usize) -> String {
        format!("dev-{device:05}")
    }

    pub fn token(&self, device: usize) -> String {
        format!("tok-{}", self.device_name(device))
    }
}

/// Metrics of the bench payload.
pub const METRICS: usize = 9;

/// The bench payload: an envelope of about 254 bytes with 9 metrics.
pub fn payload(seq: usize, token: &str) -> String {
    payload_with(seq, token, METRICS)
}

/// The bench payload with more metrics, of 28 bytes each.
pub fn payload_with(seq: usize, token: &str, metrics: usize) -> String {
    let mut payload = format!(
        r#"{{"version":"1.0.0","msg_type":"telemetry","q":1,"ts":"2026-11-23T08:59:{:02}.{:03}Z","site_id":"lab-1","seq":{seq},"provision_token":"{token}","metrics":{{"temp":21.5,"hum":40.25,"pres":1013.2,"co2":417,"lux":120,"bat":3.71,"rssi":-67,"ok":true,"fan":false"#,
        seq % 60,
        seq % 1000,
    );
    for metric in METRICS..metrics {
        let _ = write!(payload, r#","temp_of_room_{metric:04}":21.{:04}"#, (seq + metric) % 10_000);
    }
    payload.push_str("}}");
    payload
}

/// One connection's PUBLISH packets, made before the clock starts.
pub struct Script {
    pub bytes: Vec<u8>,
    /// The end of each packet.
    pub ends: Vec<usize>,
}

/// Makes topic and payload of a message, from its number and the number of its device.
pub type Make<'a> = &'a dyn Fn(usize, usize) -> (String, String);

/// The usual messages of a plan.
fn usual(plan: &Plan, metrics: usize) -> impl Fn(usize, usize) -> (String, String) {
    move |message, device| {
        let topic =
            format!("tenant/{}/device/{}/telemetry", plan.tenant_of(device), plan.device_name(device));
        (topic, payload_with(message, &plan.token(device), metrics))
    }
}

impl Script {
    /// Messages of the connection's devices, in turn. Each packet id is taken again after `ids` packets.
    fn new(plan: &Plan, connection: usize, messages: usize, ids: usize, make: Make<'_>) -> Self {
        let mut script = Self { bytes: Vec::new(), ends: Vec::with_capacity(messages) };
        let own: Vec<usize> =
            (0..plan.devices).filter(|device| device % plan.connections == connection).collect();
        for message in 0..messages {
            let device = own[message % own.len()];
            let (topic, payload) = make(message, device);
            let id = (plan.window > 0).then_some((message % ids + 1) as u16);
            packet::publish_into(&mut script.bytes, &topic, payload.as_bytes(), id);
            script.ends.push(script.bytes.len());
        }
        script
    }

    /// The connection's part of the plan's messages.
    fn once(plan: &Plan, connection: usize, make: Make<'_>) -> Self {
        Self::new(plan, connection, plan.messages / plan.connections, PACKET_IDS, make)
    }

    /// Messages that can be sent again and again: each device as often as the others, and no packet id
    /// twice in two windows.
    pub fn cycle(plan: &Plan, connection: usize, metrics: usize) -> Self {
        let devices = (plan.devices - connection).div_ceil(plan.connections);
        let turns = (2 * plan.window).div_ceil(devices).max(1);
        let mut messages = turns * devices;
        let ids = messages.div_ceil(messages.div_ceil(PACKET_IDS));
        messages = messages.next_multiple_of(ids);
        Self::new(plan, connection, messages, ids, &usual(plan, metrics))
    }
}

/// The answers that one connection reads. A PUBACK of MQTT 3.1.1 has four bytes (section 3.4).
pub struct Pubacks {
    bytes: Vec<u8>,
    /// The bytes at the start that are no whole PUBACK yet.
    pending: usize,
}

impl Pubacks {
    /// Room for so many bytes in one read.
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], pending: 0 }
    }

    /// The room for the next bytes.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.pending..]
    }

    /// Counts the PUBACKs that are whole with `read` more bytes.
    ///
    /// # Errors
    /// The connection was closed with so many messages in flight, or another packet came.
    pub fn count(&mut self, read: usize, in_flight: usize) -> Result<usize> {
        ensure!(read > 0, "the connection was closed with {in_flight} messages unacknowledged");
        let end = self.pending + read;
        let whole = &self.bytes[..end - end % 4];
        for puback in whole.chunks_exact(4) {
            ensure!(puback[0] == 0x40, "expected a PUBACK, got {puback:02x?}");
        }
        let count = whole.len() / 4;
        self.pending = end % 4;
        self.bytes.copy_within(end - self.pending..end, 0);
        Ok(count)
    }
}

fn send(stream: &mut TcpStream, script: &Script, window: usize) -> Result<()> {
    let (mut sent, mut acknowledged) = (0, 0);
    let total = script.ends.len();
    let mut pubacks = Pubacks::new(64 << 10);
    while acknowledged < total {
        let until = if window == 0 { total } else { (acknowledged + window).min(total) };
        if sent < until {
            // In pieces, so that acknowledgements are read between them.
            let until = until.min(sent + 256);
            let from = if sent == 0 { 0 } else { script.ends[sent - 1] };
            stream.write_all(&script.bytes[from..script.ends[until - 1]])?;
            sent = until;
            if window == 0 {
                acknowledged = sent;
                continue;
            }
            if sent < (acknowledged + window).min(total) {
                continue;
            }
        }
        let read = stream.read(pubacks.room())?;
        acknowledged += pubacks.count(read, sent - acknowledged)?;
    }
    Ok(())
}

/// The measurements of a paced load.
#[derive(Clone, Debug, Default)]
pub struct Paced {
    /// The time of each message from its due time to its acknowledgement.
    pub latencies: Vec<Duration>,
    pub took: Duration,
}

impl Paced {
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[((sorted.len() - 1) as f64 * share) as usize]
    }
}

/// Sends each message when it is due, however slow the answers: waiting counts as latency.
fn send_paced(stream: &mut TcpStream, script: &Script, per_second: f64) -> Result<Paced> {
    let total = script.ends.len();
    let began = Instant::now();
    let due = move |message: usize| began + Duration::from_secs_f64(message as f64 / per_second);
    let mut reading = stream.try_clone()?;
    let acknowledging = std::thread::spawn(move || -> Result<Vec<Duration>> {
        let mut latencies = Vec::with_capacity(total);
        let mut answers = vec![0; 64 << 10];
        let mut pending = 0;
        while latencies.len() < total {
            let read = reading.read(&mut answers[pending..])?;
            ensure!(read > 0, "the connection was closed");
            pending += read;
            let now = Instant::now();
            for _ in 0..pending / 4 {
                latencies.push(now.saturating_duration_since(due(latencies.len())));
            }
            let rest = pending % 4;
            answers.copy_within(pending - rest..pending, 0);
            pending = rest;
        }
        Ok(latencies)
    });
    let mut sent = 0;
    while sent < total {
        let now = Instant::now();
        let until = (((now - began).as_secs_f64() * per_second) as usize + 1).min(total);
        if until > sent {
            let from = if sent == 0 { 0 } else { script.ends[sent - 1] };
            stream.write_all(&script.bytes[from..script.ends[until - 1]])?;
            sent = until;
        }
        std::thread::sleep(
            due(sent).saturating_duration_since(Instant::now()).max(Duration::from_micros(500)),
        );
    }
    let latencies = acknowledging.join().map_err(|_| anyhow::anyhow!("reading panicked"))??;
    Ok(Paced { latencies, took: began.elapsed() })
}

/// Load that is ready to start.
pub struct Load {
    connections: Vec<(TcpStream, Script, usize)>,
}

impl Load {
    /// Connects, and makes every packet.
    pub fn prepare(plan: &Plan, address: &str) -> Result<Self> {
        Self::prepare_with(plan, address, &usual(plan, METRICS))
    }

    /// The same with messages that `make` makes.
    pub fn prepare_with(plan: &Plan, address: &str, make: Make<'_>) -> Result<Self> {
        let connections = (0..plan.connections)
            .map(|n| {
                Ok((
                    Device::connect(address, &format!("bench-{n}"))?.stream,
                    Script::once(plan, n, make),
                    plan.window,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Self { connections })
    }

    /// Sends everything at a steady rate of all connections together.
    pub fn run_at(self, per_second: f64) -> Result<Paced> {
        let each = per_second / self.connections.len() as f64;
        let threads: Vec<JoinHandle<Result<Paced>>> = self
            .connections
            .into_iter()
            .map(|(mut stream, script, _)| std::thread::spawn(move || send_paced(&mut stream, &script, each)))
            .collect();
        let mut all = Paced::default();
        for thread in threads {
            let paced = thread.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??;
            all.latencies.extend(paced.latencies);
            all.took = all.took.max(paced.took);
        }
        Ok(all)
    }

    /// Sends everything and waits for every acknowledgement.
    pub fn run(self) -> Result<Duration> {
        let started = Instant::now();
        let threads: Vec<JoinHandle<Result<TcpStream>>> = self
            .connections
            .into_iter()
            .map(|(mut stream, script, window)| {
                std::thread::spawn(move || {
                    send(&mut stream, &script, window)?;
                    Ok(stream)
                })
            })
            .collect();
        let mut streams = Vec::new();
        for thread in threads {
            streams.push(thread.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??);
        }
        let took = started.elapsed();
        for mut stream in streams {
            stream.write_all(&packet::DISCONNECT)?;
        }
        Ok(took)
    }
}
