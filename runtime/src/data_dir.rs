//! The data folder: its lock, the seed of the hash of devices, and its client id.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::sections::DEFAULT_CLIENT_ID;
use crate::core::atomic_file::{self, STAGING};
use crate::core::device_hash::random_seed;
use sha2::{Digest, Sha256};

const SEED_FILE: &str = "device_seed";

/// Stands for the random part in a configured client id.
const RANDOM: &str = "{random}";

/// The data folder cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("data_dir = {dir:?} cannot be created: {error}")]
    Make { dir: PathBuf, error: io::Error },
    #[error("data_dir = {dir:?} cannot be written to: {error}")]
    Open { dir: PathBuf, error: io::Error },
    #[error("data_dir = {dir:?} is in use by another gateway: each gateway needs its own folder")]
    Taken { dir: PathBuf },
}

/// The seed of the hash of devices cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} cannot be {doing}: {error}; delete it where it is damaged, and a new one is made")]
pub struct SeedError {
    path: PathBuf,
    doing: &'static str,
    error: io::Error,
}

/// The seed of the hash of devices, made where there is none yet. Only its owner may read it: with it,
/// names of devices could be chosen that get in each other's way.
///
/// # Errors
/// It is there and cannot be read, or cannot be made.
pub fn device_seed(data_dir: &Path) -> Result<u64, SeedError> {
    let path = data_dir.join(SEED_FILE);
    let fault = |doing| {
        let path = path.clone();
        move |error| SeedError { path, doing, error }
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => u64::from_str_radix(text.trim(), 16)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            .map_err(fault("read")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = random_seed();
            atomic_file::replace(&data_dir.join(STAGING), &path, format!("{seed:016x}\n").as_bytes())
                .map_err(fault("made"))?;
            Ok(seed)
        }
        Err(error) => Err(fault("read")(error)),
    }
}

/// The name of this data folder among those of other gateways. The seed itself is a secret.
///
/// # Errors
/// The seed of the folder cannot be read or made.
pub fn folder_id(data_dir: &Path) -> Result<String, SeedError> {
    let digest = Sha256::digest(format!("folder {:016x}", device_seed(data_dir)?));
    Ok(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The same without a seed being made: `None` for a folder where no gateway has run.
///
/// # Errors
/// The seed of the folder cannot be read.
pub fn folder_id_if_run(data_dir: &Path) -> Result<Option<String>, SeedError> {
    data_dir.join(SEED_FILE).exists().then(|| folder_id(data_dir)).transpose()
}

/// The client id of this data folder: `{random}` in a configured one stands for a text that is the folder's
/// own and stays the same. A folder whose session has the name that was the default before keeps it.
///
/// # Errors
/// The seed of the folder cannot be read or made.
pub fn client_id(data_dir: &Path, configured: &str) -> Result<String, SeedError> {
    Ok(match known_client_id(data_dir, configured) {
        Some(client_id) => client_id,
        None => derived_client_id(device_seed(data_dir)?, configured),
    })
}

/// The same without a seed being made: `None` for a folder that has none yet, where no gateway has run.
///
/// # Errors
/// The seed of the folder cannot be read.
pub fn client_id_if_run(data_dir: &Path, configured: &str) -> Result<Option<String>, SeedError> {
    let known = known_client_id(data_dir, configured);
    if known.is_some() || !data_dir.join(SEED_FILE).exists() {
        return Ok(known);
    }
    client_id(data_dir, configured).map(Some)
}

/// The client id that needs no seed.
fn known_client_id(data_dir: &Path, configured: &str) -> Option<String> {
    const OLD_DEFAULT: &str = "tidegate";
    if !configured.contains(RANDOM) {
        return Some(configured.to_owned());
    }
    let session = std::fs::read(data_dir.join("mqtt-session.json")).unwrap_or_default();
    let session: serde_json::Value = serde_json::from_slice(&session).unwrap_or_default();
    (configured == DEFAULT_CLIENT_ID && session["client_id"] == OLD_DEFAULT).then(|| OLD_DEFAULT.to_owned())
}

/// The seed itself is a secret, so a digest of it is used.
fn derived_client_id(seed: u64, configured: &str) -> String {
    let digest = Sha256::digest(format!("client_id {seed:016x}"));
    let random: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    configured.replace(RANDOM, &random)
}

/// Bytes of all files in a folder; what cannot be read counts as nothing.
pub fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes(&entry.path()),
        Ok(_) => entry.metadata().map_or(0, |metadata| metadata.len()),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Takes the data folder for this process alone; released when the file is dropped.
///
/// # Errors
/// Another process holds it, or it cannot be made or written to.
pub fn lock(data_dir: &Path) -> Result<File, LockError> {
    try_lock(data_dir)?.ok_or_else(|| LockError::Taken { dir: data_dir.to_owned() })
}

/// The same as `lock`; `None` if another process holds it.
///
/// # Errors
/// It cannot be made or written to.
pub fn try_lock(data_dir: &Path) -> Result<Option<File>, LockError> {
    let dir = data_dir.to_owned();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| LockError::Make { dir: dir.clone(), error })?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(data_dir.join("lock"))
        .map_err(|error| LockError::Open { dir, error })?;
    // SAFETY: flock(2) on a descriptor that is open.
    let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
    if !taken {
        return Ok(None);
    }
    atomic_file::remove_staged(&data_dir.join(STAGING));
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_seed_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let seed = device_seed(dir.path()).unwrap();
        assert_eq!(device_seed(dir.path()).unwrap(), seed);
        let path = dir.path().join("device_seed");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "no number").unwrap();
        let error = device_seed(dir.path()).unwrap_err().to_string();
        assert!(error.contains("device_seed") && error.contains("delete it"), "{error}");
    }

    #[test]
    fn a_client_id_is_the_folder_s_own_and_stays_and_a_given_one_is_taken_as_it_is() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let default = |dir: &tempfile::TempDir| client_id(dir.path(), DEFAULT_CLIENT_ID).unwrap();
        assert!(default(&dir).starts_with("tidegate-") && default(&dir).len() == 21, "{}", default(&dir));
        assert_eq!(default(&dir), default(&dir));
        assert_ne!(default(&dir), default(&other));
        assert_eq!(client_id(dir.path(), "tidegate").unwrap(), "tidegate");
        // The session of an earlier version, with what waits in it.
        std::fs::write(other.path().join("mqtt-session.json"), r#"{"client_id":"tidegate"}"#).unwrap();
        assert_eq!(default(&other), "tidegate");
    }
}
