//! Tenants' own settings: shared databases, outputs of their own, allowed lines, rates, shares,
//! and changes of all of it while messages flow.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_simulator::Device;

use crate::end_to_end::{envelope, topic};
use crate::harness::fake_influxdb3::{FakeInfluxdb3, Fault};
use crate::harness::gateway::{Gateway, GatewayDir};
use crate::harness::influxdb::Influxdb;
use crate::harness::postgres::Postgres;

/// Publishes messages of `telemetry` from `dev-{tenant}`, and waits for every PUBACK.
fn publish(scene: &GatewayDir, tenant: &str, sequences: std::ops::Range<u64>) {
    let device = format!("dev-{tenant}");
    let topic = topic(tenant, &device, "telemetry");
    let payloads: Vec<String> = sequences.map(|seq| envelope(&device, seq)).collect();
    let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_bytes()));
    let mut client = Device::connect(&scene.listener, &device).unwrap();
    assert_eq!(client.publish_all(messages, 100).unwrap(), payloads.len() as u64);
}

/// A gateway's folder with a device `dev-{tenant}` of each tenant.
fn scene_of(tenants: &[&str]) -> GatewayDir {
    let mut scene = GatewayDir::new();
    for tenant in tenants {
        scene.device(tenant, &format!("dev-{tenant}"), "lab-1");
    }
    scene
}

const UNLIMITED: &str = "[admission]\nrate_per_s = 0\n";

fn to(front: &FakeInfluxdb3, more: &str) -> String {
    format!("[output]\nurl = \"{}\"\nflush_interval_ms = 50\n{more}\n", front.url())
}

/// Sends SIGHUP, and waits until these words appear in the log once more.
fn reload(scene: &GatewayDir, gateway: &Gateway<'_>, words: &str) {
    let count = || scene.log().matches(words).count();
    let before = count();
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGHUP) };
    gateway.wait(words, |_| count() > before);
}

const APPLIED: &str = "settings of tenants were read again";

