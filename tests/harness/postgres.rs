//! PostgreSQL from Debian's package `postgresql`: a server of its own in a folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::free_port;

/// The password of the user `iot` with whom everything is done.
pub const PASSWORD: &str = "iot_dev";

/// A server that can be stopped and started again on the same port with the same data.
pub struct Postgres {
    pub port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

/// Debian keeps the server's programs out of the path, a folder a version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin").join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed; on Debian: apt-get install postgresql"))
}

/// The user that the server runs as: it refuses root.
fn unprivileged() -> Option<(u32, u32)> {
    // SAFETY: it only reads this process's user.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    // SAFETY: the name is a C string, and the answer is read before the next call.
    let entry = unsafe { libc::getpwnam(c"postgres".as_ptr()).as_ref() };
    Some(entry.map_or((65_534, 65_534), |entry| (entry.pw_uid, entry.pw_gid)))
}

fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Postgres {
    /// Makes a cluster with the database `iotcloud` of the user `iot`, and starts it.
    pub async fn start() -> Self {
        Self::start_with(|_| String::new()).await
    }

    /// Starts it with more configuration, which may name files that are made in its folder.
    pub async fn start_with(more: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        let more = more(folder.path());
        if let Some((user, group)) = unprivileged() {
            let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
            for path in entries.chain([folder.path().to_owned()]) {
                std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
            }
        }
        let data = folder.path().join("data");
        let made = command("initdb")
            .args(["--username=iot", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", folder.path().join("password").display()))
            .arg("-D")
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let port = free_port();
        let configuration = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n\
             max_connections = 60\nshared_buffers = 16MB\nlog_destination = 'stderr'\nlogging_collector = off\n{more}"
        );
        std::fs::write(data.join("postgresql.conf"), configuration).unwrap();
        let mut postgres = Self { port, folder, child: None };
        postgres.restart().await;
        postgres.run_in("postgres", "CREATE DATABASE iotcloud").await;
        postgres
    }

    pub fn url(&self) -> String {
        format!("postgres://iot:{PASSWORD}@127.0.0.1:{}/iotcloud", self.port)
    }

    /// Starts it again; stops it first if it runs.
    pub async fn restart(&mut self) {
        self.stop();
        let child = command("postgres").arg("-D").arg(self.folder.path().join("data")).spawn().unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.connect("postgres").await.is_err() {
            assert!(Instant::now() < deadline, "postgres does not answer");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Sends SIGQUIT: the server ends at once, and closes no connection properly.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SAFETY: kill(2) of a child that has not been waited for.
            unsafe { libc::kill(child.id() as i32, libc::SIGQUIT) };
            let _ = child.wait();
        }
    }

    async fn connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let url = format!("postgres://iot:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable", self.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection for a test's own statements.
    pub async fn client(&self) -> Client {
        self.connect("iotcloud").await.unwrap()
    }

    async fn run_in(&self, database: &str, statements: &str) {
        self.connect(database).await.unwrap().batch_execute(statements).await.unwrap();
    }

    pub async fn run(&self, statements: &str) {
        self.run_in("iotcloud", statements).await;
    }

    /// The rows of a query, each value as text.
    pub async fn ask(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.client().await.simple_query(query).await.unwrap();
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// The rows of a query as JSON objects.
    pub async fn ask_json(&self, query: &str) -> Vec<Value> {
        let rows = self.ask(&format!("SELECT to_jsonb(q) FROM ({query}) AS q")).await;
        rows.into_iter().map(|row| serde_json::from_str(row[0].as_deref().unwrap()).unwrap()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}
