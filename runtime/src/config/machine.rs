//! The memory and the disk that the gateway may use, as the machine says.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of the machine, or of the container in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The memory, or the smallest limit of a control group on it.
    pub memory_bytes: u64,
    /// Bytes that are free on the file system of a folder.
    pub free_disk_bytes: u64,
}

/// Bytes that are assumed where the system does not tell: of a small machine.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

impl Machine {
    /// Asks the system. `folder` need not be there yet.
    pub fn measure(folder: &Path) -> Self {
        let installed = fs::read_to_string("/proc/meminfo").ok().and_then(|text| installed_bytes(&text));
        let memory_bytes = group_limits().into_iter().chain(installed).min().unwrap_or(UNKNOWN_MEMORY_BYTES);
        let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
        Self { memory_bytes, free_disk_bytes: free_bytes(existing).unwrap_or(u64::MAX / 2) }
    }
}

/// `MemTotal` of /proc/meminfo (proc_meminfo(5)), in bytes.
fn installed_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// The memory limits of the process's control group and of those above it, of both versions (cgroups(7)).
fn group_limits() -> Vec<u64> {
    let Ok(text) = fs::read_to_string("/proc/self/cgroup") else { return Vec::new() };
    let mut limits = Vec::new();
    for (root, group, file) in text.lines().filter_map(memory_group) {
        // A container may see its own group as the root.
        for folder in Path::new(group).ancestors() {
            let file = Path::new(root).join(folder.strip_prefix("/").unwrap_or(folder)).join(file);
            limits.extend(fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    // Version 1 says "no limit" with the largest number of pages.
    limits.retain(|limit| (1..1 << 62).contains(limit));
    limits
}

/// The folder of the hierarchy, the group in it, and the file with the limit, of a line of
/// /proc/self/cgroup; `None` for other hierarchies.
fn memory_group(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    match controllers {
        "" => Some(("/sys/fs/cgroup", group, "memory.max")),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            Some(("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

/// Free bytes of a folder's file system for this user (statvfs(3)).
fn free_bytes(folder: &Path) -> Option<u64> {
    let folder = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: a zeroed `statvfs` is valid, and both pointers live through the call.
    let status = unsafe {
        let mut status: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(folder.as_ptr(), &raw mut status) == 0).then_some(status)
    }?;
    Some((status.f_bavail as u64).saturating_mul(status.f_frsize as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_disk_of_this_machine_are_found() {
        let machine = Machine::measure(Path::new("/tmp/there/is/no/such/folder"));
        assert!(machine.memory_bytes > 64 << 20 && machine.free_disk_bytes > 0, "{machine:?}");
    }

    #[test]
    fn the_files_of_the_system_are_read_as_they_are_written() {
        assert_eq!(installed_bytes("MemTotal:        1017356 kB\nMemFree: 1 kB\n"), Some(1_017_356 << 10));
        assert_eq!(installed_bytes("MemFree: 1 kB\n"), None);
        assert_eq!(memory_group("0::/a/b"), Some(("/sys/fs/cgroup", "/a/b", "memory.max")));
        assert_eq!(
            memory_group("7:hugetlb,memory:/docker/1"),
            Some(("/sys/fs/cgroup/memory", "/docker/1", "memory.limit_in_bytes"))
        );
        assert_eq!(memory_group("3:cpu:/x"), None);
    }
}
