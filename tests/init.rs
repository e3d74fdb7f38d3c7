//! `tidegate init`: a folder with which a gateway runs, as a newcomer would use it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rumqttc::ConnectReturnCode;
use rumqttc::mqttbytes::v4::Login;

use crate::harness::free_port;
use crate::harness::gateway::tidegate;
use crate::harness::mosquitto;
use crate::harness::mqtt_client::MqttClient;

const TOPIC: &str = "tenant/acme/device/dev-1/telemetry";

fn init(folder: &Path, more: &[&str]) -> Output {
    tidegate().arg("init").arg(folder).args(more).output().unwrap()
}

/// A folder that `tidegate init` made, and what it printed.
struct NewGateway {
    _around: tempfile::TempDir,
    folder: PathBuf,
    said: String,
}

impl NewGateway {
    fn make(more: &[&str]) -> Self {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("gate way");
        let output = init(&folder, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { _around: around, folder, said: String::from_utf8(output.stdout).unwrap() }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.folder.join(name)).unwrap().permissions().mode() & 0o777
    }

    /// The device's token, on a line of its own.
    fn token(&self) -> String {
        let is_token = |line: &&str| line.len() == 48 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.said.lines().map(str::trim).find(is_token).expect(&self.said).to_owned()
    }

    fn verb(&self, arguments: &[&str]) -> Output {
        tidegate().args(arguments).current_dir(&self.folder).output().unwrap()
    }

    /// Runs the gateway with these addresses in place of those in the file.
    fn run(&self, addresses: &[(&str, String)]) -> Gateway {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = tidegate();
        command
            .arg("run")
            .current_dir(&self.folder)
            .stderr(log)
            .envs(addresses.iter().map(|(name, value)| (*name, value)));
        command.env("TIDEGATE_ADMIN__LISTEN", format!("127.0.0.1:{}", free_port()));
        Gateway { child: command.spawn().unwrap() }
    }

    /// Waits for the first line in a file of the output.
    fn wait_for_line(&self) -> String {
        let folder = self.folder.join("lines/telemetry_acme");
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let files = fs::read_dir(&folder).into_iter().flatten().flatten();
            let text: String = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
            if text.ends_with('\n') {
                return text;
            }
            assert!(Instant::now() < deadline, "no line\n{}", self.read("log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A running process of a test; killed when it is dropped.
struct Gateway {
    child: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries to connect until somebody listens.
fn connect(port: u16, log: &dyn Fn() -> String) -> MqttClient {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + Duration::from_secs(90);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {address}\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    MqttClient::open(address)
}

fn greet(client: &mut MqttClient, user: &str, password: &str) -> ConnectReturnCode {
    client.greet("dev", true, 60, Some(Login::new(user, password))).unwrap().code
}

#[test]
fn a_new_folder_runs_and_a_message_of_its_device_becomes_a_line() {
    let new = NewGateway::make(&[]);
    assert_eq!(new.mode("admin.token"), 0o600);
    assert!(new.read("admin.token").trim().len() >= 32);
    let token = new.token();
    assert!(!new.read("devices.csv").contains(&token), "only the hash is kept");
    let cases = new.verb(&["test", "guests"]);
    assert!(cases.status.success(), "{}", String::from_utf8_lossy(&cases.stderr));
    let good = new.verb(&["validate"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let words = String::from_utf8_lossy(&good.stderr).into_owned();
    // On a busy machine it says that it compiles.
    let of_configuration: Vec<&str> = words.lines().filter(|line| !line.contains("compil")).collect();
    assert!(of_configuration.is_empty(), "nothing to say about a new configuration: {words}");

    let port = free_port();
    let _gateway = new.run(&[("TIDEGATE_LISTEN__ADDRESS", format!("127.0.0.1:{port}"))]);
    let mut device = connect(port, &|| new.read("log"));
    assert_eq!(greet(&mut device, "acme/dev-1", &token), ConnectReturnCode::Success);
    device.publish_all([(TOPIC.to_owned(), b"{\"temp\":21.5}".to_vec())]);
    let line = new.wait_for_line();
    assert!(line.starts_with("telemetry,device_id=dev-1,site_id=lab temp=21.5 "), "{line}");
    assert!(new.said.contains("tidegate run") && new.said.contains("mosquitto_pub"), "{}", new.said);
}

#[test]
fn a_new_folder_with_a_broker_runs_and_the_broker_lets_nobody_in_without_a_password() {
    let new = NewGateway::make(&["--broker"]);
    let port = free_port();
    let file = new.folder.join("mosquitto/mosquitto.conf");
    let configuration = fs::read_to_string(&file).unwrap();
    let listener = configuration.lines().find(|line| line.starts_with("listener ")).unwrap();
    fs::write(&file, configuration.replace(listener, &format!("listener {port} 127.0.0.1"))).unwrap();
    for secret in ["admin.token", "mosquitto/passwd", "mosquitto/tidegate.password"] {
        assert_eq!(new.mode(secret), 0o600, "{secret}");
    }
    let log = || fs::read_to_string(new.folder.join("broker.log")).unwrap_or_default();
    let output = fs::File::create(new.folder.join("broker.log")).unwrap();
    let mut broker = Command::new(mosquitto::program());
    broker.arg("-c").arg(&file).stdin(Stdio::null()).stderr(output);
    let _broker = Gateway { child: broker.spawn().unwrap() };
    let mut nobody = connect(port, &log);
    let refused = nobody.greet("stranger", true, 60, None).unwrap().code;
    assert_eq!(refused, ConnectReturnCode::NotAuthorized, "{}", log());
    let wrong = greet(&mut connect(port, &log), "dev-1", "wrong");
    assert_ne!(wrong, ConnectReturnCode::Success);

    let _gateway = new.run(&[("TIDEGATE_MQTT__URL", format!("mqtt://127.0.0.1:{port}"))]);
    let mut device = connect(port, &log);
    assert_eq!(greet(&mut device, "dev-1", &new.token()), ConnectReturnCode::Success, "{}", log());
    // Published again until the gateway has its subscription: before, nobody waits for a message.
    let deadline = Instant::now() + Duration::from_secs(90);
    let folder = new.folder.join("lines/telemetry_acme");
    while fs::read_dir(&folder).is_err() {
        assert!(Instant::now() < deadline, "no line\n{}\n{}", new.read("log"), log());
        device.publish_all([(TOPIC.to_owned(), b"{\"temp\":21.5}".to_vec())]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(new.wait_for_line().starts_with("telemetry,device_id=dev-1,site_id=lab temp=21.5 "));
}

#[test]
fn a_folder_with_files_is_not_touched() {
    let around = tempfile::tempdir().unwrap();
    fs::write(around.path().join("mine"), "mine").unwrap();
    for (path, word) in [(around.path().to_owned(), "has files"), (around.path().join("mine"), "a folder")] {
        let output = init(&path, &[]);
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(word), "{errors}");
    }
    assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1);
}
