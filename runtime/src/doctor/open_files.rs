//! The limit of open files against the connections that the configuration allows.

use std::fs;

use crate::config::Config;
use crate::doctor::finding::{Finding, Level};
use crate::doctor::running_gateway::RunningGateway;
use crate::limits::OPEN_FILES_BESIDE_CONNECTIONS;

const CHECK: &str = "open files";

pub fn check(config: &Config, gateway: &RunningGateway) -> Finding {
    let connections = match config.listen.address.is_empty() {
        true => 0,
        false => u64::from(config.listen.connections_max),
    };
    match gateway.pid.and_then(limit_of) {
        Some(limit) => judge(connections, limit, "the running gateway"),
        None => judge(connections, own_limit(), "this shell"),
    }
}

/// The hard limit of this process: the gateway raises its own limit up to it.
fn own_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call is given a limit of ours.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_max
}

/// The limit of a process: `Max open files  1024  524288  files`.
fn limit_of(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn judge(connections: u64, limit: u64, whose: &str) -> Finding {
    let needed = connections + OPEN_FILES_BESIDE_CONNECTIONS;
    if limit >= needed {
        return Finding::ok(CHECK, format!("The limit of {whose} is {limit}; {needed} are enough."));
    }
    let state = format!(
        "The limit of {whose} is {limit}, but listen.connections_max = {connections} needs {needed} with the files of \
         the spool."
    );
    let advice = format!("Set LimitNOFILE={needed} in the unit, or lower listen.connections_max.");
    Finding::new(CHECK, Level::Warning, state, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_the_connections_is_found() {
        assert_eq!(judge(10_000, 65_536, "x").level, Level::Ok);
        assert_eq!(judge(0, 1_024, "x").level, Level::Ok);
        let found = judge(10_000, 1_024, "x");
        assert_eq!(found.level, Level::Warning);
        assert!(found.advice.contains("LimitNOFILE=10256"), "{found:?}");
        assert!(limit_of(std::process::id()).unwrap() > 0);
    }
}
