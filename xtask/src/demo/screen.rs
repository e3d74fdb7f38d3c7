//! The demo's output: the gateway's own books, read over HTTP as any operator could.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The operator's token of the demo, whose gateway answers on loopback only.
pub const TOKEN: &str = "demo";

/// The body of a GET and its status.
pub fn get(address: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}

fn get_json(address: &str, path: &str) -> Result<Value> {
    let (status, body) = get(address, path)?;
    ensure!(status == 200, "GET {path} answered {status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("GET {path} gave no JSON: {body}"))
}

/// The gateway's state at one moment.
pub struct Snapshot {
    taken: Instant,
    pub books: Value,
    quarantine: Value,
    guests: Value,
}

impl Snapshot {
    pub fn take(admin: &str) -> Result<Self> {
        Ok(Self {
            taken: Instant::now(),
            books: get_json(admin, "/api/v1/books")?,
            quarantine: get_json(admin, "/api/v1/quarantine")?,
            guests: get_json(admin, "/api/v1/guests")?,
        })
    }

    fn tenants(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.books["tenants"].as_object().into_iter().flatten()
    }

    fn sum(&self, section: &str, key: &str) -> u64 {
        self.tenants().filter_map(|(_, books)| books[section][key].as_u64()).sum()
    }

    pub fn balanced(&self) -> bool {
        self.books["balanced"] == true
    }

    pub fn received(&self) -> u64 {
        self.sum("messages", "received")
    }

    pub fn in_flight(&self) -> u64 {
        self.sum("messages", "in_flight")
    }

    pub fn quarantined(&self) -> u64 {
        self.sum("messages", "quarantined")
    }

    pub fn written(&self) -> u64 {
        self.sum("lines", "written")
    }

    pub fn pending(&self) -> u64 {
        self.sum("lines", "pending")
    }

    /// The messages that a tenant's own guest has decoded, if it has one that serves.
    pub fn own_decoder(&self, tenant: &str, message_type: &str) -> Option<u64> {
        let guest = self.guests["guests"].as_array()?.iter().find(|guest| {
            guest["tenant"] == tenant && guest["type"] == message_type && guest["state"] == "serving"
        })?;
        guest["messages"].as_u64()
    }

    /// Prints the rates since `last`, the books, and the last refusals.
    pub fn show(&self, last: &Snapshot, running: Duration) {
        let seconds = self.taken.duration_since(last.taken).as_secs_f64().max(0.001);
        println!("── after {:.0} s {}", running.as_secs_f64(), "─".repeat(60));
        println!(
            "{:<12}{:>10}{:>10}{:>12}{:>12}{:>12}{:>10}",
            "tenant", "msg/s", "lines/s", "received", "written", "refused", "balance"
        );
        for (tenant, books) in self.tenants() {
            let rate = |section: &str, key: &str| {
                let before = last.books["tenants"][tenant][section][key].as_u64().unwrap_or(0);
                (books[section][key].as_u64().unwrap_or(0) - before) as f64 / seconds
            };
            println!(
                "{tenant:<12}{:>10.0}{:>10.0}{:>12}{:>12}{:>12}{:>10}",
                rate("messages", "received"),
                rate("lines", "written"),
                books["messages"]["received"].as_u64().unwrap_or(0),
                books["lines"]["written"].as_u64().unwrap_or(0),
                books["messages"]["quarantined"].as_u64().unwrap_or(0),
                if self.balanced() { "yes" } else { "NO" },
            );
        }
        for entry in self.quarantine["latest"].as_array().into_iter().flatten().take(2) {
            println!(
                "  refused: {} {}: {}",
                entry["topic"].as_str().unwrap_or("?"),
                entry["reason"].as_str().unwrap_or("?"),
                entry["detail"].as_str().unwrap_or(""),
            );
        }
    }
}
