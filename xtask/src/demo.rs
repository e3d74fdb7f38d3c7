//! `cargo xtask demo`: the gateway with a simulated fleet, shown so that a newcomer understands it.

mod devices;
mod screen;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, Running};
use crate::{console, guests};
use screen::Snapshot;

/// Runs the demo until Ctrl-C, or for `--for 10s`.
///
/// # Errors
/// With `--for`: the books do not balance, too few lines came out, no refusal was seen, or the
/// tenant's own decoder did not serve.
pub fn demo(arguments: &[String]) -> Result<()> {
    let duration = match arguments {
        [] => None,
        [flag, value] if flag == "--for" => Some(process::parse_duration(value)?),
        _ => bail!("usage: cargo xtask demo [--for 10s]"),
    };
    let (scene, mut gateway) = start()?;
    scene.introduce();

    let sending = devices::start(&scene.listener, &devices::fleet());
    let started = Instant::now();
    let mut last = Snapshot::take(&scene.admin)?;
    loop {
        std::thread::sleep(Duration::from_secs(2).min(duration.unwrap_or(Duration::MAX)));
        gateway.still_runs().context("see tidegate.log in the folder of the demo")?;
        let now = Snapshot::take(&scene.admin)?;
        now.show(&last, started.elapsed());
        last = now;
        if duration.is_some_and(|duration| started.elapsed() >= duration) {
            break;
        }
    }
    let acknowledged = sending.stop()?;
    let settled = scene.wait_until_settled()?;
    gateway.stop(Duration::from_secs(30))?;
    scene.verdict(&settled, acknowledged)
}

/// Runs something beside the demo's gateway, once its devices have sent for some time. It gets the address of the admin
/// side and the operator's token.
///
/// # Errors
/// The demo does not start, or what runs fails.
pub fn with_fleet(after: Duration, run: impl FnOnce(&str, &str) -> Result<()>) -> Result<()> {
    let (scene, gateway) = start()?;
    let sending = devices::start(&scene.listener, &devices::fleet());
    println!("devices send for {} s", after.as_secs());
    std::thread::sleep(after);
    let done = run(&scene.admin, screen::TOKEN);
    sending.stop()?;
    gateway.stop(Duration::from_secs(30))?;
    done
}

/// Builds everything that the demo needs, and starts its gateway.
fn start() -> Result<(Scene, Running)> {
    process::step(1, 3, "building the decoders (the first time: a minute)");
    let built = guests::build_all()?;
    // The demo works without it.
    if let Err(why) = console::build() {
        println!("The console is not built: {why:#}");
    }
    process::step(
        2,
        3,
        "building the gateway (the first time: 3 to 5 minutes on two cores; cargo counts the crates)",
    );
    let mut build = process::cargo();
    process::run(build.args(["build", "-p", "tidegate", "--bin", "tidegate"]))?;
    let binary = process::root().join("target/debug/tidegate");

    process::step(3, 3, "starting the gateway, its devices, and an output of files");
    let scene = Scene::lay_out(&built, &binary)?;
    let mut gateway = Running::start(
        "tidegate",
        Command::new(&binary)
            .args(["run", "--config", "tidegate.toml"])
            .current_dir(&scene.folder)
            .stderr(fs::File::create(scene.folder.join("tidegate.log"))?),
    )?;
    scene.wait_until_ready(&mut gateway)?;
    Ok((scene, gateway))
}

/// The demo's folder and addresses.
struct Scene {
    folder: PathBuf,
    listener: String,
    admin: String,
}

