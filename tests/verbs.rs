//! The command line as users script against it: exit codes, stdout, and the texts of errors.

use serde_json::Value;

use crate::harness::gateway::{GatewayDir, tidegate};

#[test]
fn validate_prints_each_value_with_its_source() {
    let scene = GatewayDir::new();
    let (status, output, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    let line = |key: &str| output.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("kind = \"file\"").contains("# "), "{output}");
    assert!(line("batch_lines = 500").ends_with("# default"));
    let (status, json, _) = scene.verb(&["validate", "--json"], "");
    assert_eq!(status.code(), Some(0));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["configuration"]["output"]["kind"],
        serde_json::json!({"value": "file", "source": "file"})
    );
}

#[test]
fn a_bad_key_is_refused_with_its_name_and_its_line() {
    let scene = GatewayDir::new();
    scene.configure("[output]\nbatch_linez = 5\n");
    let (status, output, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(2));
    assert!(output.is_empty(), "results only on stdout: {output}");
    assert!(errors.contains("batch_linez") && errors.contains("line "), "{errors}");
}

#[test]
fn a_bad_value_is_refused_with_what_is_allowed() {
    let scene = GatewayDir::new();
    for (more, named) in [
        ("[output]\nkind = \"influx\"\n", "influxdb3, influxdb2, influxdb1, file"),
        ("[output]\ndatabase = \"all\"\n", "{tenant}"),
        ("[registry]\nkind = \"open\"\n", "open_tenants"),
        ("[output]\nbatch_lines = 0\n", "1 to 10000"),
    ] {
        scene.configure(more);
        let (status, _, errors) = scene.verb(&["run"], "");
        assert_eq!(status.code(), Some(2), "{more}: {errors}");
        assert!(errors.contains(named), "{more}: {errors}");
    }
}

#[test]
fn a_registry_or_a_guests_folder_that_is_not_there_is_bad_configuration_and_named() {
    let scene = GatewayDir::new();
    for (more, named) in [
        ("[registry]\nfile = \"nowhere.csv\"\n", "`registry.file`: \"nowhere.csv\""),
        ("[guests]\ndir = \"nowhere\"\n", "`guests.dir`: \"nowhere\""),
    ] {
        scene.configure(more);
        let (status, _, errors) = scene.verb(&["run"], "");
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains(named), "{errors}");
    }
}

#[test]
fn a_listener_for_strangers_is_refused_while_a_message_could_enter_without_a_credential() {
    let mut scene = GatewayDir::new();
    scene.listener = "0.0.0.0:18830".into();
    scene.configure("[registry]\nrequire_token = false\n");
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(2));
    assert!(errors.contains("without a credential"), "{errors}");
    scene.configure("");
    assert_eq!(scene.verb(&["validate"], "").0.code(), Some(0));
}

#[test]
fn variables_rank_above_the_file_and_the_old_services_variables_below_it() {
    let scene = GatewayDir::new();
    scene.configure("[output]\nflush_interval_ms = 250\n");
    let output = tidegate()
        .args(["validate", "--json"])
        .current_dir(scene.path(""))
        .env("INFLUX_FLUSH_INTERVAL_MS", "111")
        .env("INFLUX_BATCH_SIZE", "222")
        .env("TIDEGATE_OUTPUT__URL", "http://127.0.0.1:9999")
        .env("INFLUXDB_URL", "http://127.0.0.1:8888")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let output = &json["configuration"]["output"];
    assert_eq!(output["flush_interval_ms"], serde_json::json!({"value": 250, "source": "file"}));
    assert_eq!(
        output["batch_lines"],
        serde_json::json!({"value": 222, "source": "variable INFLUX_BATCH_SIZE"})
    );
    assert_eq!(output["url"]["value"], "http://127.0.0.1:9999");
}

