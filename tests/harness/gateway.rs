//! The built `tidegate` in a folder of its own, driven from outside as an operator would.

use std::fs;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::faults::Faults;
use super::free_port;

/// The folder that `cargo xtask guests` builds into.
pub fn built_guest(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target");
    let path = [target.join("guests"), target.join("test-guests")]
        .into_iter()
        .map(|folder| folder.join(format!("{name}.wasm")))
        .find(|path| path.exists());
    path.unwrap_or_else(|| panic!("the guest {name} is not built: run cargo xtask test"))
}

/// A component that does the same and has another digest: a custom section more.
pub fn variant(component: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = component.to_vec();
    let text = format!("variant-{name}");
    bytes.extend([0, text.len() as u8 + 1, text.len() as u8]);
    bytes.extend(text.as_bytes());
    bytes
}

/// The program under test.
pub fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A folder with configuration, guests and devices; the gateway can be started in it, stopped,
/// killed and started again.
pub struct GatewayDir {
    folder: TempDir,
    pub listener: String,
    pub admin: String,
    devices: String,
    /// The operator's token, if one is set: every request has it.
    token: Option<String>,
}

impl GatewayDir {
    /// A gateway with the listener, no broker, the stock guests, and lines going to files.
    pub fn new() -> Self {
        let scene = Self {
            folder: TempDir::new().unwrap(),
            listener: format!("127.0.0.1:{}", free_port()),
            admin: format!("127.0.0.1:{}", free_port()),
            devices: "tenant_id,device_id,site_id,status,provision_token_hash\n".into(),
            token: None,
        };
        scene.guest("_default", "telemetry", "pulse");
        scene.guest("_default", "heartbeat", "pulse");
        fs::write(scene.path("devices.csv"), &scene.devices).unwrap();
        scene.configure("[output]\nkind = \"file\"\n");
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Copies the built guest `name` into the routing folder.
    pub fn guest(&self, tenant: &str, message_type: &str, name: &str) {
        let folder = self.path("guests").join(tenant);
        fs::create_dir_all(&folder).unwrap();
        let staged = folder.join(".staged");
        fs::copy(built_guest(name), &staged).unwrap();
        fs::rename(staged, folder.join(format!("{message_type}.wasm"))).unwrap();
    }

    /// Registers a device whose token is `tok-{device}`.
    pub fn device(&mut self, tenant: &str, device: &str, site: &str) {
        let hash = tidegate::admission::registry::token_hash(&format!("tok-{device}"));
        self.devices.push_str(&format!("{tenant},{device},{site},ACTIVE,{hash}\n"));
        fs::write(self.path("devices.csv"), &self.devices).unwrap();
    }

    /// Writes the configuration: this folder's addresses, then `more`.
    pub fn configure(&self, more: &str) {
        self.configure_admin(more, "");
    }

    /// Does as `configure`, with more keys for the admin side.
    pub fn configure_admin(&self, more: &str, admin: &str) {
        let listen = format!("[mqtt]\nurl = \"\"\n[listen]\naddress = \"{}\"\n{more}", self.listener);
        self.configure_all(&listen, admin);
    }

    /// Sets the template of topics; to be called after `configure`.
    pub fn set_topic(&self, template: &str) {
        let path = self.path("tidegate.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replacen("[mqtt]\n", &format!("[mqtt]\ntopic = \"{template}\"\n"), 1)).unwrap();
    }

    /// Writes the configuration with a broker in place of the listener.
    pub fn configure_broker(&self, url: &str, more: &str) {
        self.configure_all(&format!("[mqtt]\nurl = \"{url}\"\n{more}"), "");
    }

    /// Writes the configuration with a broker beside the listener.
    pub fn configure_both(&self, url: &str, more: &str) {
        let listener = &self.listener;
        self.configure_all(
            &format!("[mqtt]\nurl = \"{url}\"\n[listen]\naddress = \"{listener}\"\n{more}"),
            "",
        );
    }

    fn configure_all(&self, text: &str, admin: &str) {
        let text = format!("data_dir = \"data\"\n{text}\n[admin]\nlisten = \"{}\"\n{admin}", self.admin);
        fs::write(self.path("tidegate.toml"), text).unwrap();
    }

    /// Sets the operator's token, for the gateway, its verbs and the tests' requests; to be
    /// called after `configure`.
    pub fn set_token(&mut self, token: &str) {
        fs::write(self.path("admin.token"), format!("{token}\n")).unwrap();
        fs::set_permissions(self.path("admin.token"), Permissions::from_mode(0o600)).unwrap();
        let path = self.path("tidegate.toml");
        let text = fs::read_to_string(&path).unwrap();
        // The file ends in its [admin] section.
        fs::write(path, format!("{text}token_file = \"admin.token\"\n")).unwrap();
        self.token = Some(token.into());
    }

    /// Runs a verb to its end in this folder, with `input` on stdin.
    pub fn verb(&self, arguments: &[&str], input: &str) -> (ExitStatus, String, String) {
        let mut child = tidegate()
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writing = std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// Starts the gateway and waits until it is ready.
    pub fn start(&self) -> Gateway<'_> {
        let gateway = self.start_unready();
        gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
        gateway
    }

    /// Starts the gateway as a shell would that allows so many open files (`ulimit -Sn`).
    pub fn start_with_open_files(&self, open_files: u32) -> Gateway<'_> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -Sn {open_files} && exec \"$0\" run")]);
        shell.arg(tidegate().get_program());
        let gateway = self.start_by(shell);
        gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
        gateway
    }

    /// Starts the gateway on a disk that fails on command, and waits until it is ready.
    pub fn start_with(&self, faults: &Faults) -> Gateway<'_> {
        let gateway = self.start_unready_with(faults);
        gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
        gateway
    }

    /// Does as `start_with`, and waits until it answers at all.
    pub fn start_unready_with(&self, faults: &Faults) -> Gateway<'_> {
        let mut command = tidegate();
        command.arg("run").envs(faults.environment());
        self.start_by(command)
    }

    /// Starts the gateway by another program that runs it, and waits until it answers at all.
    pub fn start_unready_by(&self, command: Command) -> Gateway<'_> {
        self.start_by(command)
    }

    /// Starts the gateway and waits until it answers at all.
    pub fn start_unready(&self) -> Gateway<'_> {
        let mut command = tidegate();
        command.arg("run");
        self.start_by(command)
    }

    fn start_by(&self, mut command: Command) -> Gateway<'_> {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("tidegate.log")).unwrap();
        let child = command.current_dir(self.folder.path()).stderr(log).spawn().unwrap();
        let mut gateway = Gateway { child, scene: self };
        // It answers only after its guests are compiled, which takes long on a busy machine.
        let deadline = Instant::now() + Duration::from_secs(90);
        while gateway.get("/healthz").0 != 200 {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("ended at its start: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "does not answer\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("tidegate.log")).unwrap_or_default()
    }

    /// Every line in the file output of one database, in order of the files. If the gateway runs, waits
    /// until all acknowledged lines are written.
    pub fn lines(&self, database: &str) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let (200, metrics) = ask(&self.admin, "GET", "/metrics", None, &[]) {
            let pending = metrics.lines().filter(|line| line.starts_with("tidegate_lines_pending{"));
            if pending.clone().all(|line| line.ends_with(" 0")) {
                break;
            }
            let pending: Vec<&str> = pending.collect();
            assert!(Instant::now() < deadline, "still to be written: {pending:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let folder = self.path("lines").join(database);
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

/// Status and body of a GET of an admin side, wherever its gateway is; status 0 if nobody answers.
pub fn get(admin: &str, path: &str) -> (u16, String) {
    ask(admin, "GET", path, None, &[])
}

/// One request to an admin side; status 0 if nobody answers.
fn ask(admin: &str, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(admin) else { return (0, String::new()) };
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // Who is refused at the head may not have its body read.
    let sent = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    if sent.is_err() {
        return (0, String::new());
    }
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, String::new()) };
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A running gateway; killed when it is dropped.
pub struct Gateway<'a> {
    child: Child,
    scene: &'a GatewayDir,
}

