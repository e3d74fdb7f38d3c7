//! A database that only counts: it answers writes with 204, at once or after a delay; those to a
//! database whose name begins as the dead ones do, with 503, or never.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;

/// The sink's behaviour for writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    pub delay: Duration,
    /// The prefix of the names of dead databases.
    pub dead: Option<&'static str>,
    /// True if every other dead database never answers.
    pub hang: bool,
    /// True to store bodies for the bench.
    pub keeps: bool,
}

/// The counts of the sink.
#[derive(Debug, Default)]
pub struct Counts {
    pub posts: AtomicU64,
    pub lines: AtomicU64,
    pub bytes: AtomicU64,
    kept: Mutex<Vec<Vec<u8>>>,
}

/// A running sink; it ends with the process.
#[derive(Debug)]
pub struct Sink {
    pub url: String,
    pub counts: Arc<Counts>,
}

impl Sink {
    /// Starts a sink on a free loopback port, a thread a connection.
    pub fn start(delay: Duration) -> Result<Self> {
        Self::with(Manner { delay, ..Manner::default() })
    }

    pub fn with(manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let counts = Arc::new(Counts::default());
        std::thread::spawn({
            let counts = counts.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    let counts = counts.clone();
                    std::thread::spawn(move || serve(stream, &counts, manner));
                }
            }
        });
        Ok(Self { url, counts })
    }

    /// The bodies that were written since the last clear.
    pub fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.counts.kept.lock().expect("nobody panics with it")
    }

    pub fn lines(&self) -> u64 {
        self.counts.lines.load(Ordering::Acquire)
    }

    pub fn posts(&self) -> u64 {
        self.counts.posts.load(Ordering::Acquire)
    }
}

fn serve(stream: TcpStream, counts: &Counts, manner: Manner) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut answers = stream.try_clone().ok()?;
    let mut requests = BufReader::with_capacity(256 << 10, stream);
    let mut body = Vec::new();
    let mut header = String::new();
    loop {
        let mut length = 0;
        let mut database = String::new();
        loop {
            header.clear();
            if requests.read_line(&mut header).ok()? == 0 {
                return None;
            }
            let line = header.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((_, name)) = line.split_once("db=").filter(|_| line.starts_with("POST ")) {
                database = name.split([' ', '&']).next().unwrap_or_default().to_owned();
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
        }
        body.resize(length, 0);
        requests.read_exact(&mut body).ok()?;
        if manner.dead.is_some_and(|dead| database.starts_with(dead)) {
            if manner.hang && database.ends_with(['0', '2', '4', '6', '8']) {
                std::thread::sleep(Duration::from_secs(3_600));
            }
            answers.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        }
        if !manner.delay.is_zero() {
            std::thread::sleep(manner.delay);
        }
        let lines = body.iter().filter(|&&byte| byte == b'\n').count() as u64
            + u64::from(!body.is_empty() && !body.ends_with(b"\n"));
        if manner.keeps {
            counts.kept.lock().expect("nobody panics with it").push(body.clone());
        }
        counts.lines.fetch_add(lines, Ordering::AcqRel);
        counts.bytes.fetch_add(length as u64, Ordering::AcqRel);
        counts.posts.fetch_add(1, Ordering::AcqRel);
        answers.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}