#[test]
fn the_longest_flush_interval_is_no_shorter_than_the_interval() {
    let scene = GatewayDir::new();
    scene.configure("[output]\nflush_interval_ms = 2000\nflush_interval_max_ms = 1999\n");
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert_eq!(status.code(), Some(2));
    for named in ["output.flush_interval_max_ms", "1999", "2000"] {
        assert!(errors.contains(named), "{named} is missing:\n{errors}");
    }
    // A configuration from before there was a longest one.
    scene.configure("[output]\nflush_interval_ms = 30000\n");
    let (status, output, errors) = scene.verb(&["validate", "--json"], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    let json: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(json["configuration"]["output"]["flush_interval_max_ms"]["value"], 30_000);
}

#[test]
fn explain_says_step_by_step_what_would_happen() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    let payload = crate::end_to_end::envelope("dev-1", 7);
    let topic = crate::end_to_end::topic("acme", "dev-1", "telemetry");
    let (status, output, errors) = scene.verb(&["explain", "--topic", &topic, "--payload", &payload], "");
    assert_eq!(status.code(), Some(0), "{errors}");
    for named in [
        "telemetry_acme",
        "pulse@",
        "telemetry,device_id=dev-1,site_id=lab-1 seq=7i,v=7i 1795424398007000000",
    ] {
        assert!(output.contains(named), "{named} is missing:\n{output}");
    }
    let (status, output, _) = scene.verb(&["explain", "--topic", &topic], "no json");
    assert_eq!(status.code(), Some(1), "a refused message");
    assert!(output.contains("BAD_PAYLOAD"), "{output}");
}

#[test]
fn the_device_verb_keeps_the_registry_without_ever_showing_a_token() {
    let scene = GatewayDir::new();
    let (status, _, errors) =
        scene.verb(&["device", "put", "acme", "dev-9", "--site", "lab-1"], "tok-secret\n");
    assert_eq!(status.code(), Some(0), "{errors}");
    let file = std::fs::read_to_string(scene.path("devices.csv")).unwrap();
    assert!(file.contains("acme,dev-9,lab-1,ACTIVE,") && !file.contains("tok-secret"), "{file}");
    let (_, listed, _) = scene.verb(&["device", "list", "--json"], "");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["device_id"], "dev-9", "{listed}");
    assert_eq!(scene.verb(&["device", "revoke", "acme", "dev-9"], "").0.code(), Some(0));
    assert!(
        std::fs::read_to_string(scene.path("devices.csv")).unwrap().contains("acme,dev-9,lab-1,REVOKED,")
    );
    assert_eq!(scene.verb(&["device", "rm", "acme", "dev-9"], "").0.code(), Some(0));
    assert_eq!(scene.verb(&["device", "rm", "acme", "dev-9"], "").0.code(), Some(1), "it is gone");
}

#[test]
fn devices_that_are_put_at_the_same_time_are_all_there() {
    let scene = GatewayDir::new();
    std::thread::scope(|scope| {
        for n in 0..12 {
            let scene = &scene;
            scope.spawn(move || {
                let (status, _, errors) =
                    scene.verb(&["device", "put", "acme", &format!("dev-{n}"), "--site", "s"], "tok");
                assert_eq!(status.code(), Some(0), "{errors}");
            });
        }
    });
    let (_, listed, _) = scene.verb(&["device", "list", "--json"], "");
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap().as_array().unwrap().len(), 12);
}

