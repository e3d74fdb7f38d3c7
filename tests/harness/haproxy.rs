//! HAProxy from Debian's package `haproxy`, with the configuration that is shipped, on a free loopback port.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Process, free_port};

/// A balancer before gateways of this machine; ended when it is dropped.
pub struct Haproxy {
    pub address: String,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// Debian keeps the program where only root looks.
fn program() -> PathBuf {
    ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("haproxy is not installed; on Debian: apt-get install haproxy")
}

/// The shipped configuration, with its addresses exchanged for those of `gateways` (listener and admin side).
fn configuration(address: &str, gateways: &[(String, String)]) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/fleet/haproxy.cfg");
    let mut text = String::new();
    let mut gateways = gateways.iter();
    for line in std::fs::read_to_string(shipped).unwrap().lines() {
        match line.trim_start().split(' ').next().unwrap() {
            "bind" => text += &format!("    bind {address}\n"),
            "server" => {
                let name = line.split_whitespace().nth(1).unwrap();
                let (listener, admin) = gateways.next().expect("a gateway for each server");
                let (_, port) = admin.rsplit_once(':').unwrap();
                text += &format!("    server {name} {listener} port {port}\n");
            }
            // A user who is not root has not so many files.
            "maxconn" => text += "    maxconn 2000\n",
            _ => text += &format!("{line}\n"),
        }
    }
    assert!(gateways.next().is_none(), "the shipped configuration has fewer servers");
    text
}

impl Haproxy {
    /// Starts it before gateways that run.
    pub fn start(gateways: &[(String, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, configuration(&address, gateways)).unwrap();
        let program = program();
        let process =
            Process::start(program.to_str().unwrap(), "haproxy", &["-db", "-f", path.to_str().unwrap()]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "haproxy does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { address, _process: process, _folder: folder }
    }
}
