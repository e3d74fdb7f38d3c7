//! CPU time of the threads that acknowledge messages, and their time in the queue for a processor, as the
//! scheduler counts both (/proc/PID/task/TID/schedstat, Documentation/scheduler/sched-stats.rst).
//!
//! The wait counts whoever has the processors: threads of the gateway, other processes, or a container's
//! quota.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::flush_delay::CpuSample;

/// The threads that acknowledge messages, by the beginnings of their names.
const NAMES: [&str; 3] = ["io", "decode-", "spool"];

/// The time after which threads that began meanwhile are counted too.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// One thread and its counts at the last reading.
struct ThreadCounts {
    file: File,
    ran_ns: u64,
    waited_ns: u64,
}

/// Reads the counts of the threads; without such counts it reads nothing, and nobody seems to wait.
pub struct CpuWait {
    /// The folder of the process's threads.
    folder: PathBuf,
    threads: HashMap<String, ThreadCounts>,
    listed: Option<Instant>,
    read: Instant,
}

impl CpuWait {
    pub fn of_this_process(now: Instant) -> Self {
        Self::new(Path::new("/proc/self/task"), now)
    }

    fn new(folder: &Path, now: Instant) -> Self {
        Self { folder: folder.to_owned(), threads: HashMap::new(), listed: None, read: now }
    }

    /// The counts since the last reading. A thread counts from the reading that finds it.
    pub fn sample(&mut self, now: Instant) -> CpuSample {
        let elapsed = now.saturating_duration_since(self.read);
        self.read = now;
        let (mut ran, mut waited) = (0, 0);
        // A thread that has ended cannot be read.
        self.threads.retain(|_, thread| {
            let Some((ran_ns, waited_ns)) = counts(&thread.file) else { return false };
            ran += ran_ns.saturating_sub(thread.ran_ns);
            waited += waited_ns.saturating_sub(thread.waited_ns);
            (thread.ran_ns, thread.waited_ns) = (ran_ns, waited_ns);
            true
        });
        if self.listed.is_none_or(|listed| now.saturating_duration_since(listed) >= LIST_INTERVAL) {
            self.listed = Some(now);
            self.list();
        }
        CpuSample { elapsed, ran: Duration::from_nanos(ran), waited: Duration::from_nanos(waited) }
    }

    /// Adds the threads that are not known yet.
    fn list(&mut self) {
        let Ok(tasks) = std::fs::read_dir(&self.folder) else { return };
        for task in tasks.flatten() {
            let id = task.file_name().to_string_lossy().into_owned();
            if self.threads.contains_key(&id) {
                continue;
            }
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if !NAMES.iter().any(|known| name.starts_with(known)) {
                continue;
            }
            let Ok(file) = File::open(task.path().join("schedstat")) else { continue };
            if let Some((ran_ns, waited_ns)) = counts(&file) {
                self.threads.insert(id, ThreadCounts { file, ran_ns, waited_ns });
            }
        }
    }
}

/// Nanoseconds that a thread ran, and that it was ready and did not run.
fn counts(file: &File) -> Option<(u64, u64)> {
    let mut bytes = [0; 80];
    let len = file.read_at(&mut bytes, 0).ok()?;
    let mut numbers = std::str::from_utf8(&bytes[..len]).ok()?.split_ascii_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, id: &str, name: &str, counts: &str) {
        let task = folder.join(id);
        std::fs::create_dir_all(&task).unwrap();
        std::fs::write(task.join("comm"), format!("{name}\n")).unwrap();
        std::fs::write(task.join("schedstat"), format!("{counts}\n")).unwrap();
    }

    #[test]
    fn the_threads_that_acknowledge_are_added_up_from_when_they_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1", "tidegate", "1000 1000 1");
        write(folder.path(), "2", "io", "5000 100 1");
        write(folder.path(), "3", "decode-0", "7000 200 1");
        write(folder.path(), "4", "writer", "1000 1000 1");
        let began = Instant::now();
        let mut wait = CpuWait::new(folder.path(), began);
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(wait.sample(at(1)), CpuSample { elapsed: Duration::from_secs(1), ..CpuSample::default() });
        write(folder.path(), "2", "io", "5300 110 2");
        write(folder.path(), "3", "decode-0", "7020 204 2");
        write(folder.path(), "4", "writer", "900000 900000 2");
        write(folder.path(), "5", "spool", "900000 900000 2");
        let (ran, waited) = (Duration::from_nanos(320), Duration::from_nanos(14));
        assert_eq!(wait.sample(at(3)), CpuSample { elapsed: Duration::from_secs(2), ran, waited });
        // Seen from the next list on, and counted from then.
        wait.sample(at(20));
        write(folder.path(), "5", "spool", "900001 900002 3");
        let (ran, waited) = (Duration::from_nanos(1), Duration::from_nanos(2));
        assert_eq!(wait.sample(at(21)), CpuSample { elapsed: Duration::from_secs(1), ran, waited });
    }

    #[test]
    fn a_system_that_counts_nothing_gives_no_wait() {
        let began = Instant::now();
        let mut wait = CpuWait::new(Path::new("/nowhere/task"), began);
        let sample = wait.sample(began + Duration::from_secs(1));
        assert_eq!((sample.ran, sample.waited), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn the_counts_of_a_thread_of_this_process_are_read() {
        // A thread that does nothing yet, so that only its own reading is needed.
        let mut wait = CpuWait::of_this_process(Instant::now());
        let work = std::thread::Builder::new().name("io".into());
        let (go, went) = std::sync::mpsc::channel::<()>();
        let thread = work
            .spawn(move || went.recv().map(|()| (0..20_000_000_u64).map(std::hint::black_box).sum::<u64>()));
        let thread = thread.unwrap();
        while wait.threads.is_empty() {
            wait.listed = None;
            wait.sample(Instant::now());
        }
        go.send(()).unwrap();
        let mut ran = Duration::ZERO;
        while ran.is_zero() && !thread.is_finished() {
            ran += wait.sample(Instant::now()).ran;
        }
        thread.join().unwrap().unwrap();
        assert!(!ran.is_zero(), "its work is counted while it works");
    }
}
