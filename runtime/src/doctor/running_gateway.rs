//! The gateway of the configuration, if it runs: its process, and its answers over HTTP.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config;
use crate::config::Config;

/// The state of the gateway at the time of the checks.
#[derive(Debug, Default)]
pub struct RunningGateway {
    /// Another process holds the lock of the data folder.
    pub runs: bool,
    /// That process, where the system shows it.
    pub pid: Option<u32>,
    /// The answer of `/readyz`.
    pub readiness: Option<Value>,
    /// The answer of `/api/v1/spool`.
    pub spool: Option<Value>,
}

/// The time limit of one answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl RunningGateway {
    /// Looks for the gateway. Makes no folder and no file.
    ///
    /// # Errors
    /// The token's file cannot be read.
    pub async fn find(config: &Config) -> anyhow::Result<Self> {
        let lock = Path::new(&config.data_dir).join("lock");
        if !is_locked(&lock) {
            return Ok(Self::default());
        }
        let token = config::secret("admin.token", "", &config.admin.token_file)?;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let ask = async |path: &str| {
            let mut request = client.get(format!("http://{}{path}", config.admin.listen));
            if !token.is_empty() {
                request = request.bearer_auth(&token);
            }
            let text = request.send().await.ok()?.text().await.ok()?;
            serde_json::from_str::<Value>(&text).ok()
        };
        Ok(Self {
            runs: true,
            pid: holder(&lock),
            readiness: ask("/readyz").await.filter(|answer| answer["ready"].is_boolean()),
            spool: ask("/api/v1/spool").await.filter(|answer| answer["databases"].is_array()),
        })
    }
}

fn is_locked(lock: &Path) -> bool {
    use std::os::fd::AsRawFd;
    let Ok(file) = fs::File::open(lock) else { return false };
    // SAFETY: flock(2) on a descriptor that is open; the lock ends with it.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) != 0 }
}

/// The process that holds the lock, by the system's list: `1: FLOCK ADVISORY WRITE 4242 08:01:131 0 EOF`.
fn holder(lock: &Path) -> Option<u32> {
    let inode = fs::metadata(lock).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, inode)
}

fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "FLOCK")?;
        let of_file: u64 = words.get(at + 4)?.rsplit(':').next()?.parse().ok()?;
        (of_file == inode).then(|| words[at + 3].parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_inode() {
        let locks =
            "1: POSIX  ADVISORY  WRITE 7 08:01:131 0 EOF\n2: FLOCK  ADVISORY  WRITE 4242 08:01:131 0 EOF\n";
        assert_eq!(holder_in(locks, 131), Some(4242));
        assert_eq!(holder_in(locks, 132), None);
    }
}
