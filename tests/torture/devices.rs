//! Devices that count: each sends 1, 2, 3 and so on at QoS 1, remembers each answer, and sends again what
//! was not answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::{Answer, Client};
use super::watch::Watch;
use crate::end_to_end::topic;

/// The longest wait of a well-behaved device for a PUBACK, in time without a fault.
const WAIT_QUIET_MS_MAX: u64 = 30_000;

/// The longest that devices may take at the end for what they have sent.
const ENDING_PATIENCE: Duration = Duration::from_secs(120);

/// The time of reading 0 (2026-11-23T08:00:00Z), in nanoseconds.
pub const FIRST_NS: i64 = 1_795_420_800_000_000_000;

/// The time of a point that is rewritten, in nanoseconds.
pub fn point_ns(point: u64) -> i64 {
    FIRST_NS + point as i64 * 1_000_000
}

/// The device whose registry row changes.
pub const TURNED: &str = "turned";

/// The form of a device's readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reading n has a time of its own: n milliseconds after the first.
    Timed,
    /// Readings get the time of receipt.
    Timeless,
    /// All readings are for one point, until another one is begun.
    Rewriting,
}

/// The state of a reading, as far as its device knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Sent,
    Acknowledged,
    /// The reason code of its PUBACK.
    Refused(u8),
}

#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub fate: Fate,
    /// The point that it was last sent for; 0 unless the device rewrites points.
    pub point: u64,
}

/// A device; its thread has the other half.
pub struct Device {
    pub tenant: &'static str,
    pub name: String,
    pub kind: Kind,
    /// Its readings go by the broker, which has acknowledged them without a word from the gateway.
    pub broker: Option<u16>,
    /// Its tenant does nothing that it should wait for.
    pub is_well_behaved: bool,
    /// Readings at once, and milliseconds between.
    pub burst: u64,
    pub pause_ms: u64,
    readings: Mutex<Vec<Reading>>,
}

impl Device {
    pub fn new(tenant: &'static str, name: &str, kind: Kind) -> Self {
        Self {
            tenant,
            name: name.into(),
            kind,
            broker: None,
            is_well_behaved: false,
            burst: 8,
            pause_ms: 60,
            readings: Mutex::default(),
        }
    }