#[test]
fn test_runs_the_cases_beside_a_guest_and_shows_a_difference_line_by_line() {
    let scene = GatewayDir::new();
    let cases = scene.path("guests/_default/telemetry.cases.jsonl");
    let payload = crate::end_to_end::envelope("dev-1", 7);
    let case = |name: &str, line: &str| {
        serde_json::json!({
            "name": name, "topic": crate::end_to_end::topic("acme", "dev-1", "telemetry"), "payload": payload,
            "received_at": "2026-11-23T09:00:00Z", "site": "lab-1", "expect": {"lines": [line]},
        })
    };
    let right = "telemetry,device_id=dev-1,site_id=lab-1 seq=7i,v=7i 1795424398007000000";
    std::fs::write(&cases, format!("{}\n", case("right", right))).unwrap();
    let (status, output, errors) = scene.verb(&["test", "guests"], "");
    assert_eq!(status.code(), Some(0), "{output}{errors}");
    std::fs::write(&cases, format!("{}\n{}\n", case("right", right), case("wrong", "telemetry seq=8i")))
        .unwrap();
    let (status, output, _) = scene.verb(&["test", "guests"], "");
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(
        output.contains("wrong") && output.contains("telemetry seq=8i") && output.contains(right),
        "{output}"
    );
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    // Each as its help lists it, so that none is forgotten here; the second level too.
    let help = |verbs: &[&str]| {
        let output = tidegate().args(verbs).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = |text: &str| -> Vec<String> {
        let Some((_, commands)) = text.split_once("Commands:\n") else { return Vec::new() };
        let names = commands.lines().take_while(|line| !line.is_empty());
        let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    let mut seen = 0;
    for verb in listed(&help(&[])).iter().filter(|verb| *verb != "help") {
        let text = help(&[verb]);
        assert!(text.contains("Example"), "{verb}: {text}");
        for action in listed(&text).iter().filter(|action| *action != "help") {
            let text = help(&[verb, action]);
            assert!(text.contains("Example"), "{verb} {action}: {text}");
            seen += 1;
        }
    }
    assert!(seen >= 18, "the verbs within verbs are not found in the help: {seen}");
    assert_eq!(tidegate().arg("no-such-verb").output().unwrap().status.code(), Some(2));
}

#[test]
fn the_configuration_may_be_named_before_and_after_a_verb_within_a_verb() {
    let scene = GatewayDir::new();
    std::fs::rename(scene.path("tidegate.toml"), scene.path("other.toml")).unwrap();
    for (verb, action) in [("guest", "list"), ("device", "list"), ("quarantine", "list")] {
        for arguments in [[verb, "--config", "other.toml", action], [verb, action, "--config", "other.toml"]]
        {
            let (status, _, errors) = scene.verb(&arguments, "");
            assert_eq!(status.code(), Some(0), "{arguments:?}: {errors}");
        }
        let (status, _, errors) = scene.verb(&[verb, action, "--config", "none.toml"], "");
        assert!(status.code() == Some(2) && errors.contains("none.toml"), "{verb}: {errors}");
    }
    let (_, _, errors) = scene.verb(&["registry", "init", "--config", "other.toml"], "");
    assert!(errors.contains("registry.kind"), "{errors}");
}

#[test]
fn a_secret_of_nothing_a_folder_that_is_not_there_and_bad_certificates_are_bad_configuration() {
    let mut scene = GatewayDir::new();
    std::fs::write(scene.path("empty"), "").unwrap();
    std::fs::write(scene.path("blank"), " \n").unwrap();
    scene.admin = scene.admin.replace("127.0.0.1", "0.0.0.0");
    let file = "[output]\nkind = \"file\"\n";
    for (more, admin, named) in [
        (file, "token_file = \"empty\"\n", "`admin.token_file`: \"empty\""),
        (file, "token_file = \"blank\"\n", "`admin.token_file`: \"blank\""),
        (file, "token_file = \"tidegate.toml\"\ntenant_tokens_dir = \"none\"\n", "admin.tenant_tokens_dir"),
        ("[output]\ntoken_file = \"empty\"\n", "token_file = \"tidegate.toml\"\n", "output.token_file"),
        (
            "[tenants.acme]\noutput_token_file = \"blank\"\n",
            "token_file = \"tidegate.toml\"\n",
            "`tenants.acme.output_token_file`: \"blank\"",
        ),
        (
            "tls_cert_file = \"none.pem\"\ntls_key_file = \"none.key\"\n",
            "token_file = \"tidegate.toml\"\n",
            "`listen.tls_cert_file`: \"none.pem\"",
        ),
        (
            "tls_cert_file = \"empty\"\ntls_key_file = \"empty\"\n",
            "token_file = \"tidegate.toml\"\n",
            "`listen.tls_cert_file`: \"empty\"",
        ),
    ] {
        scene.configure_admin(more, admin);
        let (status, _, errors) = scene.verb(&["run"], "");
        assert!(status.code() == Some(2) && errors.contains(named), "run, {named}: {status} {errors}");
        let (status, _, errors) = scene.verb(&["validate"], "");
        assert!(status.code() != Some(0) && errors.contains(named), "validate, {named}: {status} {errors}");
    }
}

#[test]
fn a_registry_that_cannot_be_read_and_a_url_that_is_none_are_bad_usage() {
    let scene = GatewayDir::new();
    std::fs::write(scene.path("devices.csv"), "nonsense\n").unwrap();
    let (status, _, errors) = scene.verb(&["device", "list"], "");
    assert!(status.code() == Some(2) && errors.contains("registry.file"), "{errors}");
    let (status, _, errors) = scene.verb(&["guest", "list", "--gateway", "nonsense"], "");
    assert!(status.code() == Some(2) && errors.contains("`--gateway`: \"nonsense\""), "{errors}");
}

#[test]
fn a_bad_line_of_many_questions_keeps_its_place_and_the_others_get_their_verdicts() {
    let scene = GatewayDir::new();
    let good = |id: u8| {
        let topic = crate::end_to_end::topic("acme", "dev-1", "telemetry");
        let payload = crate::end_to_end::envelope("dev-1", 7);
        let row = serde_json::json!({"site_id": "lab-1", "status": "ACTIVE"});
        serde_json::json!({"id": id, "topic": topic, "payload": payload, "registry_row": row}).to_string()
    };
    let questions = format!("{}\nno json\n{{\"id\":3}}\n{}\n", good(1), good(4));
    let (status, output, errors) = scene.verb(&["explain", "--jsonl"], &questions);
    assert_eq!(status.code(), Some(2), "{errors}");
    let answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&Value::from(1), &Value::Null, &Value::from(3), &Value::from(4)], "{output}");
    assert!(answers[1]["error"].is_string() && answers[2]["error"].is_string(), "{output}");
    assert!(answers[0]["outcome"].is_string() && answers[3]["outcome"].is_string(), "{output}");
    assert!(errors.contains("stdin line 2") && errors.contains("stdin line 3"), "{errors}");
}

