//! The registry in a CSV file: `tenant_id,device_id,site_id,status,provision_token_hash`.
//!
//! It is read again when it changes. A file with an error leaves the devices as they were.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tidegate_core::atomic_file;
use tidegate_core::file_stamp::FileStamp;

use crate::registry::csv;
use crate::registry::device_records::{DeviceReader, io};
use crate::registry::device_table::{DeviceTable, DeviceTableBuilder, TableError};
use crate::registry::row::RegistryRow;

pub use crate::registry::device_records::{DeviceRecord, HEADER, RegistryError, read};

/// The registry in a file, as it was last read without error.
#[derive(Debug)]
pub struct FileRegistry {
    path: PathBuf,
    devices: RwLock<Arc<DeviceTable>>,
    stamp: Mutex<FileStamp>,
    generation: AtomicU64,
}

impl FileRegistry {
    /// Reads the file.
    ///
    /// # Errors
    /// The file is missing, or a line of it is not valid.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let stamp = FileStamp::read(path).map_err(io("read", path))?;
        let devices = read_table(path, &Arc::default())?;
        Ok(Self {
            path: path.to_owned(),
            devices: RwLock::new(devices),
            stamp: Mutex::new(stamp),
            generation: AtomicU64::new(1),
        })
    }

    /// Reads the file again if it has changed. True when it had.
    ///
    /// # Errors
    /// The file is not valid any more. The devices stay as they were, and the file is read again when
    /// it changes.
    pub fn reload_if_changed(&self) -> Result<bool, RegistryError> {
        let now = FileStamp::read(&self.path).map_err(io("read", &self.path))?;
        let mut stamp = self.stamp.lock();
        if *stamp == now {
            return Ok(false);
        }
        *stamp = now;
        let before = self.devices.read().clone();
        let devices = read_table(&self.path, &before)?;
        *self.devices.write() = devices;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The number of devices.
    pub fn count(&self) -> usize {
        self.devices.read().count()
    }

    /// True if the device is in the file.
    pub fn contains(&self, tenant: &str, device: &str) -> bool {
        self.devices.read().contains(tenant, device)
    }

    pub fn lookup(&self, tenant: &str, device: &str) -> Option<RegistryRow> {
        self.devices.read().lookup(tenant, device)
    }
}

/// The devices of the file; pieces that are as `before` share its memory.
fn read_table(path: &Path, before: &DeviceTable) -> Result<Arc<DeviceTable>, RegistryError> {
    let fault = |error| match error {
        TableError::Full { line } => RegistryError::Full { path: path.into(), line },
        TableError::Twice { line, first, tenant, device } => {
            RegistryError::Twice { path: path.into(), line, first, tenant, device }
        }
    };
    let mut reader = DeviceReader::open(path)?;
    let mut table = DeviceTableBuilder::beside(before);
    while let Some((line, device)) = reader.next_device()? {
        table.push(line, &device).map_err(fault)?;
    }
    Ok(Arc::new(table.finish().map_err(fault)?))
}

/// Locks the file for one change; others that change it wait. Released when dropped.
///
/// # Errors
/// The lock file cannot be created.
pub fn lock(path: &Path) -> Result<fs::File, RegistryError> {
    let beside = path.with_extension("csv.lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&beside)
        .map_err(io("lock", path))?;
    // SAFETY: flock(2) on a descriptor that is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(io("lock", path)(std::io::Error::last_os_error()));
    }
    Ok(file)
}

/// Replaces the file, whole or not at all.
///
/// # Errors
/// The file cannot be written; the old one stays.
pub fn write(path: &Path, devices: &[DeviceRecord]) -> Result<(), RegistryError> {
    let mut text = String::new();
    csv::write(&HEADER.map(Some), &mut text);
    for device in devices {
        let cells = [
            Some(device.tenant_id.as_str()),
            Some(&device.device_id),
            Some(&device.site_id),
            Some(&device.status),
            device.provision_token_hash.as_deref(),
        ];
        csv::write(&cells, &mut text);
    }
    // A link is followed, so that it stays one.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (link, path) = (path, real.as_path());
    // The folder of the file is the one that a verb may surely write to. The lock is held, so no other
    // verb has a file staged there.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    atomic_file::remove_staged(folder);
    atomic_file::replace(folder, path, text.as_bytes()).map_err(io("write", link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::row::TokenHash;
    use std::fs;
    use std::path::PathBuf;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("devices.csv");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    const HEAD: &str = "tenant_id,device_id,site_id,status,provision_token_hash\n";

    #[test]
    fn rows_are_found_and_null_differs_from_empty() {
        let (_folder, path) = file(&format!("{HEAD}acme,d1,lab,ACTIVE,\nacme,d2,\"\",REVOKED,\"\"\n"));
        let registry = FileRegistry::open(&path).unwrap();
        assert_eq!(registry.count(), 2);
        assert_eq!(registry.lookup("acme", "d1").unwrap().token, TokenHash::NotSet);
        let second = registry.lookup("acme", "d2").unwrap();
        assert_eq!((second.site_id.as_str(), second.token), ("", TokenHash::Unmatchable));
        assert_eq!(registry.lookup("acme", "d3"), None);
        assert_eq!(registry.lookup("other", "d1"), None);
    }

    #[test]
    fn a_bad_file_names_line_and_column_and_leaves_the_devices_as_they_were() {
        let (_folder, path) = file(&format!("{HEAD}acme,d1,lab,ACTIVE,\n"));
        let registry = FileRegistry::open(&path).unwrap();
        assert!(!registry.reload_if_changed().unwrap());
        for (text, named) in [
            (format!("{HEAD}acme,d1,lab,ACTIVE\n"), "line 2: 4 cells"),
            (format!("{HEAD}acme,d1,,ACTIVE,x\n"), "site_id is empty"),
            (format!("{HEAD}acme,d1,l,ACTIVE,\nacme,d1,l,ACTIVE,\n"), "line 3: acme/d1 is in line 2"),
            ("acme,d1,lab,ACTIVE,\n".into(), "the first line must be"),
        ] {
            fs::write(&path, text).unwrap();
            let error = registry.reload_if_changed().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert!(registry.lookup("acme", "d1").is_some());
        }
        let before = registry.generation();
        fs::write(&path, format!("{HEAD}acme,d9,lab,ACTIVE,\n")).unwrap();
        assert!(registry.reload_if_changed().unwrap());
        assert!(registry.lookup("acme", "d1").is_none() && registry.lookup("acme", "d9").is_some());
        assert!(registry.generation() > before);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (_folder, path) = file(HEAD);
        let device = DeviceRecord {
            tenant_id: "a,b".into(),
            device_id: "d\"1".into(),
            site_id: String::new(),
            status: "ACTIVE".into(),
            provision_token_hash: None,
        };
        write(&path, std::slice::from_ref(&device)).unwrap();
        assert_eq!(read(&path).unwrap(), [(2, device)]);
    }
}
