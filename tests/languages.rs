//! New decoders in other languages: each is built as its README says, by the toolchain of its registry, passes its
//! cases and serves. `cargo xtask guests --langs` brings the toolchains, into target/languages/tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::gateway::GatewayDir;
use crate::harness::mosquitto::Mosquitto;
use crate::harness::mqtt_client::MqttClient;
use crate::harness::skip;
use crate::large_guests::{compile_into, put_into_cache};
use crate::sandbox::reasons;

/// A new decoder in a language, and what it is built with.
struct Toolchain {
    /// The name of its folder, and of its component in target/languages.
    name: &'static str,
    lang: &'static str,
    /// The begins of the README's commands that build it.
    commands: &'static [&'static str],
    /// Words of those commands, and the tools of target/languages that stand for them.
    tools: &'static [(&'static str, &'static str)],
    is_large: bool,
}

fn languages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/languages")
}

const NAME: &str = "hot-boiler";

impl Toolchain {
    /// Writes the folder and runs the commands of its README; gives the component. The folder of the last run is
    /// used again if the same is written and built once more.
    fn build(&self) -> PathBuf {
        let folder = languages().join(self.name);
        let component = folder.join(format!("{NAME}.wasm"));
        let fresh = languages().join(format!(".{}.new", self.name));
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(languages()).unwrap();
        let new = ["guest", "new", NAME, "--lang", self.lang, "--dir", fresh.to_str().unwrap()];
        let status = crate::harness::gateway::tidegate().args(new).status().unwrap();
        assert!(status.success());
        let written = contents(&fresh);
        let stamp = folder.join(".written");
        if component.exists() && fs::read(&stamp).is_ok_and(|before| before == written) {
            fs::remove_dir_all(&fresh).unwrap();
            return component;
        }
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&fresh, &folder).unwrap();
        if self.lang == "js" {
            // In place of `npm ci` with the same lock file.
            let modules = languages().parent().unwrap().join("js/flat/node_modules");
            std::os::unix::fs::symlink(modules, folder.join("node_modules")).unwrap();
        }
        let (user, system) = self.run_readme(&folder);
        let bytes = fs::metadata(&component).unwrap().len();
        println!("{}: built in {:.1} s of CPU, {bytes} bytes", self.name, user + system);
        fs::write(stamp, written).unwrap();
        component
    }

    /// Runs commands of the README; gives the CPU seconds that they took.
    fn run_readme(&self, folder: &Path) -> (f64, f64) {
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        let mut script = String::from("set -e\n");
        for begin in self.commands {
            let line = readme.lines().find(|line| line.starts_with(begin));
            let mut line = line.unwrap_or_else(|| panic!("{begin}: {readme}")).to_owned();
            for (word, tool) in self.tools {
                assert!(line.contains(word) || self.commands.len() > 1, "{line}");
                line = line.replace(word, &languages().join("tools").join(tool).display().to_string());
            }
            script += &format!("{line}\n");
        }
        let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let tools = languages().join("tools");
        let path = format!("{}:{}:{path}", tidegate.display(), tools.join("go/bin").display());
        let output = Command::new("bash")
            .args(["-c", "TIMEFORMAT='cpu %U %S'; time bash -c \"$0\"", &script])
            .current_dir(folder)
            .env("PATH", path)
            .env("GOCACHE", languages().join("go-cache"))
            .env("GOTOOLCHAIN", "local")
            .env("ZIG_GLOBAL_CACHE_DIR", languages().join("zig-cache"))
            .env("ZIG_LOCAL_CACHE_DIR", languages().join("zig-cache"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{}{errors}", String::from_utf8_lossy(&output.stdout));
        let times = errors.lines().rev().find_map(|line| line.strip_prefix("cpu ")).unwrap();
        let (user, system) = times.split_once(' ').unwrap();
        (user.parse().unwrap(), system.parse().unwrap())
    }

    /// Builds it, runs its cases, and serves some messages.
    fn try_all(&self, messages: &[(&[u8], &str)]) {
        let component = self.build();
        let mut scene = GatewayDir::new();
        scene.device("acme", "dev-1", "hall");
        let large = if self.is_large { "[guests.large]\nroutes = [\"acme/hot-boiler\"]\n" } else { "" };
        let broker = Mosquitto::start_in_memory();
        let output = "[output]\nkind = \"file\"\n[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";
        scene.configure_broker(&broker.url(), &format!("{output}{large}"));
        let guests = scene.path("guests/acme");
        fs::create_dir_all(&guests).unwrap();
        for file in [format!("{NAME}.wasm"), format!("{NAME}.toml"), format!("{NAME}.cases.jsonl")] {
            fs::copy(component.with_file_name(&file), guests.join(&file)).unwrap();
        }
        warm(&scene, self.name, &fs::read(&component).unwrap());
        let (status, output, errors) = scene.verb(&["test", "guests/acme"], "");
        assert_eq!(status.code(), Some(0), "{output}{errors}");
        let cases = fs::read_to_string(guests.join(format!("{NAME}.cases.jsonl"))).unwrap().lines().count();
        assert!(output.contains(&format!("{cases} passed, 0 failed")), "{output}");

        let gateway = scene.start();
        let listed = gateway.json("/api/v1/guests").to_string();
        let class = if self.is_large { "\"class\":\"large\"" } else { "\"class\":\"normal\"" };
        assert!(listed.contains(class), "{listed}");
        let topic = "tenant/acme/device/dev-1/hot-boiler";
        let published = messages.iter().map(|(payload, _)| (topic.to_owned(), payload.to_vec()));
        MqttClient::to_broker(broker.port, "publisher").publish_all(published);
        let (refused, lines): (Vec<&str>, Vec<&str>) =
            messages.iter().map(|(_, expected)| expected).partition(|expected| expected.starts_with('!'));
        let decoded = |section, key| gateway.book("acme", section, key);
        gateway.wait("all messages", |_| {
            decoded("messages", "lines") + decoded("messages", "quarantined") == messages.len() as u64
        });
        gateway.wait("the lines", |_| decoded("lines", "pending") == 0);
        let written = scene.lines("telemetry_acme");
        assert_eq!(written.len(), lines.len(), "{written:?}");
        for (line, expected) in written.iter().zip(&lines) {
            assert_eq!(line.rsplit_once(' ').unwrap().0, *expected);
        }
        assert_eq!(reasons(&gateway)["GUEST_REFUSED"].as_u64().unwrap_or(0), refused.len() as u64);
        let latest = gateway.json("/api/v1/quarantine")["latest"].to_string();
        for code in refused {
            assert!(latest.contains(&code[1..]), "{code}: {latest}");
        }
        gateway.assert_balanced();
    }
}

/// Puts the machine code of a component into the cache of a gateway's folder. It is made once for all runs.
fn warm(scene: &GatewayDir, name: &str, component: &[u8]) {
    let folder = languages().join("machine-code").join(name);
    compile_into(&folder, &[component.to_vec()]);
    put_into_cache(scene, &folder);
}

/// All files of a folder, in one piece.
fn contents(folder: &Path) -> Vec<u8> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for path in files {
        all.extend_from_slice(path.file_name().unwrap().as_encoded_bytes());
        all.extend(if path.is_dir() { contents(&path) } else { fs::read(&path).unwrap() });
    }
    all
}

