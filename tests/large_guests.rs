//! Guests of the class large, in JavaScript: they serve, are bounded, and are the operator's to
//! grant.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tidegate::decode::sandbox::engine;

use tidegate::rollout::compile::Compiler;
use tidegate::rollout::digest::digest;
use tidegate::rollout::{CompileLimits, CompilerSettings};
use tidegate_simulator::Device;

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};
use crate::sandbox::{attack_in_a_batch, reasons};

/// Compiles components of the large class into a folder, without the limits of a compiler's process: those are for a
/// compiler that is optimized.
pub fn compile_into(folder: &Path, components: &[Vec<u8>]) {
    let limits = CompileLimits {
        cpu_s: 600,
        memory_bytes_max: 2 << 30,
        output_bytes_max: 256 << 20,
        wall_s: 1_200,
        keeps_priority: false,
    };
    let program = env!("CARGO_BIN_EXE_tidegate").into();
    let settings = CompilerSettings { program, cache: Some(folder.to_owned()), limits };
    let engine = engine::large_engine().unwrap();
    let compiler = Compiler::new(settings, &engine).unwrap();
    for component in components {
        compiler.component(&engine, component, &digest(component)).unwrap();
    }
}

/// Machine code of both scripts, made once for all tests and runs: their engine takes long.
fn compiled() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large-guests");
        let components = ["flat", "hostile-js"].map(|name| fs::read(built_guest(name)).unwrap());
        compile_into(&folder, &components);
        folder
    })
}

fn warm(scene: &GatewayDir) {
    put_into_cache(scene, compiled());
}

/// Copies machine code into the cache of a gateway's folder.
pub fn put_into_cache(scene: &GatewayDir, compiled: &Path) {
    let cache = scene.path("data/guests/cache");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache).unwrap();
    fs::set_permissions(scene.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    for file in fs::read_dir(compiled).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), cache.join(file.file_name())).unwrap();
    }
}

const OUTPUT: &str = "[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n";

/// A gateway's folder in which a script decodes acme's messages.
fn scene(script: &str, large: &str) -> GatewayDir {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.device("globex", "dev-1", "lab-1");
    scene.guest("acme", "js", script);
    scene.configure(&format!("{OUTPUT}[guests.large]\nroutes = [\"acme/js\"]\n{large}"));
    warm(&scene);
    scene
}

const TOPIC: &str = "tenant/acme/device/dev-1/js";

fn payload(attack: &str, seq: u64) -> String {
    format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1","do":"{attack}","seq":{seq}}}"#)
}

fn route(gateway: &Gateway<'_>, message_type: &str) -> Value {
    let guests = gateway.json("/api/v1/guests")["guests"].clone();
    guests.as_array().unwrap().iter().find(|guest| guest["type"] == message_type).unwrap().clone()
}

