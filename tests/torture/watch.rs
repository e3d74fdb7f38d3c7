//! Everything that the threads of a run share: the time line, failures, and the time without a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustls::ClientConfig;

pub struct Watch {
    begin: Instant,
    pub listener: String,
    pub admin: String,
    /// The TLS settings of devices; none while the listener speaks plain MQTT.
    pub tls: Mutex<Option<Arc<ClientConfig>>>,
    /// Tokens that are not `tok-{device}`, by device.
    pub tokens: Mutex<BTreeMap<String, String>>,
    /// The gateway's process; 0 while none runs.
    pub pid: AtomicU32,
    /// Faults of gateway, disk or broker that are under way.
    disturbances: AtomicU32,
    /// Milliseconds without such a fault.
    quiet_ms: AtomicU64,
    /// Points that are rewritten have this number: it changes when a segment is taken away.
    pub generation: AtomicU64,
    /// Points with lines in a segment that was taken away while later ones stayed: those may hold newer lines
    /// of the same point, which are then written first.
    pub overtaken_points: Mutex<BTreeSet<u64>>,
    /// Devices begin nothing new.
    pub ending: AtomicBool,
    /// Devices give up.
    pub stop: AtomicBool,
    line: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
}

impl Watch {
    pub fn new(listener: &str, admin: &str) -> Self {
        Self {
            begin: Instant::now(),
            listener: listener.into(),
            admin: admin.into(),
            tls: Mutex::default(),
            tokens: Mutex::default(),
            pid: AtomicU32::new(0),
            disturbances: AtomicU32::new(0),
            quiet_ms: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            overtaken_points: Mutex::default(),
            ending: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            line: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Adds a line to the time line.
    pub fn record(&self, words: &str) {
        self.line.lock().push(format!("{:9.3} s  {words}", self.begin.elapsed().as_secs_f64()));
    }

    /// Records a failure; the run ends at its next step.
    pub fn fail(&self, words: String) {
        self.record(&format!("FAILURE {words}"));
        self.failures.lock().push(words);
    }

    /// # Panics
    /// There was a failure.
    pub fn check(&self) {
        let failures = self.failures.lock();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    pub fn time_line(&self) -> String {
        self.line.lock().join("\n")
    }

    pub fn disturb(&self) {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
    }

    pub fn calm(&self) {
        self.disturbances.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn is_disturbed(&self) -> bool {
        self.disturbances.load(Ordering::SeqCst) > 0
    }

    pub fn quiet_ms(&self) -> u64 {
        self.quiet_ms.load(Ordering::SeqCst)
    }

    pub fn add_quiet_ms(&self, more: u64) {
        self.quiet_ms.fetch_add(more, Ordering::SeqCst);
    }

    pub fn token(&self, device: &str) -> String {
        self.tokens.lock().get(device).cloned().unwrap_or_else(|| format!("tok-{device}"))
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
