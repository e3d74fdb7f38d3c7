//! `tidegate init`: a folder with all that a gateway needs, to start with.

mod folder;
mod mosquitto;
mod secret;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use crate::admission::registry::file;
use crate::admission::registry::file::DeviceRecord;
use crate::admission::registry::token_hash;
use crate::cli::Exit;
use crate::cli::init::folder::NewFolder;
use crate::cli::init::mosquitto::MosquittoFiles;
use crate::cli::init::secret::random_token;
use crate::core::detail::printable;
use crate::rollout::builtin;

/// Make a folder with which a gateway can start: configuration, token, decoder and one device
///
/// Lines go to files, so that nothing else is needed. The folder also has a configuration of Mosquitto.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate init gateway\n  tidegate init gateway --broker")]
pub struct Arguments {
    /// The folder; it is made, or is empty
    dir: PathBuf,
    /// Devices publish to a Mosquitto, with the configuration in the folder, and not to the gateway itself
    #[arg(long)]
    broker: bool,
}

const CONFIGURATION: &str = include_str!("init/template/tidegate.toml.txt");

const LISTENER: &str = include_str!("init/template/listener.toml.txt");

const BROKER: &str = include_str!("init/template/broker.toml.txt");

const CASES: &str = include_str!("init/template/telemetry.cases.jsonl");

const TENANT: &str = "acme";

const DEVICE: &str = "dev-1";

const SITE: &str = "lab";

pub fn init(arguments: &Arguments) -> anyhow::Result<Exit> {
    let folder = NewFolder::create(&arguments.dir)?;
    let ports = Ports::free(arguments.broker);
    let shown = folder.path().display().to_string();
    let fill = |template: &str| {
        template
            .replace("{folder}", &shown)
            .replace("{listen_port}", &ports.listen.to_string())
            .replace("{broker_port}", &ports.broker.to_string())
            .replace("{admin_port}", &ports.admin.to_string())
    };
    let source = fill(if arguments.broker { BROKER } else { LISTENER });
    folder.file("tidegate.toml", fill(&CONFIGURATION.replace("{source}", &source)).as_bytes())?;
    folder.secret("admin.token", &random_token()?)?;
    let decoder = builtin::find("json").expect("it comes with the program").component;
    folder.file("guests/_default/telemetry.wasm", decoder)?;
    folder.file("guests/_default/telemetry.cases.jsonl", CASES.as_bytes())?;
    let token = random_token()?;
    let device = DeviceRecord {
        tenant_id: TENANT.into(),
        device_id: DEVICE.into(),
        site_id: SITE.into(),
        status: "ACTIVE".into(),
        provision_token_hash: Some(token_hash(&token)),
    };
    file::write(&folder.path().join("devices.csv"), &[device])?;
    let users = [("tidegate", &random_token()?), (DEVICE, &token)];
    MosquittoFiles { users: &users, fill: &fill }.write(&folder)?;
    say(&shown, &ports, arguments.broker, &token);
    Ok(Exit::Success)
}

/// The ports on loopback that the configuration names.
struct Ports {
    listen: u16,
    broker: u16,
    admin: u16,
}

impl Ports {
    /// The usual ports, or the next ones that nobody listens on now.
    fn free(broker: bool) -> Self {
        let first = free_port(1883);
        let second = free_port(first.saturating_add(1));
        let (listen, broker) = if broker { (second, first) } else { (first, second) };
        Self { listen, broker, admin: free_port(9464) }
    }
}

/// The first port from `port` on that nobody listens on. With a hundred taken ones it is `port` itself.
fn free_port(port: u16) -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (port..port.saturating_add(100)).find(is_free).unwrap_or(port)
}

fn say(folder: &str, ports: &Ports, broker: bool, token: &str) {
    let folder = printable(folder);
    println!("{folder} is ready. The token of the device {DEVICE} of {TENANT}, which is shown only now:\n");
    println!("  {token}\n");
    let (port, user) =
        if broker { (ports.broker, DEVICE.into()) } else { (ports.listen, format!("{TENANT}/{DEVICE}")) };
    if broker {
        println!("Start the broker (Debian package mosquitto):\n");
        println!("  mosquitto -c '{folder}/mosquitto/mosquitto.conf'\n");
    }
    println!("Start the gateway:\n");
    println!("  cd '{folder}' && tidegate run\n");
    println!("Send a message, in another terminal (Debian package mosquitto-clients):\n");
    println!(
        "  mosquitto_pub -h 127.0.0.1 -p {port} -u {user} -P {token} -q 1 \
         -t tenant/{TENANT}/device/{DEVICE}/telemetry -m '{{\"temp\":21.5}}'\n"
    );
    println!("Its line is then in {folder}/lines/telemetry_{TENANT}/.");
}
