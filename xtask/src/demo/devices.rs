//! The simulated fleet: three tenants, their devices, and what they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tidegate_simulator::Device;

/// One simulated device.
#[derive(Clone)]
pub struct Spec {
    pub tenant: &'static str,
    pub device: String,
    pub site: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Telemetry and heartbeats in the JSON envelope.
    Envelope,
    /// Pump readings in a text format of the tenant's own, which only its own decoder knows.
    Pump,
    /// An envelope whose token is wrong and payloads that are no JSON.
    Rubbish,
}

/// The fleet: two tenants with the stock decoders, one with a decoder of its own, and one device
/// that sends rubbish.
pub fn fleet() -> Vec<Spec> {
    let mut specs = Vec::new();
    for n in 1..=4 {
        specs.push(Spec {
            tenant: "brewery",
            device: format!("tank-{n}"),
            site: "munich",
            kind: Kind::Envelope,
        });
        specs.push(Spec {
            tenant: "cityworks",
            device: format!("meter-{n}"),
            site: "old-town",
            kind: Kind::Envelope,
        });
        specs.push(Spec { tenant: "riverside", device: format!("pump-{n}"), site: "weir", kind: Kind::Pump });
    }
    specs.push(Spec {
        tenant: "cityworks",
        device: "meter-broken".into(),
        site: "old-town",
        kind: Kind::Rubbish,
    });
    specs
}

impl Spec {
    pub fn token(&self) -> String {
        format!("tok-{}-{}", self.tenant, self.device)
    }

    fn message(&self, seq: u64) -> (String, Vec<u8>) {
        let topic = |kind: &str| format!("tenant/{}/device/{}/{kind}", self.tenant, self.device);
        let swing = ((seq % 120) as f64 / 120.0 * std::f64::consts::TAU).sin();
        match self.kind {
            Kind::Envelope if seq.is_multiple_of(20) => {
                (topic("heartbeat"), self.envelope(seq, &self.token(), "").into_bytes())
            }
            Kind::Envelope => {
                let metrics = format!(
                    r#","metrics":{{"temperature":{:.2},"level":{},"valve_open":{}}}"#,
                    18.5 + 3.0 * swing,
                    500 + (200.0 * swing) as i64,
                    swing > 0.0,
                );
                (topic("telemetry"), self.envelope(seq, &self.token(), &metrics).into_bytes())
            }
            Kind::Pump => {
                let reading = format!(
                    r#","reading":"pressure={:.3};flow={:.1};running={}""#,
                    3.2 + 0.4 * swing,
                    11.0 + swing,
                    swing > -0.9,
                );
                (topic("pump"), self.envelope(seq, &self.token(), &reading).into_bytes())
            }
            Kind::Rubbish if seq.is_multiple_of(2) => {
                (topic("telemetry"), self.envelope(seq, "not-my-token", "").into_bytes())
            }
            Kind::Rubbish => (topic("telemetry"), b"\x00\xff boot: watchdog reset {".to_vec()),
        }
    }

    fn envelope(&self, seq: u64, token: &str, metrics: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!(
            r#"{{"version":"1","ts":"{}","site_id":"{}","seq":{seq},"provision_token":"{token}"{metrics}}}"#,
            rfc3339(now),
            self.site,
        )
    }
}

/// UTC with milliseconds, by the civil calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second_of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second_of_day / 3_600,
        second_of_day / 60 % 60,
        second_of_day % 60,
        since_epoch.subsec_millis(),
    )
}

/// The fleet while it sends, a thread a device.
pub struct Sending {
    stop: Arc<AtomicBool>,
    /// Messages that got their PUBACK.
    pub acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// The pause of a device between two messages.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts every device.
pub fn start(address: &str, specs: &[Spec]) -> Sending {
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let threads = specs
        .iter()
        .cloned()
        .map(|spec| {
            let (address, stop, acknowledged) = (address.to_owned(), stop.clone(), acknowledged.clone());
            std::thread::spawn(move || -> Result<()> {
                let mut device = Device::connect(&address, &format!("{}-{}", spec.tenant, spec.device))?;
                let mut seq = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (topic, payload) = spec.message(seq);
                    device.publish(&topic, &payload)?;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    seq += 1;
                    // Rubbish comes seldom: a tenth of the others.
                    std::thread::sleep(if spec.kind == Kind::Rubbish { PAUSE * 10 } else { PAUSE });
                }
                Ok(())
            })
        })
        .collect();
    Sending { stop, acknowledged, threads }
}

impl Sending {
    /// Stops every device; each has the PUBACK of its last message by then.
    ///
    /// # Errors
    /// A device was not served as it should have been.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a device's thread panicked"))??;
        }
        Ok(self.acknowledged.load(Ordering::Relaxed))
    }
}