/// JSON as the templates but C's take it; `!` begins the code of a refusal.
const JSON: [(&[u8], &str); 5] = [
    (br#"{"temp":71.5,"state":"on"}"#, r#"hot_boiler,device_id=dev-1,site_id=hall temp=71.5,state="on""#),
    (br#"{"state":"on"}"#, "!NO_TEMP"),
    (
        br#"{"temp":-0.1,"state":"a \"b\" \\"}"#,
        r#"hot_boiler,device_id=dev-1,site_id=hall temp=-0.1,state="a \"b\" \\""#,
    ),
    (b"{\"temp\":", "!BAD_JSON"),
    (br#"{"temp":1e300}"#, "hot_boiler,device_id=dev-1,site_id=hall temp=1e+300"),
];

const BINARY: [(&[u8], &str); 4] = [
    (&[1, 0x02, 0xcb, 1], "hot_boiler,device_id=dev-1,site_id=hall temp=71.5,on=true"),
    (&[2, 0, 0, 0], "!BAD_VERSION"),
    (&[], "!BAD_SIZE"),
    (&[1, 0x80, 0x00, 0], "hot_boiler,device_id=dev-1,site_id=hall temp=-3276.8,on=false"),
];

fn has_tool(path: &str) -> bool {
    let is_there = languages().join("tools").join(path).exists();
    if !is_there {
        skip(&format!("target/languages/tools/{path} is missing: cargo xtask guests --langs brings it"));
    }
    is_there
}

#[test]
fn a_new_decoder_in_c_builds_passes_its_cases_and_serves() {
    let c = Toolchain { name: "c", lang: "c", commands: &["make"], tools: &[], is_large: false };
    c.try_all(&BINARY);
}

#[test]
fn a_new_decoder_in_c_by_zig_builds_passes_its_cases_and_serves() {
    if has_tool("zig/bin/python") {
        let tools = &[(".venv", "zig")];
        Toolchain { name: "zig", lang: "c", commands: &["make CC="], tools, is_large: false }
            .try_all(&BINARY);
    }
}

#[test]
fn a_new_decoder_in_go_builds_passes_its_cases_and_serves() {
    if has_tool("go/bin/go") {
        let commands = &["GOOS=wasip1", "tidegate guest wrap"];
        Toolchain { name: "go", lang: "go", commands, tools: &[], is_large: false }.try_all(&JSON);
    }
}

#[test]
fn a_new_decoder_in_python_builds_passes_its_tests_and_cases_and_serves() {
    if has_tool("python/bin/componentize-py") {
        let commands = &[
            ".venv/bin/componentize-py -d wit -w decoder bindings",
            ".venv/bin/componentize-py -d wit -w decoder componentize",
        ];
        let tools = &[(".venv", "python")];
        Toolchain { name: "python", lang: "python", commands, tools, is_large: true }.try_all(&JSON);
    }
}

#[test]
fn a_new_decoder_in_javascript_builds_passes_its_tests_and_cases_and_serves() {
    let commands = &["npm test", "npm run build"];
    let js = Toolchain { name: "js", lang: "js", commands, tools: &[], is_large: true };
    js.try_all(&[
        (br#"{"temp":71.5}"#, "hot-boiler,device_id=dev-1,site_id=hall temp=71.5"),
        (b"{}", "!NO_TEMP"),
        (b"{", "!BAD_JSON"),
    ]);
}

/// A decoder that uses Rust's standard library, built for one of its WASI targets. None where the toolchain does not
/// have the target: rustup brings it, Debian's toolchain does not.
fn built_by_rust(target: &str) -> Option<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = languages().join("rust");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--offline", "--quiet", "--package", "worldly", "--target", target]);
    cargo.current_dir(root.join("tests/guests")).arg("--target-dir").arg(&folder).env_remove("RUSTFLAGS");
    if !cargo.status().unwrap().success() {
        eprintln!("skipped: this toolchain does not build for {target}");
        return None;
    }
    Some(fs::read(folder.join(target).join("release/worldly.wasm")).unwrap())
}

/// Serves a decoder with some messages; gives the lines, each with its time, and the log.
fn served_by_rust(component: &Path) -> (Vec<(String, i64)>, String) {
    let broker = Mosquitto::start_in_memory();
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "hall");
    let output = "[output]\nkind = \"file\"\n[admission]\ncredentials = \"broker\"\nrate_per_s = 0\n";
    scene.configure_broker(&broker.url(), output);
    scene.set_token("operator");
    warm(&scene, "rust", &fs::read(component).unwrap());
    let gateway = scene.start();
    let put = ["guest", "put", "acme", "worldly", component.to_str().unwrap()];
    let (status, out, errors) = scene.verb(&put, "");
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    let topic = "tenant/acme/device/dev-1/worldly";
    let messages = (0..20).map(|_| (topic.to_owned(), b"one two three".to_vec()));
    MqttClient::to_broker(broker.port, "publisher").publish_all(messages);
    gateway.wait("the lines", |gateway| gateway.book("acme", "messages", "lines") == 20);
    gateway.wait("the lines", |gateway| gateway.book("acme", "lines", "pending") == 0);
    gateway.assert_balanced();
    let listed = gateway.json("/api/v1/guests").to_string();
    assert!(!listed.contains("\"class\":\"large\""), "{listed}");
    let log = gateway.json("/api/v1/guests/acme/worldly/log").to_string();
    let timed = |line: String| {
        let (body, time) = line.rsplit_once(' ').unwrap();
        (body.to_owned(), time.parse().unwrap())
    };
    (scene.lines("telemetry_acme").into_iter().map(timed).collect(), log)
}

const BODY: &str = "i,words=3i,slept=true,files=false,variables=false";

#[test]
fn rusts_standard_library_finds_the_message_s_time_by_wasi_0_2() {
    let Some(component) = built_by_rust("wasm32-wasip2") else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("worldly.wasm");
    fs::write(&path, component).unwrap();
    let (lines, log) = served_by_rust(&path);
    for (body, time) in lines {
        assert_eq!(body, format!("worldly,device_id=dev-1,site_id=hall now={time}{BODY}"));
    }
    assert!(log.contains("configured") && log.contains("decoded 3 words"), "{log}");
}

#[test]
fn rusts_standard_library_runs_with_the_adapter_of_guest_wrap() {
    let Some(module) = built_by_rust("wasm32-wasip1") else { return };
    let scene = GatewayDir::new();
    fs::write(scene.path("core.wasm"), module).unwrap();
    let (status, out, errors) = scene.verb(&["guest", "wrap", "core.wasm", "-o", "worldly.wasm"], "");
    assert_eq!(status.code(), Some(0), "{out}{errors}");
    let (lines, log) = served_by_rust(&scene.path("worldly.wasm"));
    for (body, _) in lines {
        let (now, rest) = body.split_once("now=").unwrap().1.split_once('i').unwrap();
        // Time begins on 1 January 2026 in each instance.
        let since: i64 = now.parse::<i64>().unwrap() - 1_767_225_600_000_000_000;
        assert!((0..3_600_000_000_000).contains(&since), "{body}");
        assert_eq!(format!("i{rest}"), BODY);
    }
    assert!(!log.contains("decoded"), "{log}");
}
