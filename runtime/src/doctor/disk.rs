//! The disk of the data folder: its free space, and the time of an fsync, which each PUBACK waits for.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::doctor::finding::{Finding, Level};
use crate::limits::{DOCTOR_FSYNCS, SLOW_FSYNC_MS};

const SPACE: &str = "disk space";

const FSYNC: &str = "fsync";

pub fn check(config: &Config) -> Vec<Finding> {
    let data_dir = Path::new(&config.data_dir);
    let mut findings = Vec::new();
    let needed = config.spool.bytes_max.saturating_add(config.quarantine.bytes_max);
    let used = folder_bytes(&data_dir.join("spool")) + folder_bytes(&data_dir.join("quarantine"));
    match free_bytes(&existing(data_dir)) {
        Ok(free) => findings.push(judge_space(free, needed.saturating_sub(used))),
        Err(error) => findings.push(Finding::new(
            SPACE,
            Level::Error,
            format!("The free space of {} cannot be read: {error}.", data_dir.display()),
            "Check the path in data_dir.",
        )),
    }
    if !data_dir.exists() {
        let state = format!("{} does not exist yet.", data_dir.display());
        findings.push(Finding::new(
            FSYNC,
            Level::Note,
            state,
            "Run this again when the gateway has started once.",
        ));
        return findings;
    }
    findings.push(match fsync_times(data_dir) {
        Ok(times) => judge_fsync(times),
        Err(error) => Finding::new(
            FSYNC,
            Level::Error,
            format!("{} cannot be written to: {error}.", data_dir.display()),
            "Run this as the gateway's user, and check the folder's owner and the disk.",
        ),
    });
    findings
}

/// The folder, or the next one above it that exists.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zero is a valid `statvfs`, and the path ends in NUL.
    let (result, stat) = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut stat), stat)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn judge_space(free: u64, growth: u64) -> Finding {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    if free >= growth {
        let state = format!(
            "{} MB are free; spool and quarantine can grow by {} MB.",
            megabytes(free),
            megabytes(growth)
        );
        return Finding::ok(SPACE, state);
    }
    let state = format!(
        "{} MB are free, but spool and quarantine can grow by {} MB.",
        megabytes(free),
        megabytes(growth)
    );
    // A tenth: the next outage of the database fills it.
    let level = if free < growth / 10 { Level::Error } else { Level::Warning };
    Finding::new(SPACE, level, state, "Free space, or lower spool.bytes_max and quarantine.bytes_max.")
}

/// Times of writing and syncing a page, sorted. The file is removed again.
fn fsync_times(folder: &Path) -> io::Result<Vec<Duration>> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mut measure = || {
        let mut times = Vec::with_capacity(DOCTOR_FSYNCS);
        for _ in 0..DOCTOR_FSYNCS {
            let began = Instant::now();
            file.write_all(&[0x5a; 4096])?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        times.sort();
        Ok(times)
    };
    let times = measure();
    std::fs::remove_file(&path)?;
    times
}

fn judge_fsync(times: Vec<Duration>) -> Finding {
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let (p50, p99) = (at(50), at(99));
    let figures = format!(
        "An fsync takes {:.1} ms (p50) and {:.1} ms (p99 of {})",
        p50.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3,
        times.len()
    );
    if p50 < Duration::from_millis(SLOW_FSYNC_MS) {
        return Finding::ok(FSYNC, format!("{figures}."));
    }
    Finding::new(
        FSYNC,
        Level::Warning,
        format!("{figures}, and each PUBACK waits for one."),
        "Use a faster disk for data_dir, or one that nothing else writes to.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_space_is_found() {
        assert_eq!(judge_space(2_000_000_000, 1_500_000_000).level, Level::Ok);
        assert_eq!(judge_space(1_000_000_000, 1_500_000_000).level, Level::Warning);
        assert_eq!(judge_space(1_000_000, 1_500_000_000).level, Level::Error);
        assert!(free_bytes(Path::new("/")).unwrap() > 0 || free_bytes(Path::new(".")).is_ok());
        assert_eq!(existing(Path::new("/nowhere/at/all")), Path::new("/"));
    }

    #[test]
    fn a_slow_disk_is_found_and_a_measured_one_leaves_nothing_behind() {
        assert_eq!(judge_fsync(vec![Duration::from_millis(1); 50]).level, Level::Ok);
        assert_eq!(judge_fsync(vec![Duration::from_secs(1); 50]).level, Level::Warning);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(fsync_times(dir.path()).unwrap().len(), DOCTOR_FSYNCS);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(fsync_times(&dir.path().join("nowhere")).is_err());
    }
}
