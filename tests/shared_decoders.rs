//! Shared decoders: one instance decodes for all tenants, and everything that a message brings about still belongs to
//! its own tenant.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::sync::Arc;

use tempfile::TempDir;
use tidegate::core::ack::settle::settle_all;
use tidegate::core::ack::token::AckToken;
use tidegate::core::books::{Account, Outcome};
use tidegate::core::device::make_device;
use tidegate::core::device_hash::DeviceHasher;
use tidegate::core::ids::TenantId;
use tidegate::core::line_protocol::Dialect;
use tidegate::core::message::{Admitted, CheckedBatch, RefusedMessage};
use tidegate::core::tenant::Tenant;
use tidegate::core::tenant::settings::TenantSettings;
use tidegate::decode::schedule::cpu_quota::CpuQuotas;
use tidegate::decode::{DecodeHost, DecodeSettings, DecodeSink, Decoder};
use tidegate::rollout::{CompilerSettings, GuestStore, Persistence};
use tidegate_simulator::{Device, packet};

use crate::harness::gateway::{Gateway, GatewayDir, built_guest};

const TENANTS: usize = 8;

fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

/// A gateway on one decode thread, whose route `_default/meter` is shared by some tenants with a device each.
fn scene() -> GatewayDir {
    let mut scene = GatewayDir::new();
    for number in 0..TENANTS {
        scene.device(&tenant(number), &format!("dev-{number}"), "lab-1");
    }
    scene.guest("_default", "meter", "communal");
    fs::write(scene.path("guests/_default/meter.toml"), "isolation = \"route\"\n").unwrap();
    scene.configure(
        "[output]\nkind = \"file\"\nflush_interval_ms = 20\n[admission]\nrate_per_s = 0\n\
         [guests]\nthreads = 1\n",
    );
    scene.set_token("of-the-operator");
    scene
}

/// Publishes in one write a message of each of these tenants, with a wish and a number, and waits for all PUBACKs
/// in order.
fn publish(connection: &mut Device, messages: &[(usize, &str, u64)]) {
    let mut bytes = Vec::new();
    for (id, (number, wish, seq)) in messages.iter().enumerate() {
        let topic = format!("tenant/{}/device/dev-{number}/meter", tenant(*number));
        let payload = format!(
            r#"{{"site_id":"lab-1","provision_token":"tok-dev-{number}","do":"{wish}","seq":{seq}}}"#
        );
        packet::publish_into(&mut bytes, &topic, payload.as_bytes(), Some(id as u16 + 1));
    }
    connection.stream.write_all(&bytes).unwrap();
    for id in 1..=messages.len() {
        assert_eq!(connection.puback().unwrap(), id as u16, "{messages:?}");
    }
}

/// Rounds of good messages of all tenants, in turn.
fn rounds(from: u64, count: u64) -> Vec<(usize, &'static str, u64)> {
    (from..from + count).flat_map(|seq| (0..TENANTS).map(move |number| (number, "ok", seq))).collect()
}

/// A field of each of a tenant's lines, in their order.
fn fields(scene: &GatewayDir, number: usize, name: &str) -> Vec<String> {
    let lines = scene.lines(&format!("telemetry_{}", tenant(number)));
    let own = format!("m,device_id=dev-{number},site_id=lab-1 ");
    let field = |line: &String| {
        let rest = line.strip_prefix(&own).unwrap_or_else(|| panic!("{line} is not of {own}"));
        let fields = rest.rsplit_once(' ').unwrap().0;
        let value = fields.split(',').find_map(|field| field.strip_prefix(&format!("{name}="))).unwrap();
        value.trim_end_matches('i').trim_matches('"').to_owned()
    };
    lines.iter().map(field).collect()
}

fn numbers(scene: &GatewayDir, number: usize, name: &str) -> Vec<u64> {
    fields(scene, number, name).iter().map(|value| value.parse().unwrap()).collect()
}