/// Lines without the time that the gateway gave them.
fn timeless(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[test]
fn a_script_makes_the_same_lines_as_the_decoder_in_rust() {
    let scene = scene("flat", "");
    scene.guest("globex", "js", "json");
    // A script sees no digits that a float loses, so it cannot refuse them.
    for (tenant, more) in [("acme", ""), ("globex", "integers = \"float\"\n")] {
        let options = format!("[options]\nmeasurement = \"boiler 1\"\ntags = \"unit,t_kind\"\n{more}");
        fs::write(scene.path(&format!("guests/{tenant}/js.toml")), options).unwrap();
    }
    let gateway = scene.start();
    let guest = route(&gateway, "js");
    assert_eq!(
        (&guest["class"], &guest["lane"]),
        (&"large".into(), &"slow".into()),
        "from the first message"
    );
    assert!(guest["guest"].as_str().unwrap().starts_with("flat@0.1.0#"), "{guest}");
    let bodies = [
        r#""temp":21,"hum":40.25,"ok":true"#,
        r#""unit":"a, b=c","t":{"kind":"x y","in":21,"out":[1.5,null,3,[true]]},"note":"say \"hi\"\\""#,
        r#""a":-0.0,"b":1e16,"c":123456789012345680000,"d":1e-5,"e":0.0001,"f":1.7976931348623157e308,"g":5e-324,"h":0.1,"i":-1234.5e-3"#,
        r#""ключ, с = всем":"значение ☂","empty":"","v":1"#,
        r#""nothing":null,"none":{},"list":[]"#,
        r#""unit":"only a tag""#,
        r#""v":{"site_id":"x","device_id":1},"ok":false"#,
        r#""time":1"#,
        // Refused by both.
        r#""a":{"b":1},"a_b":2"#,
        r#""n":1e999"#,
        r#""k\u0001":1"#,
        r#""s":"nul \u0000""#,
        r#""":1"#,
    ];
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for body in bodies {
        let payload = format!(r#"{{"site_id":"lab-1","provision_token":"tok-dev-1",{body}}}"#);
        for tenant in ["acme", "globex"] {
            device.publish(&format!("tenant/{tenant}/device/dev-1/js"), payload.as_bytes()).unwrap();
        }
        let books = gateway.json("/api/v1/books")["tenants"].clone();
        assert_eq!(books["acme"]["messages"], books["globex"]["messages"], "{body}");
    }
    let (script, rust) = (timeless(scene.lines("telemetry_acme")), timeless(scene.lines("telemetry_globex")));
    assert_eq!(script, rust);
    assert_eq!(script.len(), 6, "{script:#?}");
    assert_eq!(reasons(&gateway)["GUEST_REFUSED"], 10, "{}", reasons(&gateway));
    gateway.assert_balanced();
}

#[test]
fn its_cases_run_where_the_operator_grants_the_class() {
    let scene = scene("flat", "");
    let built = built_guest("flat");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/js/flat/flat.cases.jsonl");
    let folder = scene.path("elsewhere");
    fs::create_dir(&folder).unwrap();
    fs::copy(built, folder.join("flat.wasm")).unwrap();
    fs::copy(cases, folder.join("flat.cases.jsonl")).unwrap();
    let (status, _, errors) = scene.verb(&["test", "elsewhere"], "");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("guests.large.routes = [\"_default/flat\"]"), "{errors}");
    scene.configure(&format!("{OUTPUT}[guests.large]\nroutes = [\"_default/flat\"]\n"));
    let (status, output, errors) = scene.verb(&["test", "elsewhere"], "");
    assert_eq!(status.code(), Some(0), "{output}{errors}");
    assert!(output.contains("5 passed, 0 failed"), "{output}");
}

#[test]
fn what_a_script_must_not_achieve_costs_its_own_message() {
    let scene = scene("hostile-js", "");
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let attacks = [
        ("loop", "GUEST_DEADLINE"),
        ("backtrack", "GUEST_DEADLINE"),
        ("hog", "GUEST_MEMORY"),
        ("recurse", "GUEST_TRAP"),
        ("throw", "GUEST_TRAP"),
        ("outside", "GUEST_TRAP"),
        ("forge", "IDENTITY_IN_LINE"),
    ];
    const NEIGHBOURS: u64 = 6;
    for (index, (attack, reason)) in attacks.into_iter().enumerate() {
        let before = reasons(&gateway)[reason].as_u64().unwrap_or(0);
        attack_in_a_batch(&mut device, TOPIC, attack, NEIGHBOURS);
        let after = reasons(&gateway);
        assert_eq!(after[reason].as_u64().unwrap_or(0), before + 1, "{attack}: {after}");
        gateway.wait_written("acme", NEIGHBOURS * (index as u64 + 1));
    }
    let lines = scene.lines("telemetry_acme");
    let expected: Vec<u64> = (0..=NEIGHBOURS).filter(|seq| *seq != NEIGHBOURS / 2).collect();
    for batch in lines.chunks(NEIGHBOURS as usize) {
        for (line, seq) in batch.iter().zip(&expected) {
            assert!(line.starts_with(&format!("ok,device_id=dev-1,site_id=lab-1 seq={seq}i ")), "{line}");
        }
    }
    gateway.assert_balanced();
}

#[test]
fn a_script_sees_nothing_of_the_world_that_changes() {
    let scene = scene("hostile-js", "");
    fs::write(scene.path("guests/acme/js.toml"), "class = \"large\"\nisolation = \"batch\"\n").unwrap();
    let gateway = scene.start();
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    for seq in 0..3 {
        device.publish(TOPIC, payload("world", seq).as_bytes()).unwrap();
    }
    device.publish(TOPIC, payload("who", 4).as_bytes()).unwrap();
    gateway.wait_written("acme", 4);
    let mut lines = timeless(scene.lines("telemetry_acme"));
    assert_eq!(lines.pop().unwrap(), "who,device_id=dev-1,site_id=lab-1 seq=4i,name=\"dev-1\"");
    lines.dedup();
    assert_eq!(lines.len(), 1, "neither clock nor randomness: {lines:?}");
    gateway.assert_balanced();
}

#[test]
fn nobody_but_the_operator_grants_it_and_who_lacks_it_is_told_what_to_do() {
    let mut scene = scene("hostile-js", "");
    fs::remove_dir_all(scene.path("data/guests/cache")).unwrap();
    scene.guest("globex", "js2", "flat");
    scene.guest("globex", "js3", "pulse");
    fs::write(scene.path("guests/globex/js3.toml"), "class = \"large\"\n").unwrap();
    scene.guest("acme", "js4", "flat");
    let large = "[guests.large]\nroutes = [\"acme/js\", \"acme/js5\"]\ncompile_cpu_s = 1\n";
    scene.configure(&format!("{OUTPUT}{large}"));
    scene.set_token("t");
    let gateway = scene.start();
    let errors = |message_type: &str| {
        let guest = route(&gateway, message_type);
        assert_eq!(guest["state"], "refused", "{guest}");
        guest["error"].as_str().unwrap().to_owned()
    };
    for (message_type, grant) in [("js2", "globex/js2"), ("js3", "globex/js3"), ("js4", "acme/js4")] {
        let error = errors(message_type);
        assert!(error.contains("class = \"large\"") && error.contains("operator"), "{error}");
        assert!(error.contains(&format!("guests.large.routes = [\"{grant}\"]")), "{error}");
    }
    // Its own limits hold for it: here one second to compile, or thirty by the clock of a busy machine.
    let took_too_long = ["takes more than 1 s of CPU time", "takes more than 30 s of real time"];
    assert!(took_too_long.iter().any(|limit| errors("js").contains(limit)), "{}", errors("js"));
    let component = fs::read(built_guest("flat")).unwrap();
    let (status, answer) = gateway.request("PUT", "/api/v1/guests/globex/js6", Some("t"), &component);
    assert!(status == 413 || status == 0, "{status} {answer}");
    let (status, answer) = gateway.request("PUT", "/api/v1/guests/acme/js5", Some("t"), &component);
    assert_eq!(status, 422, "{answer}");
    assert!(took_too_long.iter().any(|limit| answer.contains(limit)), "{answer}");
    drop(gateway);
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("guests.large.routes = [\"globex/js2\"]"), "{errors}");
    for (routes, named) in [("[\"acme\"]", "acme/telemetry"), ("[\"../x\"]", "../x")] {
        scene.configure(&format!("{OUTPUT}[guests.large]\nroutes = {routes}\n"));
        let (status, _, errors) = scene.verb(&["validate"], "");
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains("guests.large.routes") && errors.contains(named), "{errors}");
    }
}

