//! All gateways in PostgreSQL: rows that are kept, a sum of books that balances over gateways that come and go, and a
//! database that may be away.

use serde_json::Value;
use tidegate_simulator::Device;

use crate::end_to_end::{envelope, topic};
use crate::harness::gateway::GatewayDir;
use crate::harness::postgres::Postgres;

fn gateway_dir(postgres: &Postgres, name: &str, more: &str) -> GatewayDir {
    let mut dir = GatewayDir::new();
    dir.device("acme", "dev-1", "lab-1");
    dir.configure(&format!(
        "[admission]\nrate_per_s = 0\n[output]\nkind = \"file\"\n{more}\
         [fleet]\nname = \"{name}\"\npostgres = \"{}\"\nreport_s = 1\ndrain_notice_s = 0\ndrain_spread_s = 0\n",
        postgres.url()
    ));
    dir.set_token("operator");
    dir
}

fn publish(dir: &GatewayDir, count: u64) {
    let mut device = Device::connect(&dir.listener, "dev-1").unwrap();
    for seq in 0..count {
        device.publish(&topic("acme", "dev-1", "telemetry"), envelope("dev-1", seq).as_bytes()).unwrap();
    }
}

/// The answer of a verb in JSON, and its exit code.
fn fleet(dir: &GatewayDir, arguments: &[&str]) -> (Option<i32>, Value) {
    let (status, output, errors) = dir.verb(&[&["fleet", "--json"], arguments].concat(), "");
    let json = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}{errors}"));
    (status.code(), json)
}

