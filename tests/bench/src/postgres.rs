//! A PostgreSQL of our own, from Debian's package, with the registry of a bench in it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::gateway::free_port;
use crate::load::Plan;

const PASSWORD: &str = "bench";

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
}

/// Debian keeps the server's programs out of the path, a folder a version.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut programs = versions.map(|version| version.path().join("bin").join(name));
    programs.find(|path| path.exists()).with_context(|| format!("{name} is not installed"))
}

/// The user that the server runs as: it refuses root.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    let number = |of: &str| -> Result<u32> {
        let id = Command::new("id").args([of, "postgres"]).output()?;
        Ok(String::from_utf8(id.stdout)?.trim().parse().unwrap_or(65_534))
    };
    let own = Command::new("id").arg("-u").output()?;
    if own.stdout.trim_ascii() != b"0" {
        return Ok(None);
    }
    Ok(Some((number("-u")?, number("-g")?)))
}

fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(program(name)?);
    if let Some((user, group)) = unprivileged()? {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

impl Postgres {
    /// Makes a cluster in `folder`, which must be one that every user may enter.
    pub fn start(folder: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let password = folder.join("password");
        fs::write(&password, PASSWORD)?;
        if let Some((user, group)) = unprivileged()? {
            for path in [folder, &password] {
                chown(path, Some(user), Some(group))?;
            }
        }
        let data = folder.join("data");
        let made = command("initdb")?
            .args(["--username=iot", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("-D")
            .arg(&data)
            .status()?;
        ensure!(made.success(), "initdb made no cluster in {}", data.display());
        let port = free_port()?;
        let configuration = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n\
             shared_buffers = 64MB\nlog_destination = 'stderr'\nlogging_collector = off\n"
        );
        fs::write(data.join("postgresql.conf"), configuration)?;
        let child = command("postgres")?.arg("-D").arg(&data).spawn().context("cannot start postgres")?;
        let postgres = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while postgres.run("SELECT 1").is_err() {
            if Instant::now() > deadline {
                bail!("postgres did not answer within 20 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(postgres)
    }

    pub fn url(&self) -> String {
        format!("postgres://iot:{PASSWORD}@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Runs statements; gives what they answer, without any dressing.
    pub fn run(&self, statements: &str) -> Result<String> {
        let psql = command("psql")?
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"])
            .arg(self.url())
            .args(["-c", statements])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()?;
        ensure!(psql.status.success(), "psql: {}", String::from_utf8_lossy(&psql.stderr));
        Ok(String::from_utf8(psql.stdout)?.trim().to_owned())
    }

    /// Puts the devices of a plan into the registry, whose tables are there.
    pub fn register(&self, plan: &Plan) -> Result<()> {
        let (name, tenants, last) = (plan.name, plan.tenants, plan.devices - 1);
        self.run(&format!(
            "TRUNCATE device_registry; \
             INSERT INTO device_registry (tenant_id, device_id, site_id, status, provision_token_hash) \
             SELECT '{name}' || lpad((n % {tenants})::text, 3, '0'), d, 'lab-1', 'ACTIVE', \
                    encode(sha256(convert_to('tok-' || d, 'UTF8')), 'hex') \
             FROM (SELECT n, 'dev-' || lpad(n::text, 5, '0') AS d FROM generate_series(0, {last}) AS n) AS all_devices"
        ))?;
        self.run("ANALYZE device_registry").map(drop)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children end with it, and nothing of it is wanted any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
