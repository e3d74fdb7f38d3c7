//! The confinement of the compiler's process: it reads a stranger's component, so a fault of the compiler must reach
//! no file, no network and no other program.
//!
//! - Landlock: no file can be opened, and no TCP port bound or connected to. Files that are open stay open.
//! - A seccomp filter: system calls that a compiler needs, and no others; those fail with EPERM.
//!
//! Both need a kernel that has them and a container that allows them. Where one is not to be had, the compiler
//! works without it and says so.

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// System calls of a compiler in one thread: memory, the files that are open, time, random numbers, and its end.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
];

/// Confines the calling thread and all that it starts. Gives what is not to be had, in words.
pub fn confine_this_thread() -> Vec<String> {
    let mut missing = Vec::new();
    match landlock() {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => {}
        Ok(RulesetStatus::NotEnforced) => missing.push("landlock: the kernel does not have it".to_owned()),
        Err(error) => missing.push(format!("landlock: {error}")),
    }
    if let Err(error) = seccomp() {
        missing.push(format!("seccomp: {error}"));
    }
    missing
}

/// Denies all files and ports, as far as the kernel can.
fn landlock() -> Result<RulesetStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .create()?;
    Ok(ruleset.restrict_self()?.ruleset)
}

fn seccomp() -> Result<(), String> {
    let arch: TargetArch =
        std::env::consts::ARCH.try_into().map_err(|_| "not for this processor".to_owned())?;
    let rules: BTreeMap<i64, Vec<_>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch);
    let filter = filter.map_err(|error| error.to_string())?;
    let program: BpfProgram =
        filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;

    #[test]
    fn a_confined_compiler_reaches_no_file_no_network_and_no_program() {
        let tried = std::thread::spawn(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let missing = confine_this_thread();
            let tries = [
                ("file", File::open("/proc/self/environ").is_ok()),
                ("new file", File::create("/tmp/no-such-file-of-tidegate").is_ok()),
                ("tcp", std::net::TcpStream::connect(address).is_ok()),
                ("udp", UdpSocket::bind("127.0.0.1:0").is_ok()),
                ("program", Command::new("/bin/true").status().is_ok()),
            ];
            // What it needs works.
            let memory: u64 = (0..100_000_u64).collect::<Vec<_>>().iter().sum();
            (missing, tries, memory)
        });
        let (missing, tries, memory) = tried.join().unwrap();
        assert_eq!(memory, 4_999_950_000);
        for (what, worked) in tries {
            // Either of the two denies files; sockets and programs are seccomp's.
            let without = match what {
                "file" | "new file" => missing.len() == 2,
                _ => missing.iter().any(|missing| missing.starts_with("seccomp")),
            };
            assert!(!worked || without, "{what} worked; missing: {missing:?}");
        }
    }
}