impl Scene {
    /// Writes configuration, guests and devices into a fresh folder under target/.
    fn lay_out(built: &Path, binary: &Path) -> Result<Self> {
        let folder = process::root().join("target/demo");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("guests/_default"))?;
        fs::create_dir_all(folder.join("guests/riverside"))?;
        fs::copy(built.join("pulse.wasm"), folder.join("guests/_default/telemetry.wasm"))?;
        fs::copy(built.join("pulse.wasm"), folder.join("guests/_default/heartbeat.wasm"))?;
        fs::copy(built.join("pump.wasm"), folder.join("guests/riverside/pump.wasm"))?;
        let scene = Self {
            listener: format!("127.0.0.1:{}", process::free_port()?),
            admin: format!("127.0.0.1:{}", process::free_port()?),
            folder,
        };
        fs::write(scene.folder.join("tidegate.toml"), scene.configuration())?;
        let token = scene.folder.join("admin.token");
        fs::write(&token, format!("{}\n", screen::TOKEN))?;
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
        for spec in devices::fleet() {
            let mut device = Command::new(binary)
                .args(["device", "put", spec.tenant, &spec.device, "--site", spec.site])
                .current_dir(&scene.folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            device.stdin.take().expect("piped").write_all(spec.token().as_bytes())?;
            ensure!(device.wait()?.success(), "tidegate device put failed for {}", spec.device);
        }
        Ok(scene)
    }

    fn configuration(&self) -> String {
        format!(
            r#"# The demo's configuration: everything that is not named here is at its default.
data_dir = "data"

[mqtt]
url = ""                       # no broker: devices connect to the listener

[listen]
address = "{}"

[registry]
file = "devices.csv"

[admission]
rate_per_s = 100               # a device; the default is 5

[output]
kind = "file"
path = "lines"

[admin]
listen = "{}"
token_file = "admin.token"
"#,
            self.listener, self.admin
        )
    }

    fn wait_until_ready(&self, gateway: &mut Running) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            gateway.still_runs().with_context(|| self.log_tail())?;
            if screen::get(&self.admin, "/readyz").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the gateway was not ready within 30 s\n{}", self.log_tail())
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.join("tidegate.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn introduce(&self) {
        println!(
            "Tidegate listens on {} (MQTT). Three tenants are connected:\n\
             \x20 brewery    4 tanks   JSON, decoded by the stock decoder   guests/_default/telemetry.wasm\n\
             \x20 cityworks  4 meters  the same, and one broken device that sends rubbish\n\
             \x20 riverside  4 pumps   a format of its own, decoded by its own   guests/riverside/pump.wasm\n\
             Folder: {}\n\
             Console: http://{}/   Books: http://{}/api/v1/books   Metrics: http://{}/metrics\n\
             Token of the operator, for the console: {}\n",
            self.listener,
            self.folder.display(),
            self.admin,
            self.admin,
            self.admin,
            screen::TOKEN,
        );
    }

    /// Waits until nothing is in flight and no line is pending.
    fn wait_until_settled(&self) -> Result<Snapshot> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let snapshot = Snapshot::take(&self.admin)?;
            if snapshot.in_flight() == 0 && snapshot.pending() == 0 {
                return Ok(snapshot);
            }
            ensure!(
                Instant::now() < deadline,
                "messages are still in flight after 15 s:\n{}",
                snapshot.books
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Compares the books with the files.
    fn verdict(&self, settled: &Snapshot, acknowledged: u64) -> Result<()> {
        let in_files = count_lines(&self.folder.join("lines"))?;
        println!(
            "\nStopped. The gateway acknowledged {acknowledged} messages. There are {in_files} lines in {}",
            self.folder.join("lines").display()
        );
        ensure!(settled.balanced(), "the books do not balance:\n{}", settled.books);
        ensure!(settled.received() == acknowledged, "the gateway received {} messages", settled.received());
        ensure!(settled.written() == in_files, "the gateway counted {} written lines", settled.written());
        ensure!(in_files >= 1000, "fewer than 1,000 lines: run the demo longer");
        ensure!(settled.quarantined() > 0, "no message was refused");
        let own =
            settled.own_decoder("riverside", "pump").context("riverside's own decoder did not serve")?;
        ensure!(own > 0, "riverside's own decoder made no lines");
        println!("The books balance, and the files contain exactly the lines that the books count.");
        Ok(())
    }
}

fn count_lines(folder: &Path) -> Result<u64> {
    let mut lines = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        lines += if path.is_dir() {
            count_lines(&path)?
        } else {
            fs::read(&path)?.iter().filter(|&&byte| byte == b'\n').count() as u64
        };
    }
    Ok(lines)
}
