//! Contended acquisitions of locks: probes of the kernel at the slow paths of parking_lot, dashmap and the
//! standard library (Documentation/trace/uprobetracer.rst), which a lock takes only if another thread has it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Parts of the mangled names of the slow paths.
const SLOW_PATHS: [&str; 6] = [
    "RawMutex9lock_slow",
    "RawRwLock16lock_shared_slow",
    "RawRwLock19lock_exclusive_slow",
    "Mutex14lock_contended",
    "RwLock14read_contended",
    "RwLock15write_contended",
];

/// Probes in one binary, taken out again when they are dropped.
pub struct Contention {
    tracefs: PathBuf,
    group: String,
    names: Vec<String>,
}

impl Contention {
    /// Sets the probes.
    ///
    /// # Errors
    /// Only root may, the kernel has no uprobes, or the binary has no symbols.
    pub fn watch(binary: &Path) -> Result<Self> {
        let tracefs = tracefs()?;
        let offsets = slow_paths(&fs::read(binary)?)?;
        ensure!(!offsets.is_empty(), "{} has no symbols of locks", binary.display());
        let mut probes =
            Self { tracefs, group: format!("tidegate{}", std::process::id()), names: Vec::new() };
        let binary = binary.canonicalize()?;
        for (number, offset) in offsets.iter().enumerate() {
            let name = format!("lock{number}");
            probes.tell(&format!("p:{}/{name} {}:{offset:#x}", probes.group, binary.display()))?;
            probes.names.push(name);
        }
        fs::write(probes.tracefs.join("events").join(&probes.group).join("enable"), "1")?;
        Ok(probes)
    }

    fn tell(&self, command: &str) -> Result<()> {
        let mut events = OpenOptions::new().append(true).open(self.tracefs.join("uprobe_events"))?;
        events.write_all(command.as_bytes()).with_context(|| format!("the kernel refuses {command:?}"))
    }

    /// The acquisitions since the probes were set.
    pub fn count(&self) -> Result<u64> {
        let profile = fs::read_to_string(self.tracefs.join("uprobe_profile"))?;
        Ok(hits(&profile, &self.names))
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        let _ = fs::write(self.tracefs.join("events").join(&self.group).join("enable"), "0");
        for name in &self.names {
            let _ = self.tell(&format!("-:{}/{name}", self.group));
        }
    }
}

/// The place where the kernel's events are mounted.
fn tracefs() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "tracefs").then(|| PathBuf::from(place))
    });
    mount.context("no tracefs is mounted: mount -t tracefs nodev /sys/kernel/tracing")
}

/// The sum of the hits of some probes: lines of file, name, hits and misses.
fn hits(profile: &str, names: &[String]) -> u64 {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [.., name, hits, _] = fields[..] else { return None };
        names.iter().any(|known| known == name).then(|| hits.parse::<u64>().ok())?
    };
    profile.lines().filter_map(of).sum()
}

/// Offsets in a 64-bit ELF file (elf(5)) of the functions that are slow paths.
fn slow_paths(file: &[u8]) -> Result<Vec<u64>> {
    let number = |at: usize, bytes: usize| -> Result<u64> {
        let field = file.get(at..at + bytes).context("the file is too short for an ELF file")?;
        Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    ensure!(file.starts_with(b"\x7fELF\x02"), "it is no 64-bit ELF file");
    let (programs, sections) = (number(32, 8)? as usize, number(40, 8)? as usize);
    let mut segments = Vec::new();
    for program in 0..number(56, 2)? as usize {
        let at = programs + program * 56;
        // PT_LOAD: offset, address and size.
        if number(at, 4)? == 1 {
            segments.push((number(at + 8, 8)?, number(at + 16, 8)?, number(at + 32, 8)?));
        }
    }
    let mut offsets = Vec::new();
    for section in 0..number(60, 2)? as usize {
        let at = sections + section * 64;
        // SHT_SYMTAB
        if number(at + 4, 4)? != 2 {
            continue;
        }
        let (symbols, bytes, link) = (number(at + 24, 8)?, number(at + 32, 8)?, number(at + 40, 4)?);
        let names = number(sections + link as usize * 64 + 24, 8)? as usize;
        for symbol in (symbols as usize..(symbols + bytes) as usize).step_by(24) {
            let name = file.get(names + number(symbol, 4)? as usize..).unwrap_or_default();
            let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(0)];
            if !SLOW_PATHS.iter().any(|path| name.windows(path.len()).any(|part| part == path.as_bytes())) {
                continue;
            }
            let address = number(symbol + 8, 8)?;
            let segment = segments.iter().find(|(_, from, size)| (*from..from + size).contains(&address));
            offsets.extend(segment.map(|(offset, from, _)| address - from + offset));
        }
    }
    offsets.sort_unstable();
    offsets.dedup();
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_the_named_probes_are_summed() {
        let profile = "  /usr/bin/tidegate lock0    12    0\n  /usr/bin/tidegate lock1   5   0\n  /bin/zsh other  9   0\n";
        assert_eq!(hits(profile, &["lock0".into(), "lock1".into()]), 17);
    }

    #[test]
    fn the_slow_paths_of_this_very_program_are_found() {
        // parking_lot is linked into it.
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(slow_paths(&program).unwrap().len() >= 2);
        assert!(slow_paths(b"\x7fELF\x02 and no more").is_err());
        assert!(slow_paths(b"#!/bin/sh\n").is_err());
    }
}
