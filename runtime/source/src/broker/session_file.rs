//! The filters that our session at the broker holds, in a file of the data folder: an MQTT client cannot ask
//! for them.
//!
//! `mqtt-session.json`. It is written before a SUBSCRIBE leaves and after an UNSUBACK came, so it
//! may name a filter too many and never one too few. Its modification time says when the session
//! was last seen alive.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tidegate_core::atomic_file::{self, STAGING};
use tracing::warn;

use crate::broker::settings::BrokerSettings;

/// The filters of one session at one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub broker: String,
    pub client_id: String,
    pub filters: Vec<String>,
    /// A SUBACK granted the wanted filters since they were last asked for.
    pub granted: bool,
    /// The part of `filters` that was asked for at QoS 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unacknowledged: Vec<String>,
}

/// The record of the session of these settings, if a broker granted its subscription. Changes nothing.
pub fn recorded_session(settings: &BrokerSettings) -> Option<SessionRecord> {
    let bytes = fs::read(settings.data_dir.join(SessionFile::NAME)).ok()?;
    let record: SessionRecord = serde_json::from_slice(&bytes).ok()?;
    let is_ours = record.broker == settings.url.to_string() && record.client_id == settings.client_id;
    (is_ours && record.granted).then_some(record)
}

/// The record of one session, and its file.
#[derive(Debug)]
pub struct SessionFile {
    path: PathBuf,
    record: SessionRecord,
}

impl SessionFile {
    pub const NAME: &'static str = "mqtt-session.json";

    /// Reads the record of the session `client_id` at `broker`. A file that is missing, of
    /// another session or unreadable means that nothing is known.
    pub fn open(data_dir: &Path, broker: &str, client_id: &str) -> Self {
        let path = data_dir.join(Self::NAME);
        let nothing = SessionRecord {
            broker: broker.into(),
            client_id: client_id.into(),
            filters: Vec::new(),
            granted: false,
            unacknowledged: Vec::new(),
        };
        let record = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<SessionRecord>(&bytes) {
                Ok(record) if record.broker == broker && record.client_id == client_id => record,
                Ok(other) => {
                    warn!(
                        broker = other.broker,
                        client_id = other.client_id,
                        filters = ?other.filters,
                        "a session of ours may live on at a broker or under a client id that is no longer configured"
                    );
                    nothing
                }
                Err(error) => {
                    warn!(%error, path = %path.display(), "unreadable session file, taken as missing");
                    nothing
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => nothing,
            Err(error) => {
                warn!(%error, path = %path.display(), "unreadable session file, taken as missing");
                nothing
            }
        };
        Self { path, record }
    }

    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// Changes the record, on disk first.
    ///
    /// # Errors
    /// The file cannot be written; the record has then not changed.
    pub fn set(&mut self, filters: Vec<String>, granted: bool) -> io::Result<()> {
        self.replace(SessionRecord { filters, granted, ..self.record.clone() })
    }

    /// Changes the record as before a SUBSCRIBE to `filters`, on disk first; `unacknowledged` are those of QoS 0.
    ///
    /// # Errors
    /// The file cannot be written; the record has then not changed.
    pub fn set_asked(&mut self, filters: Vec<String>, unacknowledged: Vec<String>) -> io::Result<()> {
        self.replace(SessionRecord { filters, granted: false, unacknowledged, ..self.record.clone() })
    }

    fn replace(&mut self, record: SessionRecord) -> io::Result<()> {
        if record == self.record {
            return Ok(());
        }
        let staging = self.path.with_file_name(STAGING);
        atomic_file::replace(&staging, &self.path, &serde_json::to_vec(&record)?)?;
        self.record = record;
        Ok(())
    }

    /// Records that the session is alive now.
    pub fn record_alive(&self) {
        // Without it the absence looks longer than it was, which only makes a bucket more generous.
        if let Ok(file) = fs::OpenOptions::new().write(true).open(&self.path) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// The time since the session was last seen alive; None if it never was.
    pub fn offline_for(&self) -> Option<Duration> {
        let seen = fs::metadata(&self.path).ok()?.modified().ok()?;
        Some(SystemTime::now().duration_since(seen).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn what_a_session_holds_survives_a_restart_and_is_of_that_session_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SessionFile::open(folder.path(), "b:1883", "tidegate");
        assert!(file.record().filters.is_empty());
        assert_eq!(file.offline_for(), None);
        file.set(vec!["a/#".into()], true).unwrap();
        let again = SessionFile::open(folder.path(), "b:1883", "tidegate");
        assert_eq!(again.record(), file.record());
        assert!(again.offline_for().unwrap() < Duration::from_secs(60));
        assert!(SessionFile::open(folder.path(), "b:1883", "other").record().filters.is_empty());
        assert!(SessionFile::open(folder.path(), "c:1883", "tidegate").record().filters.is_empty());
    }

    #[test]
    fn a_torn_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SessionFile::NAME), b"{\"broker\":").unwrap();
        assert!(!SessionFile::open(folder.path(), "b:1883", "tidegate").record().granted);
    }
}
