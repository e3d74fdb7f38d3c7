//! A gateway that is killed again and again while it catches up, as one is that has too little memory: it gets
//! further with each start.

use std::fs;
use std::time::Duration;

use crate::durability::{Plant, publish};
use crate::harness::gateway::Gateway;

/// Lines that the next start begins with, by the files of the spool.
fn pending(plant: &Plant) -> u64 {
    let (status, books, errors) = plant.scene.verb(&["books", "--json"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    let books: serde_json::Value = serde_json::from_str(&books).unwrap();
    books["tenants"]["acme"]["lines"]["pending"].as_u64().unwrap()
}

/// The most memory that the gateway had at any time, in KiB.
fn memory_peak_kib(gateway: &Gateway<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn each_start_gets_further_however_soon_the_next_kill_comes() {
    const MESSAGES: u64 = 6_000;
    // One request of 100 lines at a time, and each takes a while.
    let output = "batch_lines = 100\nbatch_lines_max = 100\nrequests_max = 1\n";
    let plant = Plant::with(output, "").await;
    plant.front.slow_down(Duration::from_millis(100));
    plant.database("acme", false);
    let gateway = plant.scene.start();
    let empty_kib = memory_peak_kib(&gateway);
    publish(&mut plant.device("acme"), "acme", 0..MESSAGES);
    gateway.kill();
    plant.database("acme", true);
    let mut left = pending(&plant);
    assert_eq!(left, MESSAGES);
    for start in 1..=5 {
        let gateway = plant.scene.start();
        // What a start has written by then is on the disk, but for the last tenths of a second.
        let written = MESSAGES - left + 600;
        gateway.wait("a little written", |gateway| gateway.book("acme", "lines", "written") >= written);
        let peak_kib = memory_peak_kib(&gateway);
        gateway.kill();
        let now = pending(&plant);
        assert!(now < left, "start {start} ended with {now} lines left of {left}");
        left = now;
        assert!(peak_kib < empty_kib + (64 << 10), "{peak_kib} KiB where an empty spool takes {empty_kib}");
    }
    plant.front.slow_down(Duration::ZERO);
    let gateway = plant.scene.start();
    gateway.wait("all written", |gateway| gateway.book("acme", "lines", "pending") == 0);
    gateway.assert_balanced();
    assert_eq!(plant.stored("acme").await, (0..MESSAGES).collect());
}