/// The refusals of a tenant, by quarantine: reason and device of each.
fn refusals(gateway: &Gateway<'_>) -> Vec<(String, String)> {
    let quarantine = gateway.json("/api/v1/quarantine");
    let entries = quarantine["latest"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    entries.map(|entry| (text(&entry["reason"]), text(&entry["tenant"]))).collect()
}

#[test]
fn one_instance_decodes_for_all_tenants_and_is_told_none_of_their_names() {
    let scene = scene();
    let gateway = scene.start();
    let mut connection = Device::connect(&scene.listener, "bridge").unwrap();
    publish(&mut connection, &rounds(0, 4));
    publish(&mut connection, &rounds(4, 4));
    let mut seen = BTreeSet::new();
    for number in 0..TENANTS {
        assert_eq!(numbers(&scene, number, "seq"), (0..8).collect::<Vec<u64>>());
        assert_eq!(
            numbers(&scene, number, "total"),
            (1..=8).collect::<Vec<u64>>(),
            "state is the tenant's own"
        );
        assert!(fields(&scene, number, "told").iter().all(|told| told == "_default"));
        seen.extend(numbers(&scene, number, "seen"));
    }
    // No message was the first of an instance but one.
    assert_eq!(seen, (1..=8 * TENANTS as u64).collect());
    gateway.assert_balanced();
}

#[test]
fn a_tenants_own_decoder_meets_no_message_of_another() {
    let scene = scene();
    scene.guest("tenant-3", "meter", "communal");
    let gateway = scene.start();
    let mut connection = Device::connect(&scene.listener, "bridge").unwrap();
    publish(&mut connection, &rounds(0, 4));
    assert_eq!(numbers(&scene, 3, "seen"), [1, 2, 3, 4]);
    assert!(fields(&scene, 3, "told").iter().all(|told| told == "tenant-3"));
    let others: BTreeSet<u64> =
        (0..TENANTS).filter(|n| *n != 3).flat_map(|number| numbers(&scene, number, "seen")).collect();
    assert_eq!(others, (1..=4 * (TENANTS as u64 - 1)).collect());
    gateway.assert_balanced();
}

#[test]
fn each_fault_in_a_shared_batch_is_its_own_tenants_and_costs_the_others_nothing() {
    let scene = scene();
    let gateway = scene.start();
    let mut connection = Device::connect(&scene.listener, "bridge").unwrap();
    let attacks = [
        ("trap", "GUEST_TRAP"),
        ("loop", "GUEST_DEADLINE"),
        ("grow", "GUEST_MEMORY"),
        ("refuse", "GUEST_REFUSED"),
        ("bad-line", "BAD_LINE"),
        ("forge", "IDENTITY_IN_LINE"),
    ];
    for (round, (attack, reason)) in attacks.into_iter().enumerate() {
        // Each attack is another tenant's, and stands amid the messages of all.
        let mut messages = rounds(10 * round as u64, 3);
        let attacker = round % TENANTS;
        messages[TENANTS + attacker].1 = attack;
        publish(&mut connection, &messages);
        let refused = refusals(&gateway);
        let expected = (reason.to_owned(), tenant(attacker));
        assert_eq!(
            refused.iter().filter(|refusal| **refusal == expected).count(),
            1,
            "{attack}: {refused:?}"
        );
        assert_eq!(refused.len(), round + 1, "{attack}: {refused:?}");
    }
    for number in 0..TENANTS {
        let own = (0..attacks.len() as u64).flat_map(|round| (0..3).map(move |seq| (round, seq)));
        let good = own.filter(|(round, seq)| !(*round as usize == number && *seq == 1));
        let expected: Vec<u64> = good.map(|(round, seq)| 10 * round + seq).collect();
        assert_eq!(numbers(&scene, number, "seq"), expected);
        // A refused message changed nothing of the state, and no message changed it twice.
        let totals: Vec<u64> = (1..=expected.len() as u64).collect();
        assert_eq!(numbers(&scene, number, "total"), totals);
        let refused = u64::from(number < attacks.len());
        assert_eq!(gateway.book(&tenant(number), "messages", "quarantined"), refused);
        assert_eq!(gateway.book(&tenant(number), "messages", "received"), 3 * attacks.len() as u64);
    }
    let listed = gateway.json("/api/v1/guests");
    let listed = listed["guests"].as_array().unwrap().iter().find(|guest| guest["type"] == "meter").unwrap();
    assert_eq!(listed["messages"], 3 * attacks.len() * TENANTS, "none is counted twice");
    gateway.assert_balanced();
}

#[test]
fn a_text_of_a_shared_decoder_is_logged_for_the_tenant_whose_message_it_was_about() {
    let scene = scene();
    let gateway = scene.start();
    let mut connection = Device::connect(&scene.listener, "bridge").unwrap();
    let mut messages = rounds(0, 3);
    messages[TENANTS + 5].1 = "say";
    publish(&mut connection, &messages);
    let (status, log, _) = scene.verb(&["guest", "log", "_default", "meter"], "");
    assert!(status.success());
    assert_eq!(log.matches("of dev-5").count(), 1, "{log}");
    assert!(log.contains("tenant-5/meter"), "{log}");
    for number in 0..TENANTS {
        assert_eq!(numbers(&scene, number, "seq"), [0, 1, 2]);
        assert_eq!(numbers(&scene, number, "total"), [1, 2, 3]);
    }
    gateway.assert_balanced();
}

/// A decoder of one thread with the shared route, and its tenants; nothing learns what comes of a message.
struct Bench {
    _folder: TempDir,
    guests: GuestStore,
    decoder: Decoder,
    quotas: Arc<CpuQuotas>,
    tenants: Vec<Arc<Tenant>>,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("_default")).unwrap();
        fs::copy(built_guest("communal"), folder.path().join("_default/meter.wasm")).unwrap();
        fs::write(folder.path().join("_default/meter.toml"), "isolation = \"route\"\n").unwrap();
        let settings = DecodeSettings {
            threads: 1,
            deadline_ms: 10,
            memory_bytes_max: 16 << 20,
            component_bytes_max: 10 << 20,
            dialect: Dialect::V3,
            large: None,
        };
        let host = Arc::new(DecodeHost::new(settings, Arc::default()).unwrap());
        let compiler = CompilerSettings {
            program: env!("CARGO_BIN_EXE_tidegate").into(),
            ..CompilerSettings::new(None)
        };
        let guests = GuestStore::open(folder.path(), Persistence::none(compiler, None), host).unwrap().0;
        let quotas = Arc::new(CpuQuotas::new(1));
        let decoder = Decoder::new(guests.host().clone()).with_quotas(quotas.clone());
        let new = |number| {
            let id = TenantId::new(&tenant(number));
            let settings = TenantSettings::plain(Ok("db".into()));
            Arc::new(Tenant::new(id.clone(), Arc::new(Account::new(id)), settings))
        };
        Self { _folder: folder, guests, decoder, quotas, tenants: (0..TENANTS).map(new).collect() }
    }

    /// Decodes a message of each tenant in one call, if they may share one; `wish` is that of tenant 2.
    fn decode(&mut self, wish: &str) {
        let hasher = DeviceHasher::new(1);
        let messages = self.tenants.iter().enumerate().map(|(number, tenant)| {
            let wish = if number == 2 { wish } else { "ok" };
            let device = make_device("dev-1", "lab-1", hasher.hash(tenant.id.as_str(), "dev-1"));
            let payload = format!(r#"{{"do":"{wish}","seq":1}}"#);
            tenant.account.receive(1);
            Admitted::for_trial("a/meter".into(), 2..7, payload.into(), 1, tenant.clone(), Arc::new(device))
        });
        self.decoder.decode(messages.collect(), &Nothing);
    }

    /// The CPU time of a tenant, as a part of its share.
    fn pressure(&self, number: usize) -> f64 {
        self.quotas.pressure(&self.quotas.usage(&self.tenants[number]))
    }

    fn is_slow(&self, number: usize) -> bool {
        let host = self.guests.host();
        let version = host.table().route("any", "meter").unwrap().version.id.clone();
        host.standings().get(&self.tenants[number].id, &"meter".into(), &version).cost.is_slow()
    }
}

