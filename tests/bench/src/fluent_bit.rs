//! Fluent Bit as a peer: its MQTT input, which acknowledges what it has in memory, the metrics lifted out of the
//! envelope, and its InfluxDB output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::gateway::{Usage, free_port};
use crate::sink::Sink;

/// A Fluent Bit that runs until it is dropped.
#[derive(Debug)]
pub struct FluentBit {
    child: Child,
    pub address: String,
}

/// The program of the path, if it is there.
pub fn installed() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let mut programs = std::env::split_paths(&folders).map(|folder| folder.join("fluent-bit"));
    programs.find(|path| path.is_file()).or_else(|| {
        let packaged = PathBuf::from("/opt/fluent-bit/bin/fluent-bit");
        packaged.is_file().then_some(packaged)
    })
}

/// The version that the program gives.
pub fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().context("fluent-bit --version says nothing")?.to_owned())
}

impl FluentBit {
    /// Starts the program with its MQTT input on a free port and its lines going to the sink.
    pub fn start(program: &Path, folder: &Path, sink: &Sink) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let (port, sink) = (free_port()?, sink.url.trim_start_matches("http://"));
        let (host, sink_port) = sink.rsplit_once(':').context("a URL with a port")?;
        let configuration = format!(
            "[SERVICE]\n    flush 1\n    log_level error\n    daemon off\n\
             [INPUT]\n    name mqtt\n    listen 127.0.0.1\n    port {port}\n    tag telemetry\n\
             [FILTER]\n    name nest\n    match *\n    operation lift\n    nested_under metrics\n\
             [OUTPUT]\n    name influxdb\n    match *\n    host {host}\n    port {sink_port}\n    database telemetry\n    \
             auto_tags on\n"
        );
        let file = folder.join("fluent-bit.conf");
        fs::write(&file, configuration)?;
        let log = folder.join("fluent-bit.log");
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut peer = Self { child, address: format!("127.0.0.1:{port}") };
        let began = Instant::now();
        while std::net::TcpStream::connect(&peer.address).is_err() {
            let ended = peer.child.try_wait()?;
            ensure!(
                ended.is_none() && began.elapsed() < Duration::from_secs(10),
                "fluent-bit does not listen; it needs its mqtt input, nest filter and influxdb output:\n{}",
                fs::read_to_string(&log)?
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }
}

impl Drop for FluentBit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