fn row(dir: &GatewayDir, name: &str) -> Value {
    let (_, all) = fleet(dir, &["list", "--all"]);
    let rows = all["gateways"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
}

/// The sum over all gateways of one number of acme's books; it must balance.
fn sum(dir: &GatewayDir, section: &str, key: &str) -> u64 {
    let (code, books) = fleet(dir, &["books"]);
    assert!(code == Some(0) && books["balanced"] == true, "{books:#}");
    books["tenants"]["acme"][section][key].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sum_of_books_balances_over_gateways_that_come_and_go() {
    let postgres = Postgres::start().await;
    let dirs: Vec<GatewayDir> = ["g1", "g2"].map(|name| gateway_dir(&postgres, name, "")).into();
    let (one, two) = (&dirs[0], &dirs[1]);
    let (status, output, _) = one.verb(&["fleet", "init"], "");
    assert!(status.success() && output.contains("has the table"), "{output}");
    let (first, second) = (one.start(), two.start());
    first.wait("both report", |_| row(one, "g1")["alive"] == true && row(one, "g2")["alive"] == true);
    publish(one, 30);
    publish(two, 12);
    first.wait("counted", |_| sum(one, "messages", "received") == 42 && sum(one, "lines", "written") == 42);

    // Each shows what it is.
    let shown = row(two, "g1");
    assert_eq!(shown["state"], "serves");
    let report = &shown["report"];
    assert_eq!(
        (&report["version"], &report["listen"]),
        (&env!("CARGO_PKG_VERSION").into(), &one.listener.as_str().into())
    );
    assert_eq!(report["backlog"]["lines"], 0);
    assert!(report["decoders"][0]["guest"].as_str().unwrap().contains('#'), "{report}");
    assert!(report["budgets"]["memory_bytes_max"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["errors"], serde_json::json!([]));
    assert!(shown["clock_ahead_ms"].as_i64().unwrap().abs() < 2_000, "{shown}");
    let metric = "tidegate_lines_written_total{gateway=\"g1\",tenant=\"acme\"}";
    assert_eq!(first.metric(metric), Some(30.0));
    let (status, text, _) = one.verb(&["fleet", "list"], "");
    assert!(status.success() && text.contains("g1") && text.contains(&two.listener), "{text}");
    assert_eq!(second.json("/api/v1/fleet")["gateways"].as_array().unwrap().len(), 2);
    assert_eq!(second.json("/api/v1/fleet/books")["tenants"]["acme"]["messages"]["received"], 42);

    // A second gateway of the same name does its work, and does not report.
    let same = gateway_dir(&postgres, "g1", "");
    let other = same.start();
    other.wait("refused", |_| same.log().contains("is in use by the gateway at"));
    publish(&same, 1);
    assert_eq!(row(one, "g1")["report"]["listen"], one.listener);
    assert_eq!(sum(one, "messages", "received"), 42);
    let (_, output, _) = same.verb(&["doctor"], "");
    assert!(output.contains("fleet.name = \"g1\" is in use by the gateway at"), "{output}");
    let (_, output, _) = one.verb(&["doctor"], "");
    assert!(output.contains("and can be read") && !output.contains("is in use by"), "{output}");
    assert_eq!(same.log().matches("is in use by the gateway at").count(), 1, "{}", same.log());
    drop(other);

    // Drained from afar.
    let (status, output, errors) = one.verb(&["fleet", "drain", "g2", "--wait-s", "60"], "");
    assert!(status.success() && output.contains("g2 is drained"), "{output}{errors}");
    assert_eq!(second.get("/readyz").0, 503);
    let (status, _, errors) = one.verb(&["fleet", "retire", "g2"], "");
    assert!(status.code() == Some(1) && errors.contains("stop it first"), "{errors}");
    assert!(one.verb(&["fleet", "resume", "g2"], "").0.success());
    second.wait("serves", |gateway| gateway.get("/readyz").0 == 200);

    // The last word holds, here or from afar, also if it says the same as the one before it from there.
    let is_ready = |code: u16| second.wait("the last word", |gateway| gateway.get("/readyz").0 == code);
    let says = |words: &[&str]| assert!(two.verb(words, "").0.success(), "{words:?}");
    says(&["fleet", "drain", "g2", "--wait-s", "0"]);
    is_ready(503);
    says(&["drain", "--resume"]);
    is_ready(200);
    second.wait("the row follows the switch", |_| row(one, "g2")["state"] == "serves");
    says(&["fleet", "drain", "g2", "--wait-s", "60"]);
    is_ready(503);
    says(&["fleet", "resume", "g2"]);
    is_ready(200);
    says(&["drain", "--wait-s", "60"]);
    is_ready(503);
    says(&["fleet", "resume", "g2"]);
    is_ready(200);

    // Killed and stopped, started again, and retired: nothing is counted twice or forgotten.
    assert_eq!(second.stop().code(), Some(0));
    assert_eq!(
        (row(one, "g2")["state"].clone(), row(one, "g2")["alive"].clone()),
        ("stopped".into(), false.into())
    );
    assert_eq!(sum(one, "messages", "received"), 42);
    first.kill();
    let first = one.start();
    publish(one, 5);
    first.wait("counted", |_| sum(one, "messages", "received") == 47 && sum(one, "lines", "written") == 47);
    assert!(one.verb(&["fleet", "retire", "g2"], "").0.success());
    assert_eq!(fleet(one, &["list"]).1["gateways"].as_array().unwrap().len(), 1);
    assert_eq!(sum(one, "lines", "written"), 47, "the books of a retired gateway stay");
    let second = two.start();
    publish(two, 3);
    second.wait("counted", |_| sum(one, "messages", "received") == 50 && sum(one, "lines", "written") == 50);
    assert_eq!(row(one, "g2")["state"], "serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_something_else_has_written_hides_no_other_and_ends_no_reader() {
    let postgres = Postgres::start().await;
    let dir = gateway_dir(&postgres, "g1", "");
    assert!(dir.verb(&["fleet", "init"], "").0.success());
    let gateway = dir.start();
    gateway.wait("reports", |_| row(&dir, "g1")["alive"] == true);
    let most = u64::MAX;
    let books = format!(
        r#"{{"acme":{{"messages":{{"received":{most},"parked":{most}}},"lines":{{"pending":{most}}}}}}}"#
    );
    let values = [
        ("late", "'-infinity'", 2_147_483_647, 0, "{}", "{}"),
        ("soon", "'infinity'", -2_147_483_648, i64::MIN, "[1]", "{}"),
        ("list", "now()", 10, i64::MAX, "7", "[]"),
        ("most", "now()", 10, 0, "{}", &books),
        ("more", "'294276-01-01'", 10, 0, "{}", &books),
    ];
    for (name, time, report_s, ahead, report, books) in values {
        postgres
            .run(&format!(
                "INSERT INTO tidegate_gateways VALUES ('{name}', 'f', 's', 'serves', 'serves', {time}, {time}, \
                 {report_s}, {ahead}, '{report}', '{books}', '{books}')"
            ))
            .await;
    }
    let (code, all) = fleet(&dir, &["list"]);
    let rows = all["gateways"].as_array().unwrap();
    assert!(code == Some(1) && rows.len() == 6, "{all:#}");
    let alive: Vec<_> = rows.iter().filter(|row| row["alive"] == true).map(|row| &row["name"]).collect();
    assert_eq!(alive, ["g1", "list", "most"]);
    assert_eq!(row(&dir, "most")["lines_pending"], most);
    let fault = row(&dir, "list")["unreadable"].to_string();
    assert!(fault.contains("books of earlier starts cannot be read"), "{fault}");
    let (_, text, _) = dir.verb(&["fleet", "list"], "");
    assert!(text.contains("cannot be read"), "{text}");
    let (code, sums) = fleet(&dir, &["books"]);
    assert_eq!(
        (code, &sums["balanced"], &sums["unreadable"]),
        (Some(1), &false.into(), &serde_json::json!(["list"]))
    );
    assert_eq!(gateway.json("/api/v1/fleet/books")["unreadable"], serde_json::json!(["list"]));
    assert_eq!(gateway.json("/api/v1/fleet")["gateways"].as_array().unwrap().len(), 6);
    // A gateway that starts takes such a row, if it is nobody's.
    for name in ["late", "more"] {
        let dir = gateway_dir(&postgres, name, "");
        let gateway = dir.start();
        gateway.wait("reports", |_| row(&dir, name)["alive"] == true);
    }
    let (status, _, errors) = dir.verb(&["fleet", "show", "nobody"], "");
    assert!(status.code() == Some(1) && errors.contains("there is no gateway"), "{errors}");
    postgres.run("ALTER TABLE tidegate_gateways RENAME TO elsewhere").await;
    let (_, _, errors) = dir.verb(&["fleet", "list"], "");
    assert!(
        errors.contains("listing gateways in the fleet's database") && !errors.contains("registry"),
        "{errors}"
    );
    assert_eq!(errors.matches("listing gateways").count(), 1, "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_s_database_that_is_away_is_nothing_to_messages() {
    let mut postgres = Postgres::start().await;
    let dir = gateway_dir(&postgres, "g1", "");
    // It starts, and works, without the table and without the server.
    let gateway = dir.start();
    gateway.wait("said", |_| dir.log().contains("tidegate fleet init"));
    let (_, output, _) = dir.verb(&["doctor"], "");
    assert!(output.contains("The table of gateways cannot be read"), "{output}");
    publish(&dir, 5);
    assert!(dir.verb(&["fleet", "init"], "").0.success());
    gateway.wait("reported", |_| row(&dir, "g1")["alive"] == true);
    postgres.stop();
    gateway.wait("said", |_| {
        dir.log().contains("does not depend on that") || dir.log().contains("do not depend on that")
    });
    publish(&dir, 5);
    assert_eq!(gateway.get("/readyz").0, 200);
    let (status, body) = gateway.get("/api/v1/fleet");
    assert!(status == 503 && body.contains("FLEET_UNAVAILABLE"), "{body}");
    assert!(!body.contains(crate::harness::postgres::PASSWORD));
    gateway.wait_written("acme", 10);
    postgres.restart().await;
    gateway.wait("back", |_| row(&dir, "g1")["alive"] == true && sum(&dir, "messages", "received") == 10);
    let shown = gateway.json("/api/v1/configuration").to_string();
    assert!(!shown.contains(crate::harness::postgres::PASSWORD), "{shown}");
    postgres.stop();
    let began = std::time::Instant::now();
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