#[test]
fn more_scripts_than_instances_take_turns_and_all_are_decoded() {
    let scene = scene("hostile-js", "");
    let types: Vec<String> = (0..4).map(|n| format!("js{n}")).collect();
    for tenant in ["acme", "globex"] {
        for message_type in &types {
            scene.guest(tenant, message_type, "hostile-js");
        }
    }
    let routes: Vec<String> = ["acme", "globex"]
        .iter()
        .flat_map(|tenant| types.iter().map(move |message_type| format!("\"{tenant}/{message_type}\"")))
        .collect();
    // One beside the two for trying out, of whichever thread.
    let large = format!(
        "[guests]\nthreads = 3\n[guests.large]\ninstances_max = 3\nroutes = [{}]\n",
        routes.join(", ")
    );
    scene.configure(&format!("{OUTPUT}{large}"));
    let gateway = scene.start();
    let listener = scene.listener.clone();
    let senders: Vec<_> = ["acme", "globex"]
        .into_iter()
        .map(|tenant| {
            let (listener, types) = (listener.clone(), types.clone());
            std::thread::spawn(move || {
                let mut device = Device::connect(&listener, tenant).unwrap();
                for seq in 0..40 {
                    let topic = format!("tenant/{tenant}/device/dev-1/{}", types[seq % types.len()]);
                    device.publish(&topic, payload("ok", seq as u64).as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    for tenant in ["acme", "globex"] {
        assert_eq!(gateway.book(tenant, "messages", "lines"), 40);
    }
    gateway.assert_balanced();
}

#[test]
fn a_script_that_loops_in_every_message_keeps_no_other_waiting() {
    let scene = scene("hostile-js", "");
    let gateway = scene.start();
    let listener = scene.listener.clone();
    const LOOPS: u64 = 60;
    let attacker = std::thread::spawn(move || {
        let mut device = Device::connect(&listener, "attacker").unwrap();
        for seq in 0..LOOPS {
            device.send(TOPIC, payload("loop", seq).as_bytes()).unwrap();
        }
        for _ in 0..LOOPS {
            device.puback().unwrap();
        }
    });
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let topic = crate::end_to_end::topic("globex", "dev-1", "telemetry");
    let mut decoded_meanwhile = 0;
    while !attacker.is_finished() {
        device.publish(&topic, crate::end_to_end::envelope("dev-1", decoded_meanwhile).as_bytes()).unwrap();
        decoded_meanwhile += 1;
    }
    attacker.join().unwrap();
    assert_eq!(reasons(&gateway)["GUEST_DEADLINE"], LOOPS);
    gateway.assert_balanced();
    // Each loop takes 50 ms of CPU: a tenant that waited behind them would get one message through for each.
    assert!(decoded_meanwhile > 2 * LOOPS, "{decoded_meanwhile} messages beside {LOOPS} loops");
}

#[test]
fn another_tenants_script_waits_for_one_loop_at_a_time_and_not_for_all() {
    let scene = scene("hostile-js", "");
    scene.guest("globex", "js", "flat");
    scene.configure(&format!("{OUTPUT}[guests.large]\nroutes = [\"acme/js\", \"globex/js\"]\n"));
    let gateway = scene.start();
    let listener = scene.listener.clone();
    const LOOPS: u64 = 60;
    let attacker = std::thread::spawn(move || {
        let mut device = Device::connect(&listener, "attacker").unwrap();
        for seq in 0..LOOPS {
            device.send(TOPIC, payload("loop", seq).as_bytes()).unwrap();
        }
        for _ in 0..LOOPS {
            device.puback().unwrap();
        }
    });
    let mut device = Device::connect(&scene.listener, "dev-1").unwrap();
    let mut decoded_meanwhile = 0;
    while !attacker.is_finished() {
        device.publish("tenant/globex/device/dev-1/js", payload("ok", decoded_meanwhile).as_bytes()).unwrap();
        decoded_meanwhile += 1;
    }
    attacker.join().unwrap();
    assert_eq!(gateway.book("globex", "messages", "lines"), decoded_meanwhile);
    assert!(decoded_meanwhile >= LOOPS / 4, "{decoded_meanwhile} messages beside {LOOPS} loops");
    gateway.assert_balanced();
}