fn entries(gateway: &Gateway<'_>, tenant: &str) -> Vec<Value> {
    let latest = gateway.json("/api/v1/quarantine")["latest"].clone();
    let mut entries = latest.as_array().unwrap().clone();
    entries.retain(|entry| entry["tenant"] == tenant);
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_tenants_share_one_database_of_an_instance_that_takes_five() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let names: Vec<String> = (0..20).map(|n| format!("t-{n:02}")).collect();
    let scene = scene_of(&names.iter().map(String::as_str).collect::<Vec<_>>());

    scene.configure(&(to(&front, "database = \"tagged\"\ntenant_tag = \"tenant\"") + UNLIMITED));
    let gateway = scene.start();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| publish(&scene, name, 0..50));
        }
    });
    for name in &names {
        gateway.wait_written(name, 50);
        let of_tenant = format!("SELECT count(\"seq\") FROM \"telemetry\" WHERE \"tenant\" = '{name}'");
        let answer = influxdb.ask("tagged", &of_tenant).await;
        assert_eq!(answer["results"][0]["series"][0]["values"][0][1], 50, "{name}: {answer}");
        let posts = format!("tidegate_writes_total{{tenant=\"{name}\",outcome=\"");
        let (_, metrics) = gateway.get("/metrics");
        assert!(metrics.lines().any(|line| line.starts_with(&posts)), "no POST of {name}");
    }
    gateway.assert_balanced();
    // The tenants' lines went together.
    let tagged = front.seen().into_iter().filter(|seen| seen.database == "tagged").count();
    assert!(tagged < 20 * 50 / 2, "{tagged} requests");
    drop(gateway);

    scene.configure(&(to(&front, "database = \"prefixed\"\ntable_prefix = \"{tenant}_\"") + UNLIMITED));
    let gateway = scene.start();
    for name in &names {
        publish(&scene, name, 100..110);
    }
    for name in &names {
        gateway.wait_written(name, 60);
        assert_eq!(influxdb.count("prefixed", &format!("{name}_telemetry"), "seq").await, 10);
    }
    gateway.assert_balanced();
    let databases = influxdb.ask("", "SHOW DATABASES").await.to_string();
    assert!(!databases.contains("telemetry_"), "{databases}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_their_own_are_written_with_their_own_tokens_and_a_dead_one_harms_nobody() {
    let influxdb = Influxdb::start().await;
    let own_influxdb = Influxdb::start().await;
    let common = FakeInfluxdb3::start(&influxdb.url(), Some("common-token")).await;
    let own = FakeInfluxdb3::start(&own_influxdb.url(), Some("own-token")).await;
    let scene = scene_of(&["acme", "globex", "initech"]);
    fs::write(scene.path("own.token"), "own-token\n").unwrap();
    let dead = format!("http://127.0.0.1:{}", crate::harness::free_port());
    // One name of a database at three servers.
    let configuration = |initech: &str| {
        to(&common, "token = \"common-token\"")
            + UNLIMITED
            + &format!(
                "[tenants.acme]\ndatabase = \"one\"\n\
                 [tenants.globex]\ndatabase = \"one\"\noutput_url = \"{}\"\noutput_token_file = \"own.token\"\n\
                 [tenants.initech]\noutput_token = \"own-token\"\n{initech}\n",
                own.url()
            )
    };
    let to_dead = format!("database = \"one\"\ntenant_tag = \"who\"\noutput_url = \"{dead}\"");
    scene.configure(&configuration(&to_dead));
    let gateway = scene.start();
    for tenant in ["initech", "acme", "globex"] {
        publish(&scene, tenant, 0..200);
    }
    gateway.wait_written("acme", 200);
    gateway.wait_written("globex", 200);
    assert_eq!(gateway.book("initech", "lines", "pending"), 200);
    assert_eq!(influxdb.count("one", "telemetry", "seq").await, 200);
    assert_eq!(own_influxdb.count("one", "telemetry", "seq").await, 200);
    gateway.assert_balanced();
    let spool = gateway.json("/api/v1/spool");
    let of = |tenant: &str| {
        let databases = spool["databases"].as_array().unwrap().iter();
        databases.filter(|database| database["output_of"] == tenant).count()
    };
    assert_eq!((of("globex"), of("initech")), (1, 1), "{spool:#}");
    gateway.kill();

    // It was acknowledged, and it waits for its own server over a restart and a change of address.
    let gateway = scene.start();
    publish(&scene, "acme", 200..300);
    gateway.wait_written("acme", 300);
    assert_eq!(gateway.book("initech", "lines", "pending"), 200);
    let to_own = format!("database = \"two\"\noutput_url = \"{}\"", own.url());
    scene.configure(&configuration(&to_own));
    reload(&scene, &gateway, APPLIED);
    gateway.wait_written("initech", 200);
    publish(&scene, "initech", 200..210);
    gateway.wait_written("initech", 210);
    // What was durable before went where it was to go, with its tag.
    let tagged =
        own_influxdb.ask("one", "SELECT count(\"seq\") FROM \"telemetry\" WHERE \"who\" = 'initech'").await;
    assert_eq!(tagged["results"][0]["series"][0]["values"][0][1], 200, "{tagged}");
    assert_eq!(own_influxdb.count("two", "telemetry", "seq").await, 10);
    assert_eq!(influxdb.count("one", "telemetry", "seq").await, 300, "nothing of the others came here");
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_follows_its_tenant_to_a_server_of_its_own() {
    let influxdb = Influxdb::start().await;
    let own_influxdb = Influxdb::start().await;
    let (common, own) = (
        FakeInfluxdb3::start(&influxdb.url(), None).await,
        FakeInfluxdb3::start(&own_influxdb.url(), None).await,
    );
    common.fail_database("shared", Some(Fault::Status { status: 503, retry_after: None, body: "" }));
    let scene = scene_of(&["acme", "globex"]);
    let common_settings = to(&common, "database = \"shared\"\ntenant_tag = \"tenant\"") + UNLIMITED;
    scene.configure(&common_settings);
    let gateway = scene.start();
    for tenant in ["acme", "globex"] {
        publish(&scene, tenant, 0..300);
    }
    gateway
        .wait("a request of theirs failed", |_| common.seen().iter().any(|seen| seen.database == "shared"));
    scene.configure(&format!("{common_settings}[tenants.globex]\noutput_url = \"{}\"\n", own.url()));
    reload(&scene, &gateway, APPLIED);
    gateway.wait_written("globex", 300);
    assert_eq!(own_influxdb.count("shared", "telemetry", "seq").await, 300);
    assert_eq!(gateway.book("acme", "lines", "pending"), 300);
    // And back.
    scene.configure(&common_settings);
    reload(&scene, &gateway, APPLIED);
    publish(&scene, "globex", 300..320);
    common.fail_database("shared", None);
    gateway.wait_written("globex", 320);
    gateway.wait_written("acme", 300);
    assert_eq!(influxdb.count("shared", "telemetry", "seq").await, 320);
    gateway.assert_balanced();
}

#[test]
fn tenants_that_nothing_tells_apart_are_refused_at_load() {
    let scene = scene_of(&["acme", "globex"]);
    let pair = |more: &str| {
        format!(
            "[output]\nkind = \"file\"\n[tenants.acme]\ndatabase = \"shared\"\n{more}\
             [tenants.globex]\ndatabase = \"shared\"\n{more}"
        )
    };
    for verb in [&["validate"][..], &["run"]] {
        scene.configure(&pair(""));
        let (status, _, errors) = scene.verb(verb, "");
        assert_eq!(status.code(), Some(2), "{errors}");
        for word in ["acme", "globex", "\"shared\"", "tenants."] {
            assert!(errors.contains(word), "{verb:?} does not say {word}: {errors}");
        }
    }
    scene.configure(&pair("tenant_tag = \"tenant\"\n"));
    let (status, output, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(0), "{output}{errors}");
    let of_acme = &output[output.find("[tenants.acme]").unwrap()..output.find("[tenants.globex]").unwrap()];
    for (key, source) in
        [("tenant_tag = \"tenant\"", "# file"), ("burst = 20.0", "# as admission.burst, default")]
    {
        let line = of_acme.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{of_acme}"));
        assert!(line.ends_with(source), "{line}");
    }
    for (more, expected) in
        [("[output]\ndatabase = \"x\"\n", 2), ("[output]\ndatabase = \"x\"\ntenant_tag = \"t\"\n", 0)]
    {
        scene.configure(more);
        assert_eq!(scene.verb(&["validate"], "").0.code(), Some(expected), "{more}");
    }
}

#[test]
fn a_tenant_writes_only_what_it_may_and_explain_says_so_too() {
    let scene = scene_of(&["acme", "globex"]);
    scene.guest("_default", "_any", "json");
    fs::write(
        scene.path("guests/_default/_any.toml"),
        "[options]\ntags = \"customer\"\ntime_field = \"at\"\ntime_format = \"rfc3339\"\n",
    )
    .unwrap();
    scene.configure(&format!(
        "[output]\nkind = \"file\"\n{UNLIMITED}[tenants.acme]\ntables = [\"pump\", \"tank_*\"]\nfields = [\"level\"]\n\
         tenant_tag = \"customer\"\ntable_prefix = \"a.\"\ntime_past_max_s = 3600\ntime_future_max_s = 60\n\
         [tenants.acme.fields_of]\ntank_a = [\"depth\", \"level\"]\n"
    ));
    let gateway = scene.start();
    let send = |tenant: &str, kind: &str, fields: &str| {
        let device = format!("dev-{tenant}");
        let payload = format!(r#"{{"site_id":"lab-1","provision_token":"tok-{device}",{fields}}}"#);
        let mut client = Device::connect(&scene.listener, &device).unwrap();
        client.publish(&topic(tenant, &device, kind), payload.as_bytes()).unwrap();
    };
    let (now, hour, day) =
        (jiff::Timestamp::now(), jiff::SignedDuration::from_hours(1), jiff::SignedDuration::from_hours(24));
    send("acme", "pump", r#""level":1"#);
    send("acme", "tank_a", r#""depth":2"#);
    send("acme", "tank_b", &format!(r#""level":3,"at":"{}""#, now - hour / 2));
    let refused = [
        ("valve", r#""level":1"#.to_owned(), "BAD_LINE", "\"valve\"; allowed: pump, tank_*"),
        ("pump", r#""level":1,"depth":2"#.to_owned(), "BAD_LINE", "(\"depth\")"),
        ("tank_b", r#""depth":2"#.to_owned(), "BAD_LINE", "(\"depth\")"),
        (
            "pump",
            format!(r#""level":1,"at":"{}""#, now - day),
            "BAD_LINE",
            "at most 3600 s before, at most 60 s after",
        ),
        ("pump", format!(r#""level":1,"at":"{}""#, now + hour), "BAD_LINE", "at most 60 s after"),
        ("pump", r#""level":1,"customer":"other""#.to_owned(), "IDENTITY_IN_LINE", "(customer)"),
    ];
    for (kind, fields, reason, words) in &refused {
        send("acme", kind, fields);
        let entry = entries(&gateway, "acme").remove(0);
        assert_eq!(entry["reason"], *reason, "{entry}");
        assert!(entry["detail"].as_str().unwrap().contains(words), "{entry}");
    }
    // The others may write what they like, the tag that is acme's included.
    send("globex", "valve", &format!(r#""level":1,"customer":"acme","at":"{}""#, now - day));
    gateway.wait_written("acme", 3);
    gateway.wait_written("globex", 1);
    let lines = scene.lines("telemetry_acme");
    assert!(
        lines[0].starts_with("a.pump,customer=acme,device_id=dev-acme,site_id=lab-1 level=1.0 "),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("a.tank_a,customer=acme,device_id=dev-acme"), "{lines:?}");
    assert!(
        scene.lines("telemetry_globex")[0]
            .starts_with("valve,device_id=dev-globex,site_id=lab-1,customer=acme ")
    );
    gateway.assert_balanced();

    let payload = r#"{"site_id":"lab-1","provision_token":"tok-dev-acme","level":1}"#;
    let explain = |kind: &str| {
        let topic = topic("acme", "dev-acme", kind);
        let (_, output, errors) =
            scene.verb(&["explain", "--json", "--topic", &topic, "--payload", payload], "");
        serde_json::from_str::<Value>(&output).unwrap_or_else(|_| panic!("{output}{errors}"))
    };
    let verdict = explain("pump");
    assert_eq!(verdict["database"], "telemetry_acme");
    let line = verdict["lines"][0].as_str().unwrap();
    assert!(line.starts_with("a.pump,customer=acme,device_id=dev-acme,site_id=lab-1 level=1.0 "), "{line}");
    assert_eq!(explain("valve")["reason"], "BAD_LINE");
}

#[test]
fn rates_of_a_tenant_and_of_all_its_devices_together_limit_nobody_else() {
    let mut scene = scene_of(&["acme", "globex", "initech"]);
    scene.device("acme", "second", "lab-1");
    scene.configure(
        "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n\
         [tenants.acme]\ntenant_rate_per_s = 0.0001\ntenant_burst = 10\n\
         [tenants.globex]\nrate_per_s = 0.0001\nburst = 3\n",
    );
    let gateway = scene.start();
    for tenant in ["acme", "globex", "initech"] {
        publish(&scene, tenant, 0..20);
    }
    let mut second = Device::connect(&scene.listener, "second").unwrap();
    second.publish(&topic("acme", "second", "telemetry"), envelope("second", 1).as_bytes()).unwrap();
    let counts =
        |tenant| (gateway.book(tenant, "messages", "lines"), gateway.book(tenant, "messages", "quarantined"));
    assert_eq!(counts("acme"), (10, 11));
    assert_eq!(counts("globex"), (3, 17));
    assert_eq!(counts("initech"), (20, 0));
    let entry = entries(&gateway, "acme").remove(0);
    assert!(entry["detail"].as_str().unwrap().starts_with("all devices of the tenant together"), "{entry}");
    // A stranger under a tenant's name takes nothing from it.
    scene.configure("[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n[tenants.initech]\ntenant_rate_per_s = 0.0001\ntenant_burst = 5\n");
    reload(&scene, &gateway, APPLIED);
    let mut stranger = Device::connect(&scene.listener, "stranger").unwrap();
    for seq in 0..20 {
        let topic = topic("initech", "dev-initech", "telemetry");
        stranger.publish(&topic, envelope("nobody", seq).as_bytes()).unwrap();
    }
    publish(&scene, "initech", 20..30);
    assert_eq!(gateway.book("initech", "messages", "lines"), 25);
    publish(&scene, "globex", 20..40);
    assert_eq!(gateway.book("globex", "messages", "lines"), 23, "its own rate is gone");
    gateway.assert_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_spool_of_its_own_is_full_for_its_tenant_alone_until_it_is_raised() {
    let scene = scene_of(&["acme", "globex", "initech"]);
    let dead = format!("http://127.0.0.1:{}", crate::harness::free_port());
    let settings = |acme: &str| {
        format!(
            "[output]\nurl = \"{dead}\"\nflush_interval_ms = 50\n[spool]\nmemory_bytes_max = 0\n{UNLIMITED}\
             [tenants.acme]\nspool_bytes_max = {acme}\n\
             [tenants.globex]\nspool_bytes_max = 16384\nspool_when_full = \"drop_oldest\"\n"
        )
    };
    scene.configure(&settings("16384"));
    let gateway = scene.start();
    publish(&scene, "globex", 0..2_000);
    publish(&scene, "initech", 0..2_000);
    assert!(gateway.book("globex", "lines", "dropped") > 0);
    assert_eq!(gateway.book("initech", "lines", "dropped"), 0);
    assert_eq!(gateway.book("initech", "lines", "pending"), 2_000);
    // One that blocks has no PUBACK once it is full.
    let mut device = Device::connect(&scene.listener, "dev-acme").unwrap();
    for seq in 0..1_000 {
        device.send(&topic("acme", "dev-acme", "telemetry"), envelope("dev-acme", seq).as_bytes()).unwrap();
    }
    gateway.wait("messages of acme wait for room", |gateway| {
        gateway.json("/api/v1/spool")["waiting_messages"]["acme"].as_u64() > Some(0)
    });
    assert!(gateway.book("acme", "lines", "spooled") < 1_000);
    assert_eq!(gateway.book("acme", "lines", "dropped"), 0);
    scene.configure(&settings("268435456"));
    reload(&scene, &gateway, APPLIED);
    for _ in 0..1_000 {
        device.puback().unwrap();
    }
    assert_eq!(gateway.book("acme", "lines", "spooled"), 1_000);
    gateway.assert_balanced();
}

#[test]
fn a_reload_under_load_loses_nothing_and_a_bad_one_changes_nothing() {
    let scene = scene_of(&["acme", "globex"]);
    let settings = |own: &str| format!("[output]\nkind = \"file\"\nflush_interval_ms = 20\n{UNLIMITED}{own}");
    scene.configure(&settings(""));
    let gateway = scene.start();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut device = Device::connect(&scene.listener, "dev-acme").unwrap();
            let topic = topic("acme", "dev-acme", "telemetry");
            while !stop.load(Ordering::Relaxed) {
                let from = sent.load(Ordering::Relaxed);
                let payloads: Vec<String> = (from..from + 50).map(|seq| envelope("dev-acme", seq)).collect();
                let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_bytes()));
                device.publish_all(messages, 50).unwrap();
                sent.fetch_add(50, Ordering::Relaxed);
            }
        });
        let more = || {
            let before = sent.load(Ordering::Relaxed);
            gateway.wait("more was sent", |_| sent.load(Ordering::Relaxed) >= before + 200);
        };
        more();
        for round in 0..4 {
            scene.configure(&settings(&format!("[tenants.acme]\ndatabase = \"round_{round}\"\n")));
            reload(&scene, &gateway, APPLIED);
            more();
        }
        for (bad, key) in [
            (
                "[tenants.acme]\ndatabase = \"shared\"\n[tenants.globex]\ndatabase = \"shared\"\n",
                "tenants.globex.database",
            ),
            ("[tenants.acme]\nburst = 0\n", "tenants.acme.burst"),
            ("[tenants.acme]\nbursts = 1\n", "bursts"),
        ] {
            scene.configure(&settings(bad));
            reload(&scene, &gateway, "the old one stays");
            assert!(scene.log().contains(key), "{}", scene.log());
        }
        let before = scene.lines("round_3").len();
        more();
        assert!(scene.lines("round_3").len() > before, "what held goes on");
        scene.configure(
            &(settings("[tenants.acme]\ndatabase = \"last\"\n").replace("= 20", "= 30")
                + "[spool]\nsync = \"never\"\n"),
        );
        reload(&scene, &gateway, "need a restart");
        assert!(scene.log().contains("output.flush_interval_ms, spool.sync"), "{}", scene.log());
        gateway.wait("the rest of it holds", |_| scene.path("lines/last").exists());
        stop.store(true, Ordering::Relaxed);
    });
    let sent = sent.load(Ordering::Relaxed);
    gateway.wait_written("acme", sent);
    gateway.assert_balanced();
    // Every message is somewhere, once, and in the order of the databases.
    let mut seqs = Vec::new();
    for database in ["telemetry_acme", "round_0", "round_1", "round_2", "round_3", "last"] {
        let lines = scene.lines(database);
        assert!(!lines.is_empty(), "{database}");
        let seq = |line: &String| {
            line.split("seq=").nth(1).unwrap().split('i').next().unwrap().parse::<u64>().unwrap()
        };
        seqs.extend(lines.iter().map(seq));
    }
    assert_eq!(seqs, (0..sent).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_table_wins_for_what_it_names_is_followed_and_outlives_its_database() {
    let (mut postgres, scene) = (Postgres::start().await, GatewayDir::new());
    let configuration = format!(
        "[output]\nkind = \"file\"\nflush_interval_ms = 20\n{UNLIMITED}[registry]\nkind = \"postgres\"\nurl = \"{}\"\n\
         settings_poll_s = 1\nquery_timeout_ms = 1000\n[tenants.acme]\ndatabase = \"of_file\"\ntable_prefix = \"f_\"\n",
        postgres.url()
    );
    scene.configure(&configuration);
    for _ in 0..2 {
        let (status, _, errors) = scene.verb(&["registry", "init"], "");
        assert_eq!(status.code(), Some(0), "{errors}");
    }
    postgres.run("UPDATE app_settings SET value = '1e9' WHERE key LIKE 'RATE_LIMIT_%'").await;
    for tenant in ["acme", "globex"] {
        let hash = tidegate::admission::registry::token_hash(&format!("tok-dev-{tenant}"));
        postgres
            .run(&format!(
                "INSERT INTO device_registry (tenant_id, device_id, site_id, provision_token_hash) \
                 VALUES ('{tenant}', 'dev-{tenant}', 'lab-1', '{hash}')"
            ))
            .await;
    }
    postgres
        .run("INSERT INTO tenants (tenant_id, settings) VALUES ('globex', '{\"database\": \"of_table\"}')")
        .await;
    let gateway = scene.start();
    let line_in =
        |database: &str, begin: &str| scene.lines(database).iter().any(|line| line.starts_with(begin));
    publish(&scene, "acme", 0..1);
    publish(&scene, "globex", 0..1);
    gateway.wait_written("globex", 1);
    gateway.wait_written("acme", 1);
    assert!(line_in("of_file", "f_telemetry,") && line_in("of_table", "telemetry,"));

    // Under load: a row comes, is changed, and is bad.
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(1));
    let changed = "settings of tenants were changed by the registry's table";
    let count = |words: &str| scene.log().matches(words).count();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let from = sent.load(Ordering::Relaxed);
                    publish(&scene, "acme", from..from + 50);
                    sent.fetch_add(50, Ordering::Relaxed);
                }
            });
            let run = |statement: &str| tokio::runtime::Handle::current().block_on(postgres.run(statement));
            let before = count(changed);
            run("INSERT INTO tenants (tenant_id, settings) VALUES ('acme', '{\"database\": \"rows\"}')");
            gateway.wait("the row holds", |_| count(changed) > before);
            gateway.wait("lines go there", |_| scene.path("lines/rows").exists());
            let bad = "settings in the registry's table are invalid";
            let before = count(bad);
            run("UPDATE tenants SET settings = '{\"database\": \"of_table\"}' WHERE tenant_id = 'acme'");
            gateway.wait("the bad row was seen", |_| count(bad) > before);
            assert!(scene.log().contains("tenants.acme.database"), "{}", scene.log());
            run(
                "UPDATE tenants SET settings = '{\"database\": \"rows\", \"tabels\": 3}' WHERE tenant_id = 'acme'",
            );
            gateway.wait("the next was seen", |_| count("`tenants.acme.tabels`: 3") > 0);
            stop.store(true, Ordering::Relaxed);
        });
    });
    let acme = sent.load(Ordering::Relaxed);
    gateway.wait_written("acme", acme);
    assert!(line_in("rows", "f_telemetry,"), "the file's prefix, the table's database");
    assert!(!line_in("of_table", "f_"), "what was in force stays");
    assert_eq!((scene.lines("of_file").len() + scene.lines("rows").len()) as u64, acme);
    gateway.assert_balanced();

    let payload = envelope("dev-globex", 7);
    let topic = topic("globex", "dev-globex", "telemetry");
    let explain = ["explain", "--json", "--topic", &topic, "--payload", &payload];
    let verdict: Value = serde_json::from_str(&scene.verb(&explain, "").1).unwrap();
    assert_eq!(verdict["database"], "of_table", "{verdict}");
    let (status, output, errors) = scene.verb(&["validate", "--registry", "--json"], "");
    assert_eq!(status.code(), Some(1), "a row is not good: {errors}");
    let output: Value = serde_json::from_str(&output).unwrap();
    let globex = &output["configuration"]["tenants"]["globex"];
    assert_eq!(globex["database"]["value"], "of_table", "{globex}");
    assert_eq!(globex["database"]["source"], "table tenants");
    assert!(output["findings"].to_string().contains("tenants.acme.tabels"), "{output}");
    assert_eq!(gateway.stop().code(), Some(0));

    // The database of the registry is down: the last settings of its table still apply.
    postgres.stop();
    let gateway = scene.start_unready();
    let verdict: Value = serde_json::from_str(&scene.verb(&explain, "").1).unwrap();
    assert_eq!(verdict["outcome"], "parked", "{verdict}");
    let row = serde_json::json!({
        "tenant_id": "globex", "device_id": "dev-globex", "site_id": "lab-1", "status": "ACTIVE",
        "provision_token_hash": tidegate::admission::registry::token_hash("tok-dev-globex"),
    });
    let known = serde_json::json!({"id": 1, "topic": topic, "payload": payload, "registry_row": row});
    let verdict: Value =
        serde_json::from_str(&scene.verb(&["explain", "--jsonl"], &known.to_string()).1).unwrap();
    assert_eq!(
        (&verdict["outcome"], &verdict["database"]),
        (&"lines".into(), &"of_table".into()),
        "{verdict}"
    );
    postgres.restart().await;
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    publish(&scene, "globex", 1..2);
    gateway.wait_written("globex", 2);
    assert_eq!(scene.lines("of_table").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_line_of_a_shared_database_is_kept_whole_and_replayed_whole() {
    let influxdb = Influxdb::start().await;
    let front = FakeInfluxdb3::start(&influxdb.url(), None).await;
    let mut scene = scene_of(&["acme"]);
    scene.configure(&to(
        &front,
        "database = \"shared\"\ntenant_tag = \"tenant\"\ntable_prefix = \"{tenant}.\"",
    ));
    scene.set_token("operator");
    let gateway = scene.start();
    front.fail_next([Fault::Status {
        status: 400,
        retry_after: None,
        body: r#"{"error":"partial write of line protocol occurred","data":[{"error_message":"not today","line_number":1,"original_line":"acme.telemetry"}]}"#,
    }]);
    publish(&scene, "acme", 7..8);
    gateway.wait("refused", |gateway| gateway.book("acme", "lines", "refused") == 1);
    let (status, output, errors) = scene.verb(&["quarantine", "replay", "--json", "--tenant", "acme"], "");
    assert_eq!(status.code(), Some(0), "{output}{errors}");
    gateway.wait_written("acme", 1);
    let stored =
        influxdb.ask("shared", "SELECT \"seq\" FROM \"acme.telemetry\" WHERE \"tenant\" = 'acme'").await;
    assert_eq!(stored["results"][0]["series"][0]["values"][0][1], 7, "{stored}");
    gateway.assert_balanced();
}

#[test]
fn a_heavy_decoder_goes_behind_those_of_other_tenants_and_loses_nothing() {
    const HEAVY: u64 = 20_000;
    let mut scene = scene_of(&["light"]);
    scene.device("heavy", "dev-1", "lab-1");
    scene.device("heavy", "dev-2", "lab-1");
    scene.guest("heavy", "hostile", "hostile");
    scene.configure(&format!("[output]\nkind = \"file\"\n{UNLIMITED}[guests]\nthreads = 1\n"));
    let gateway = scene.start();
    std::thread::scope(|scope| {
        let senders: Vec<_> = ["dev-1", "dev-2"]
            .into_iter()
            .map(|name| {
                let listener = scene.listener.clone();
                scope.spawn(move || {
                    let topic = topic("heavy", name, "hostile");
                    let payloads: Vec<String> = (0..HEAVY / 2)
                        .map(|seq| {
                            format!(r#"{{"site_id":"lab-1","provision_token":"tok-{name}","do":"work","seq":{seq}}}"#)
                        })
                        .collect();
                    let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_bytes()));
                    Device::connect(&listener, name).unwrap().publish_all(messages, 5_000).unwrap()
                })
            })
            .collect();
        gateway.wait("the heavy one is at work", |gateway| gateway.book("heavy", "messages", "lines") > 500);
        let mut device = Device::connect(&scene.listener, "dev-light").unwrap();
        let topic = topic("light", "dev-light", "telemetry");
        for seq in 0..30 {
            device.publish(&topic, envelope("dev-light", seq).as_bytes()).unwrap();
        }
        // Each of the light one's would have waited behind thousands.
        let heavy = gateway.book("heavy", "messages", "lines");
        assert!(heavy < HEAVY, "the heavy one was first");
        assert_eq!(senders.into_iter().map(|sender| sender.join().unwrap()).sum::<u64>(), HEAVY);
    });
    gateway.wait_for(Duration::from_secs(120), "all written", |gateway| {
        gateway.book("heavy", "lines", "written") == HEAVY
    });
    let lines = scene.lines("telemetry_heavy");
    for device in ["dev-1", "dev-2"] {
        let own = lines.iter().filter(|line| line.contains(&format!("device_id={device},")));
        let seq = |line: &String| {
            line.split("seq=").nth(1).unwrap().split('i').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(
            own.map(seq).collect::<Vec<_>>(),
            (0..HEAVY / 2).collect::<Vec<_>>(),
            "in order, each once"
        );
    }
    gateway.assert_balanced();
}