    pub fn message_type(&self) -> &'static str {
        if self.kind == Kind::Timeless { "reading" } else { "telemetry" }
    }

    pub fn readings(&self) -> Vec<Reading> {
        self.readings.lock().clone()
    }

    pub fn count(&self, fate: impl Fn(Fate) -> bool) -> usize {
        self.readings.lock().iter().filter(|reading| fate(reading.fate)).count()
    }

    fn payload(&self, watch: &Watch, number: u64, point: u64) -> Vec<u8> {
        let token = watch.token(&self.name);
        let head = format!(r#"{{"site_id":"lab-1","provision_token":"{token}""#);
        let time = |ms: u64| {
            let (minute, second, milli) = (ms / 60_000, ms / 1000 % 60, ms % 1000);
            let (hour, minute) = (8 + minute / 60, minute % 60);
            format!("2026-11-23T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
        };
        let pulse = |time| {
            format!(r#"{head},"version":"1","ts":"{time}","metrics":{{"v":{number}}},"seq":{number}}}"#)
        };
        let text = match self.kind {
            Kind::Timeless => format!(r#"{head},"v":{number}}}"#),
            Kind::Timed => pulse(time(number)),
            Kind::Rewriting => pulse(time(point)),
        };
        text.into_bytes()
    }

    /// Sends until the run ends, and then until all is answered or the patience is over.
    pub fn run(&self, watch: &Watch) {
        let mut unanswered: Vec<Pending> = Vec::new();
        let mut ending = None;
        while !watch.is_stopped() {
            if watch.ending.load(Ordering::SeqCst) {
                let since = *ending.get_or_insert_with(Instant::now);
                if unanswered.is_empty() {
                    return;
                }
                if since.elapsed() > ENDING_PATIENCE {
                    let numbers: Vec<u64> = unanswered.iter().map(|pending| pending.number).collect();
                    let words =
                        format!("no answer for {numbers:?} within {ENDING_PATIENCE:?} after the last event");
                    return watch.fail(format!("{}/{}: {words}", self.tenant, self.name));
                }
            }
            // The connection is gone, for whatever reason: another one.
            if self.connection(watch, &mut unanswered).is_err() {
                std::thread::sleep(Duration::from_millis(100));
            }
            self.check_waits(watch, &unanswered);
        }
    }

    fn check_waits(&self, watch: &Watch, unanswered: &[Pending]) {
        let Some(oldest) = unanswered.first().filter(|_| self.is_well_behaved) else { return };
        let waited = watch.quiet_ms() - oldest.quiet_ms;
        if waited > WAIT_QUIET_MS_MAX {
            let (tenant, name, number) = (self.tenant, &self.name, oldest.number);
            watch.fail(format!("{tenant}/{name}: reading {number} waits for {waited} ms without a fault"));
            watch.stop.store(true, Ordering::SeqCst);
        }
    }

    /// One connection, until it is gone or all is done.
    fn connection(&self, watch: &Watch, unanswered: &mut Vec<Pending>) -> io::Result<()> {
        let client_id = format!("{}-{}", self.tenant, self.name);
        let mut client = match self.broker {
            Some(port) => Client::connect(&format!("127.0.0.1:{port}"), None, &client_id)?,
            None => Client::connect(&watch.listener, watch.tls.lock().clone(), &client_id)?,
        };
        let topic = topic(self.tenant, &self.name, self.message_type());
        let (mut packet_id, mut is_new) = (0_u16, true);
        while !watch.is_stopped() {
            let is_ending = watch.ending.load(Ordering::SeqCst);
            if unanswered.is_empty() && is_ending {
                return Ok(());
            }
            if !is_ending && (unanswered.is_empty() || is_new) {
                for _ in 0..self.burst {
                    unanswered.push(self.begin(watch));
                }
            }
            if is_new || unanswered.iter().all(|pending| pending.packet_id == 0) {
                let mut packets = Vec::new();
                let point = watch.generation.load(Ordering::SeqCst);
                for pending in unanswered.iter_mut() {
                    packet_id = packet_id.checked_add(1).unwrap_or(1);
                    pending.packet_id = packet_id;
                    self.readings.lock()[pending.number as usize - 1].point = point;
                    packets.push((packet_id, self.payload(watch, pending.number, point)));
                }
                is_new = false;
                client
                    .publish(packets.iter().map(|(id, payload)| (*id, topic.as_str(), payload.as_slice())))?;
            }
            while let Some(first) = unanswered.first() {
                match client.answer()? {
                    Answer::Nothing => {
                        self.check_waits(watch, unanswered);
                        if watch.is_stopped() || watch.ending.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                    Answer::Puback(id, _) if id != first.packet_id => {
                        let (tenant, name) = (self.tenant, &self.name);
                        let words = format!("PUBACK {id} came before that of {first:?}");
                        watch.fail(format!("{tenant}/{name}: {words}"));
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    Answer::Puback(_, code) => {
                        self.check_waits(watch, &unanswered[..1]);
                        let number = unanswered.remove(0).number;
                        let fate = if code < 0x80 { Fate::Acknowledged } else { Fate::Refused(code) };
                        self.readings.lock()[number as usize - 1].fate = fate;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(self.pause_ms));
        }
        Ok(())
    }

    fn begin(&self, watch: &Watch) -> Pending {
        let mut readings = self.readings.lock();
        readings.push(Reading { fate: Fate::Sent, point: 0 });
        Pending { number: readings.len() as u64, packet_id: 0, quiet_ms: watch.quiet_ms() }
    }
}

/// A reading without an answer.
#[derive(Debug)]
struct Pending {
    number: u64,
    /// Its packet id on this connection; 0 before it is sent.
    packet_id: u16,
    /// The time without a fault when it was begun.
    quiet_ms: u64,
}

/// The devices of a run, of every tenant.
pub fn fleet(broker: u16) -> Vec<Arc<Device>> {
    let mut devices = vec![
        Device { is_well_behaved: true, ..Device::new("steady", "timed", Kind::Timed) },
        Device { is_well_behaved: true, ..Device::new("steady", "timeless", Kind::Timeless) },
        Device { broker: Some(broker), ..Device::new("steady", "by-broker", Kind::Timed) },
        Device { is_well_behaved: true, burst: 4, ..Device::new("rewrite", "rewriting", Kind::Rewriting) },
        Device { is_well_behaved: true, ..Device::new("victoria", "metrics", Kind::Timed) },
        Device::new("rated", "rated", Kind::Timed),
        Device::new("backlog", "backlog", Kind::Timed),
        Device::new("hostile", "beside-attacks", Kind::Timed),
        Device { burst: 2, ..Device::new("rated", TURNED, Kind::Timed) },
    ];
    for (index, device) in devices.iter_mut().enumerate() {
        // Not all at the same moments.
        device.pause_ms += 7 * index as u64;
    }
    devices.into_iter().map(Arc::new).collect()
}

/// Starts a thread for each device.
pub fn start(devices: &[Arc<Device>], watch: &Arc<Watch>) -> Vec<std::thread::JoinHandle<()>> {
    let start = |device: &Arc<Device>| {
        let (device, watch) = (device.clone(), watch.clone());
        std::thread::spawn(move || device.run(&watch))
    };
    devices.iter().map(start).collect()
}
