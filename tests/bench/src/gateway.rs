//! The gateway under load: the release binary in a folder of its own, watched from outside.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::load::Plan;

/// The resources that the gateway has used since it started.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// CPU by thread name, without the number at its end.
    pub threads: Vec<(String, Duration)>,
    pub resident_bytes: u64,
}

impl Usage {
    pub fn since(&self, earlier: &Usage) -> Usage {
        let before = |name: &str| {
            earlier.threads.iter().find(|(other, _)| other == name).map_or(Duration::ZERO, |(_, cpu)| *cpu)
        };
        Usage {
            cpu: self.cpu - earlier.cpu,
            threads: self
                .threads
                .iter()
                .map(|(name, cpu)| (name.clone(), cpu.saturating_sub(before(name))))
                .collect(),
            resident_bytes: self.resident_bytes,
        }
    }
}

/// Resident bytes of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident: f64,
    /// The highest since the start, or since `forget_peak`.
    pub peak: f64,
}

/// A gateway that runs until it is dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    pub listener: String,
    pub folder: PathBuf,
    admin: String,
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The source of the gateway's messages.
pub enum From<'a> {
    Listener,
    Broker(&'a str),
}

impl Gateway {
    /// Starts `binary` for the devices of `plans`, with lines going to `sink` and `more` sections.
    pub fn start(
        binary: &Path,
        guests: &Path,
        folder: &Path,
        plans: &[&Plan],
        sink: &str,
        from: &From<'_>,
        more: &str,
    ) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder.join("guests/_default"))?;
        fs::copy(guests.join("pulse.wasm"), folder.join("guests/_default/telemetry.wasm"))
            .context("cargo xtask guests builds it")?;
        let mut devices = String::from("tenant_id,device_id,site_id,status,provision_token_hash\n");
        for plan in plans {
            for device in 0..plan.devices {
                let hash = tidegate::admission::registry::token_hash(&plan.token(device));
                let (tenant, device) = (plan.tenant_of(device), plan.device_name(device));
                devices.push_str(&format!("{tenant},{device},lab-1,ACTIVE,{hash}\n"));
            }
        }
        fs::write(folder.join("devices.csv"), devices)?;
        let listener = format!("127.0.0.1:{}", free_port()?);
        let admin = format!("127.0.0.1:{}", free_port()?);
        let (broker, listen) = match from {
            From::Listener => ("", listener.as_str()),
            From::Broker(url) => (*url, ""),
        };
        let configuration = format!(
            "[mqtt]\nurl = \"{broker}\"\n[listen]\naddress = \"{listen}\"\n[admission]\nrate_per_s = 0\n\
             [output]\nurl = \"{sink}\"\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"warn\"\n{more}"
        );
        fs::write(folder.join("tidegate.toml"), configuration)?;
        let child = spawn(binary, folder)?;
        let mut gateway = Self { child, listener, admin, folder: folder.to_owned() };
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// Kills it and starts it again; gives the time until it was ready.
    pub fn kill_and_restart(&mut self, binary: &Path) -> Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let started = Instant::now();
        self.child = spawn(binary, &self.folder)?;
        self.wait_until_ready()?;
        Ok(started.elapsed())
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start_matches("{}").trim().parse().ok());
        value.with_context(|| format!("no metric {name}"))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("tidegate.log"))?;
                bail!("the gateway ended with {status}:\n{log}");
            }
            if self.get("/readyz").is_ok_and(|answer| answer.contains(" 200 ")) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the gateway was not ready within 120 s")
    }

    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The resources that the process has used, from /proc (proc_pid_stat(5), schedstat).
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.child.id();
        let mut usage = Usage::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            let (Ok(name), Ok(schedstat)) =
                (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
            else {
                continue;
            };
            let nanoseconds = schedstat.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
            let cpu = Duration::from_nanos(nanoseconds);
            usage.cpu += cpu;
            let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
            match usage.threads.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum += cpu,
                None => usage.threads.push((name, cpu)),
            }
        }
        usage.resident_bytes = self.memory()?.peak as u64;
        Ok(usage)
    }

    /// Its resident memory.
    pub fn memory(&self) -> Result<Memory> {
        memory_of(&self.child.id().to_string())
    }

    /// Lets the highest resident memory count from now on (proc_pid_clear_refs(5)).
    pub fn forget_peak(&self) -> Result<()> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }
}

/// Resident memory of a process (proc_pid_status(5)).
pub fn memory_of(pid: &str) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no line of memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    };
    Ok(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

fn spawn(binary: &Path, folder: &Path) -> Result<Child> {
    let log = fs::File::create(folder.join("tidegate.log"))?;
    let child = Command::new(binary).arg("run").current_dir(folder).stderr(log).spawn();
    child.with_context(|| format!("cannot start {}", binary.display()))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
