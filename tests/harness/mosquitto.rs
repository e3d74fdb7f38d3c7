//! Mosquitto, as the README tells operators to run it, on a free loopback port.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::free_port;

/// A broker that can be killed and started again on the same port with the same store.
pub struct Mosquitto {
    pub port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

/// The path of the broker's program.
pub fn program() -> PathBuf {
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("mosquitto is not installed; on Debian: apt-get install mosquitto")
}

impl Mosquitto {
    /// Starts a broker that lets everybody in.
    pub fn start() -> Self {
        Self::start_with(|_| "allow_anonymous true\n".into())
    }

    /// Starts a broker with its sessions in memory: one that writes all of a long queue to disk at each
    /// change would be slower than the gateway under test.
    pub fn start_in_memory() -> Self {
        Self::start_with(|_| "allow_anonymous true\npersistence false\n".into())
    }

    /// Starts a broker with more configuration, which may name files that are made in its folder.
    pub fn start_with(more: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = folder.path();
        let mut configuration = format!(
            "listener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nautosave_on_changes true\n\
             autosave_interval 1\nmax_queued_messages 0\nmax_inflight_messages 0\nlog_dest file {}\nlog_type all\n",
            path.display(),
            path.join("broker.log").display(),
        );
        // SAFETY: it only reads this process's user.
        if unsafe { libc::geteuid() } == 0 {
            // Otherwise it becomes a user that may not read the folder.
            configuration += "user root\n";
        }
        configuration += &more(path);
        std::fs::write(path.join("mosquitto.conf"), configuration).unwrap();
        let mut broker = Self { port, folder, child: None };
        broker.restart();
        broker
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that the broker has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("broker.log")).unwrap_or_default()
    }

    /// Starts it again after `kill`, and waits until it answers.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let child = Command::new(program())
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
