//! The audit log: who changed what, and with which result. Each change is a log event (target
//! `tidegate::audit`) and a line of JSON in `audit.log` in the data folder, by the gateway and by verbs alike.
//!
//! The file is not synced: it survives the end of the process, and a power cut may cost its last lines.

use std::fs;
use std::fs::{File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::core::detail::printable;
use crate::limits::AUDIT_FILE_BYTES_MAX;

/// The name of the file in the data folder. Above its ceiling it is renamed to `audit.log.1`.
const FILE: &str = "audit.log";

const OLDER: &str = "audit.log.1";

/// One change, done or refused.
#[derive(Clone, Debug, Serialize)]
pub struct AuditEvent<'a> {
    /// `operator`, `tenant NAME`, or the user of a verb.
    pub who: &'a str,
    /// The verb, as `guest put`.
    pub action: &'static str,
    /// The names of the changed thing, such as `acme/telemetry`.
    pub object: &'a str,
    /// SHA-256 of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<&'a str>,
    /// `done`, or the code of the refusal.
    pub outcome: &'a str,
}

/// The audit log of one data folder.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

impl AuditLog {
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.to_owned())
    }

    /// Writes the event to the log and to the file. A change is done whether or not that works: a file that
    /// cannot be written is said in the log.
    pub fn record(&self, event: &AuditEvent<'_>) {
        tracing::info!(
            target: "tidegate::audit",
            who = %printable(event.who),
            action = event.action,
            object = %printable(event.object),
            digest = event.digest,
            outcome = event.outcome,
            "audit"
        );
        // A gateway that never ran has no folder, and a verb makes none.
        if !self.0.exists() {
            return;
        }
        if let Err(error) = self.append(event) {
            tracing::error!(%error, folder = %self.0.display(), "the audit log cannot be written");
        }
    }

    fn append(&self, event: &AuditEvent<'_>) -> io::Result<()> {
        let mut line = serde_json::to_value(event).map_err(io::Error::other)?;
        line["time"] = jiff::Timestamp::now().to_string().into();
        let path = self.0.join(FILE);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= AUDIT_FILE_BYTES_MAX) {
            fs::rename(&path, self.0.join(OLDER))?;
        }
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        if is_new {
            give_to_owner_of(&self.0, &file)?;
        }
        file.write_all(format!("{line}\n").as_bytes())
    }
}

/// Root makes the file for the gateway's user.
fn give_to_owner_of(folder: &Path, file: &File) -> io::Result<()> {
    let owner = fs::metadata(folder)?;
    // SAFETY: geteuid(2) cannot fail.
    if unsafe { libc::geteuid() } == owner.uid() {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// The user of this process, for verbs: its number, and the user who became root by sudo.
pub fn own_user() -> String {
    // SAFETY: getuid(2) cannot fail.
    let uid = unsafe { libc::getuid() };
    match std::env::var("SUDO_UID") {
        Ok(from) if uid == 0 && from.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("uid 0 (sudo by uid {from})")
        }
        _ => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn events_are_lines_of_json_that_only_the_owner_reads_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::new(dir.path());
        let event = AuditEvent {
            who: "operator",
            action: "guest put",
            object: "acme/a\x1b",
            digest: Some("ab"),
            outcome: "done",
        };
        log.record(&event);
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((line["who"].as_str(), line["object"].as_str()), (Some("operator"), Some("acme/a\x1b")));
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        File::options().write(true).open(&path).unwrap().set_len(AUDIT_FILE_BYTES_MAX).unwrap();
        log.record(&event);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert!(dir.path().join(OLDER).exists());
        AuditLog::new(&dir.path().join("nowhere")).record(&event);
        assert!(!dir.path().join("nowhere").exists());
    }
}
