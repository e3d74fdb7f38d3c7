//! The gateway under load: the release binary in a folder of its own, watched from outside.

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::Paths;
use crate::load::Plan;
use crate::sink::Sink;

/// The resources that the gateway has used since it started.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// CPU by thread name, without the number at its end.
    pub threads: Vec<(String, Duration)>,
    /// Times that a thread had nothing to do, or waited for another one (proc_pid_status(5)).
    pub waits: u64,
    pub resident_bytes: u64,
}

impl Usage {
    /// The resources of a process, from /proc (proc_pid_stat(5), schedstat).
    pub fn of(pid: u32) -> Result<Self> {
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
            usage.waits += number_of(&path.join("status"), "voluntary_ctxt_switches:").unwrap_or(0);
            let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
            match usage.threads.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum += cpu,
                None => usage.threads.push((name, cpu)),
            }
        }
        let peak = number_of(Path::new(&format!("/proc/{pid}/status")), "VmHWM:");
        usage.resident_bytes = peak.unwrap_or(0) * 1024;
        Ok(usage)
    }

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
            waits: self.waits.saturating_sub(earlier.waits),
            resident_bytes: self.resident_bytes,
        }
    }
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
pub enum Source<'a> {
    Listener,
    Broker(&'a str),
}

/// A gateway's program, folder, devices and configuration: this build behind its listener, unless
/// a field says otherwise.
pub struct Setup<'a> {
    pub binary: &'a Path,
    pub guests: &'a Path,
    pub folder: PathBuf,
    /// The loads whose devices are in its file; none for a registry elsewhere.
    pub plans: &'a [&'a Plan],
    pub sink: &'a str,
    pub source: Source<'a>,
    /// More keys of `[output]`.
    pub output: &'a str,
    /// More sections.
    pub more: &'a str,
    /// The route file of the decoder of all tenants; empty: none.
    pub route_file: &'a str,
}

impl<'a> Setup<'a> {
    /// A gateway in the folder `name`, for the devices of `plans`, with lines going to `sink`.
    pub fn new(paths: &'a Paths, name: &str, plans: &'a [&'a Plan], sink: &'a Sink) -> Self {
        Self {
            binary: &paths.binary,
            guests: &paths.guests,
            folder: paths.scratch.join(name),
            plans,
            sink: &sink.url,
            source: Source::Listener,
            output: "",
            more: "",
            route_file: "",
        }
    }

    /// Makes the folder: decoder, devices, configuration. Gives the addresses of the listener and the
    /// admin side.
    fn write(&self) -> Result<(String, String)> {
        let _ = fs::remove_dir_all(&self.folder);
        let decoders = self.folder.join("guests/_default");
        fs::create_dir_all(&decoders)?;
        if !self.route_file.is_empty() {
            fs::write(decoders.join("telemetry.toml"), self.route_file)?;
        }
        fs::copy(self.decoder(), decoders.join("telemetry.wasm")).context("cargo xtask guests builds it")?;
        self.write_devices()?;
        let listener = format!("127.0.0.1:{}", free_port()?);
        let admin = format!("127.0.0.1:{}", free_port()?);
        let (broker, listen) = match self.source {
            Source::Listener => ("", listener.as_str()),
            Source::Broker(url) => (url, ""),
        };
        let Self { sink, output, more, .. } = self;
        let configuration = format!(
            "[mqtt]\nurl = \"{broker}\"\n[listen]\naddress = \"{listen}\"\n[admission]\nrate_per_s = 0\n\
             [output]\nurl = \"{sink}\"\n{output}[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"warn\"\n{more}"
        );
        fs::write(self.folder.join("tidegate.toml"), configuration)?;
        Ok((listener, admin))
    }

    /// The decoder that was built with the program. Another build may not have the interface of this one's.
    fn decoder(&self) -> PathBuf {
        let target = self.binary.parent().and_then(Path::parent);
        let beside = target.map(|target| target.join("guests/pulse.wasm"));
        beside.filter(|path| path.is_file()).unwrap_or_else(|| self.guests.join("pulse.wasm"))
    }

    fn write_devices(&self) -> Result<()> {
        let mut file = BufWriter::new(fs::File::create(self.folder.join("devices.csv"))?);
        writeln!(file, "tenant_id,device_id,site_id,status,provision_token_hash")?;
        for plan in self.plans {
            for device in 0..plan.devices {
                let hash = tidegate::admission::registry::token_hash(&plan.token(device));
                let (tenant, device) = (plan.tenant_of(device), plan.device_name(device));
                writeln!(file, "{tenant},{device},lab-1,ACTIVE,{hash}")?;
            }
        }
        file.flush()?;
        Ok(())
    }
}

impl Gateway {
    /// Starts a gateway, and waits until it is ready.
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let (listener, admin) = setup.write()?;
        let child = spawn(setup.binary, &setup.folder)?;
        let mut gateway = Self { child, listener, admin, folder: setup.folder.clone() };
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

    /// Bytes of the process that are resident now.
    pub fn resident(&self) -> Result<f64> {
        resident_of(&self.child.id().to_string())
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
        let deadline = Instant::now() + Duration::from_secs(30);
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
        bail!("the gateway was not ready within 30 s")
    }

    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }
}

/// Bytes of a process that are resident (proc_pid_status(5)).
pub fn resident_of(pid: &str) -> Result<f64> {
    let kilobytes = number_of(Path::new(&format!("/proc/{pid}/status")), "VmRSS:").context("VmRSS")?;
    Ok(kilobytes as f64 * 1024.0)
}

/// The number of a line of a status file; nothing once its process or thread is gone.
fn number_of(status: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches(" kB").parse().ok()
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