impl Gateway<'_> {
    /// Status and body of a GET; status 0 when nobody answers.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.get_with_token(path, self.scene.token.as_deref())
    }

    pub fn get_with_token(&self, path: &str, token: Option<&str>) -> (u16, String) {
        self.request("GET", path, token, &[])
    }

    /// Status and body of any request; status 0 when nobody answers.
    pub fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        self.request(method, path, token, body.as_bytes())
    }

    /// The same as `ask`, with any bytes as body.
    pub fn request(&self, method: &str, path: &str, token: Option<&str>, body: &[u8]) -> (u16, String) {
        ask(&self.scene.admin, method, path, token, body)
    }

    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// One number of one tenant's books; 0 if the tenant has none.
    pub fn book(&self, tenant: &str, section: &str, key: &str) -> u64 {
        self.json("/api/v1/books")["tenants"][tenant][section][key].as_u64().unwrap_or(0)
    }

    /// The value of a metric, by its whole name with labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Waits until `lines` lines of a tenant are written, counted over all runs.
    pub fn wait_written(&self, tenant: &str, lines: u64) {
        self.wait(&format!("{lines} lines of {tenant} written"), |gateway| {
            gateway.book(tenant, "lines", "written") == lines
        });
    }

    pub fn assert_balanced(&self) {
        let books = self.json("/api/v1/books");
        assert_eq!(books["balanced"], true, "{books:#}");
    }

    /// Waits until `condition` is true.
    pub fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.wait_for(Duration::from_secs(30), what, condition);
    }

    pub fn wait_for(&self, patience: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !condition(self) {
            if Instant::now() > deadline {
                let (_, books) = self.get("/api/v1/books");
                let (_, ready) = self.get("/readyz");
                panic!("not {what} within {patience:?}\n{books}\n{ready}\n{}", self.scene.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL, as a power cut ends a process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM; gives the exit status.
    pub fn stop(mut self) -> ExitStatus {
        // SAFETY: kill(2) of a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "no end within 40 s of SIGTERM\n{}", self.scene.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
