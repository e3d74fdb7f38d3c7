//! What tests run against: real programs on free ports, in folders of their own, ended by pid.

pub mod mosquitto;
pub mod mqtt_client;
pub mod tap;
pub mod downstream;

use std::time::{Duration, Instant};

/// Waits for something that must come true, and says what it was if it does not.
pub async fn eventually(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