#[test]
fn an_entry_of_quarantine_that_is_not_there_is_said_to_be_none() {
    let scene = GatewayDir::new();
    let (status, _, errors) = scene.verb(&["quarantine", "rm", "0000000000000001-7"], "");
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("there is no entry \"0000000000000001-7\""), "{errors}");
}

#[test]
fn a_device_is_put_under_no_name_that_a_topic_cannot_have() {
    let scene = GatewayDir::new();
    for (tenant, device, named) in [
        ("", "dev-1", "TENANT"),
        ("a/b", "dev-1", "TENANT"),
        ("acme", "d+", "DEVICE"),
        ("acme", "#", "DEVICE"),
    ] {
        let (status, _, errors) = scene.verb(&["device", "put", tenant, device, "--site", "lab-1"], "");
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains(named) && errors.contains("one topic level"), "{errors}");
    }
}

#[test]
fn a_revoked_device_comes_back_with_its_token_and_an_empty_stdin_takes_none_away() {
    let scene = GatewayDir::new();
    let device = |arguments: &[&str], input: &str| {
        let (status, out, errors) = scene.verb(&[&["device"], arguments].concat(), input);
        (status.code(), format!("{out}{errors}"))
    };
    let put = ["put", "acme", "dev-9", "--site", "lab-1"];
    assert_eq!(device(&put, "tok-secret\n").0, Some(0));
    let file = || std::fs::read_to_string(scene.path("devices.csv")).unwrap();
    let before = file();
    for empty in ["", "\n"] {
        let (code, said) = device(&put, empty);
        assert!(code == Some(2) && said.contains("stdin is empty") && said.contains("--no-token"), "{said}");
    }
    assert_eq!(file(), before);
    assert_eq!(device(&["revoke", "acme", "dev-9"], "").0, Some(0));
    assert!(file().contains("REVOKED"));
    assert_eq!(device(&["activate", "acme", "dev-9"], "").0, Some(0));
    assert_eq!(file(), before, "with its token");
    assert_eq!(device(&["activate", "acme", "nobody"], "").0, Some(1));
    assert_eq!(device(&[&put[..], &["--no-token"]].concat(), "").0, Some(0));
    assert!(device(&["list"], "").1.contains("not set"));
}