/// Takes messages and counts none.
struct Nothing;

impl DecodeSink for Nothing {
    fn lines(&self, batches: Vec<CheckedBatch>) {
        batches.into_iter().for_each(CheckedBatch::settle);
    }

    fn empty(&self, messages: Vec<AckToken>, account: &Arc<Account>) {
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<RefusedMessage>) {
        for message in messages {
            message.token.settle(Outcome::Quarantined, &message.account);
        }
    }
}

#[test]
fn the_time_of_a_shared_batch_is_charged_to_the_tenant_whose_message_took_it() {
    // A message that takes some more, one that takes too much for a shared call, and one that never ends.
    for wish in ["work", "burn", "loop", "grow"] {
        let mut bench = Bench::new();
        for _ in 0..5 {
            bench.decode("ok");
        }
        for _ in 0..10 {
            bench.decode(wish);
        }
        let others = (0..TENANTS).filter(|number| *number != 2).map(|number| bench.pressure(number));
        let most = others.fold(0.0, f64::max);
        assert!(bench.pressure(2) > 4.0 * most, "{wish}: {} beside {most}", bench.pressure(2));
    }
}

#[test]
fn a_tenant_that_makes_a_shared_decoder_slow_is_slow_alone() {
    let mut bench = Bench::new();
    for _ in 0..30 {
        bench.decode("burn");
    }
    let slow: Vec<usize> = (0..TENANTS).filter(|number| bench.is_slow(*number)).collect();
    assert_eq!(slow, [2]);
}
