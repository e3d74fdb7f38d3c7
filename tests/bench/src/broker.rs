//! A Mosquitto of our own, set as the README tells operators to.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::gateway::free_port;

/// A broker that runs until it is dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    pub address: String,
}

impl Broker {
    pub fn start(folder: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        let configuration = folder.join("mosquitto.conf");
        fs::write(
            &configuration,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n\
                 log_type error\n"
            ),
        )?;
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .context("mosquitto is not installed")?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&configuration)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start mosquitto")?;
        let broker = Self { child, address: format!("127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(&broker.address).is_err() {
            if Instant::now() > deadline {
                bail!("mosquitto did not listen within 10 s");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
