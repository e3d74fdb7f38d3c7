//! The recorded verdicts and cache sequences, and the counts of admission.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value as Json;

use crate::admission::{Admission, AdmitResult, ReadmittedMessage};
use crate::auth_cache::AuthCache;
use crate::claims::Claims;
use crate::credentials::{CredentialSource, check_device};
use crate::envelope::{Envelope, EnvelopeValue};
use crate::outcome::{MessageView, Sender};
use crate::proven_tokens::ProvenTokens;
use crate::registry;
use crate::registry::postgres::app_settings::AppSettings;
use crate::registry::{Registry, RegistryRow, TokenHash, file};
use crate::settings::{AdmissionSettings, OverRate};
use tidegate_core::ack::tracker::AckTracker;
use tidegate_core::ack::window::ReceiveWindow;
use tidegate_core::books::Books;
use tidegate_core::message::{Received, Via};
use tidegate_core::reason::Reason;
use tidegate_core::tenant::database::{DatabaseTemplate, NameRule};
use tidegate_core::tenant::policy::{TenantPolicies, TenantPolicy};
use tidegate_core::tenant::table::Tenants;
use tidegate_core::token_bucket::Rate;
use tidegate_core::topic::{EnvelopeKind, TopicRules, TopicTemplate, TopicTemplates};

const CASES: &str = include_str!("../../../tests/cases/pulse-public.jsonl");

const SEQUENCES: &str = include_str!("../../../tests/cases/pulse-sequences.jsonl");

fn topics() -> Arc<TopicTemplates> {
    Arc::new(TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap().into())
}

fn settings() -> AdmissionSettings {
    AdmissionSettings {
        over_rate: OverRate::Slow,
        topics: topics(),
        payload_bytes_max: 8192,
        payload_bytes_kept: 8192,
        rate: None,
        credentials: CredentialSource::Envelope,
        credentials_of_type: HashMap::new(),
        require_token: true,
        cache_ttl_s: 60.0,
        cache_entries_max: 10_000,
    }
}

fn tenants() -> Arc<Tenants> {
    let terms = TenantPolicy::plain(DatabaseTemplate::new("telemetry_{tenant}", NameRule::InfluxDb3));
    Arc::new(Tenants::new(TenantPolicies::new(terms), Arc::new(Books::default())))
}

fn admission(settings: AdmissionSettings, rows: &str) -> Admission {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("devices.csv");
    std::fs::write(&path, format!("tenant_id,device_id,site_id,status,provision_token_hash\n{rows}"))
        .unwrap();
    let registry = Registry::File(file::FileRegistry::open(&path).unwrap());
    Admission::new(settings, registry, tenants())
}

fn row(json: &Json) -> Option<RegistryRow> {
    json.is_object().then(|| RegistryRow {
        site_id: json["site_id"].as_str().unwrap().into(),
        status: json["status"].as_str().unwrap().into(),
        token: TokenHash::parse(json["provision_token_hash"].as_str()),
    })
}

#[test]
fn every_recorded_refusal_of_admission_gets_its_reason_and_the_rest_is_admitted() {
    let mut checked = 0;
    for case in CASES.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()) {
        let expected = &case["expect"];
        // Cases of the table app_settings are left out, and those that a single message cannot show
        // (`needs`) or that expect no one verdict.
        let plain_settings = case["settings"]
            .as_object()
            .is_none_or(|settings| settings.keys().all(|key| key == "REQUIRE_TOKEN"));
        if expected.is_null() || !case["needs"].is_null() || !plain_settings {
            continue;
        }
        let require_token = case["settings"]["REQUIRE_TOKEN"] != "0";
        let admission = admission(AdmissionSettings { require_token, ..settings() }, "");
        let payload = match case["payload"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD
                    .decode(case["payload_base64"].as_str().unwrap())
                    .unwrap()
            }
        };
        let message = MessageView {
            topic: case["topic"].as_str().unwrap(),
            payload: &payload,
            payload_bytes: payload.len(),
            via: Via::Broker,
        };
        // The row is of one device: for a topic that names another there is no row.
        let is_named = topics().matches(message.topic).is_some_and(|fields| {
            *fields.tenant.of(message.topic) == case["device"]["tenant_id"]
                && *fields.device.of(message.topic) == case["device"]["device_id"]
        });
        let row = row(&case["device"]).filter(|_| is_named);
        let verdict = admission.check(message, Some(row));
        let reason = expected["reason"].as_str().and_then(Reason::from_code);
        let of_admission =
            reason.filter(|reason| reason.stage() == tidegate_core::reason::RefusalStage::Admission);
        match (&verdict, of_admission) {
            (Err(refusal), _) if Some(refusal.reason) == reason => {}
            (Ok(_), None) => {}
            // The case may mean a later stage, or any reason.
            (Err(_), None) if expected["outcome"] == "quarantined" && reason.is_none() => {}
            _ => panic!("{case}\n{verdict:?}"),
        }
        checked += 1;
    }
    assert!(checked > 550, "only {checked} cases were checked");
}

#[test]
fn every_recorded_cache_sequence_asks_the_registry_as_often() {
    let (mut sequences, proven) = (0, ProvenTokens::default());
    for case in SEQUENCES.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()) {
        if case["kind"] != "cache" || !case["seed_bug"].is_null() {
            continue;
        }
        let cache = AuthCache::new(case["ttl_s"].as_f64().unwrap(), case["max"].as_u64().unwrap() as usize);
        let admission = admission(settings(), "");
        for (step, asked) in case["steps"].as_array().unwrap().iter().enumerate() {
            let device = asked["device"].as_str().unwrap();
            let (now_s, key) = (asked["at_s"].as_f64().unwrap(), admission.device_key("acme", device));
            let hit = cache.get(key, "acme", device, now_s).map(|hit| hit.clone());
            assert_eq!(
                u64::from(hit.is_none()),
                asked["db_lookups"].as_u64().unwrap(),
                "{} step {step}",
                case["id"]
            );
            let known = hit.or_else(|| {
                let mut row = row(&asked["registry"])?;
                // Only the hash of a token is recorded: the first step's token is the right one.
                let right = asked["registry"]["provision_token_hash"]
                    == case["steps"][0]["registry"]["provision_token_hash"]
                    || case["steps"][0]["registry"].is_null();
                row.token =
                    TokenHash::parse(Some(&registry::token_hash(if right { "tok" } else { "other" })));
                let known = admission.cache_row("acme", device, row, true);
                cache.insert(key, known.clone(), now_s);
                Some(known)
            });
            let envelope = Envelope {
                site_id: EnvelopeValue::Text("lab-1".into()),
                tenant_id: EnvelopeValue::Missing,
                provision_token: EnvelopeValue::Text("tok".into()),
            };
            let claims = Claims { envelope: Some(envelope), topic_site: None };
            let verdict = match &known {
                None => "UNREGISTERED_DEVICE",
                Some(known) => match check_device(known, &claims, true, &proven) {
                    Ok(()) => "lines",
                    Err((reason, _)) => reason.code(),
                },
            };
            assert_eq!(verdict, asked["expect"], "{} step {step}: {asked}", case["id"]);
        }
        let stats = &case["stats"];
        assert_eq!(cache.hits(), stats["hits"].as_u64().unwrap(), "{}", case["id"]);
        assert_eq!(cache.misses(), stats["misses"].as_u64().unwrap(), "{}", case["id"]);
        assert_eq!(cache.entries() as u64, stats["size"].as_u64().unwrap(), "{}", case["id"]);
        sequences += 1;
    }
    assert!(sequences >= 8, "only {sequences}");
}

fn received(tracker: &Arc<AckTracker>, topic: &str, payload: &str, via: Via) -> Received {
    Received {
        topic: topic.into(),
        payload_bytes: payload.len(),
        payload: payload.to_owned().into(),
        received_ns: 0,
        via,
        token: tracker.receive(1, payload.len()),
    }
}

#[test]
fn each_message_is_counted_with_its_tenant_and_refusals_carry_the_whole_message() {
    let hash = registry::token_hash("tok");
    let admission = admission(settings(), &format!("acme,d1,lab,ACTIVE,{hash}\n"));
    let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(100, 100_000)));
    let good = r#"{"site_id":"lab","provision_token":"tok"}"#;
    let messages = vec![
        received(&tracker, "tenant/acme/device/d1/telemetry", good, Via::Broker),
        received(&tracker, "tenant/acme/device/d2/telemetry", good, Via::Broker),
        received(&tracker, "tenant/ghost/device/d1/telemetry", good, Via::Broker),
        received(&tracker, "nonsense", good, Via::Broker),
    ];
    let AdmitResult { admitted, refused, .. } = admission.admit(messages);
    assert_eq!(admitted.len(), 1);
    assert_eq!(admitted[0].message_type(), "telemetry");
    assert_eq!(admitted[0].device.identity_tags.as_deref(), Ok(&b",device_id=d1,site_id=lab"[..]));
    let reasons: Vec<Reason> = refused.iter().map(|refused| refused.reason).collect();
    assert_eq!(reasons, [Reason::UnregisteredDevice, Reason::UnregisteredDevice, Reason::BadTopicFormat]);
    assert_eq!(refused[0].payload, good);
    let received = |tenant: &str| {
        let accounts = admission.books.accounts();
        accounts
            .iter()
            .find(|account| account.tenant().as_str() == tenant)
            .unwrap()
            .snapshot()
            .messages
            .received
    };
    assert_eq!((received("acme"), received("ghost"), received("_none")), (2, 1, 1));
}

#[test]
fn the_brokers_word_never_holds_for_what_came_by_the_listener() {
    let types = HashMap::from([("lp".to_owned(), CredentialSource::Broker)]);
    let admission =
        admission(AdmissionSettings { credentials_of_type: types, ..settings() }, "acme,d1,lab,ACTIVE,\n");
    let message = |via, topic| MessageView { topic, payload: b"m f=1", payload_bytes: 5, via };
    assert!(admission.check(message(Via::Broker, "tenant/acme/device/d1/lp"), None).is_ok());
    let refusal = admission.check(message(Via::Listener, "tenant/acme/device/d1/lp"), None).unwrap_err();
    assert_eq!(refusal.reason, Reason::BadPayload);
    let refusal = admission.check(message(Via::Broker, "tenant/acme/device/d1/telemetry"), None).unwrap_err();
    assert_eq!(refusal.reason, Reason::BadPayload);
}

#[test]
fn types_with_credentials_of_their_own_may_change_while_messages_flow() {
    let admission = admission(settings(), "acme,d1,lab,ACTIVE,\n");
    let topic = "tenant/acme/device/d1/lp";
    let check = || {
        let message = MessageView { topic, payload: b"m f=1", payload_bytes: 5, via: Via::Broker };
        admission.check(message, None).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    assert_eq!(check(), Err(Reason::BadPayload));
    admission.set_credentials_of_types(HashMap::from([("lp".to_owned(), CredentialSource::Broker)]));
    assert_eq!(check(), Ok(()));
    // The table of an app leaves them as they are.
    admission.apply_app_settings(&AppSettings::default());
    assert_eq!(check(), Ok(()));
    admission.set_credentials_of_types(HashMap::new());
    assert_eq!(check(), Err(Reason::BadPayload));
}

#[test]
fn a_word_holds_only_for_the_way_by_which_it_was_given() {
    for (word, way) in [(CredentialSource::Broker, Via::Broker), (CredentialSource::Listener, Via::Proven)] {
        let admission =
            admission(AdmissionSettings { credentials: word, ..settings() }, "acme,d1,lab,ACTIVE,\n");
        let topic = "tenant/acme/device/d1/lp";
        assert_eq!(admission.usual_via(topic), way);
        for via in [Via::Broker, Via::Listener, Via::Proven] {
            let message = MessageView { topic, payload: b"m f=1", payload_bytes: 5, via };
            assert_eq!(admission.check(message, None).is_ok(), via == way, "{word:?} by {via:?}");
        }
        let stranger =
            MessageView { topic: "tenant/acme/device/d2/lp", payload: b"", payload_bytes: 0, via: way };
        assert_eq!(admission.check(stranger, None).unwrap_err().reason, Reason::UnregisteredDevice);
    }
}

#[tokio::test]
async fn a_device_that_connects_must_be_there_and_active_and_have_its_token() {
    use tidegate_core::identity::AcceptedProof;
    use tidegate_core::identity::AuthError;
    use tidegate_core::identity::Claim;
    use tidegate_core::identity::Identity;
    use tidegate_core::identity::Proof;
    let token = registry::token_hash("right");
    let rows = format!("acme,d1,lab,ACTIVE,{token}\nacme,gone,lab,REVOKED,{token}\nacme,new,lab,ACTIVE,\n");
    // At CONNECT the token is required even if the envelope needs none.
    let admission = admission(AdmissionSettings { require_token: false, ..settings() }, &rows);
    let connect = |device: &str, proof: Proof| {
        let identity = Identity { tenant: "acme".into(), device: device.into() };
        admission.authenticate_connect(Claim { identity, proof })
    };
    let right = || Proof::Token(Box::from(&b"right"[..]));
    for _ in 0..2 {
        assert!(matches!(connect("d1", right()).await, Ok(AcceptedProof::Token(_))));
        assert_eq!(connect("d1", Proof::Certificate).await, Ok(AcceptedProof::Certificate));
        for (device, token) in
            [("d1", "wrong"), ("d1", ""), ("gone", "wrong"), ("new", ""), ("nobody", "right")]
        {
            let answer = connect(device, Proof::Token(token.as_bytes().into())).await;
            assert!(matches!(answer, Err(AuthError::Credentials(_))), "{device} {token}: {answer:?}");
        }
        assert!(matches!(connect("gone", right()).await, Err(AuthError::NotAuthorized(_))));
        assert!(matches!(connect("gone", Proof::Certificate).await, Err(AuthError::NotAuthorized(_))));
        assert!(matches!(connect("nobody", Proof::Certificate).await, Err(AuthError::Credentials(_))));
    }
}

#[test]
fn an_open_registry_lets_in_any_device_of_its_tenants_and_no_other() {
    let registry = Registry::Open(vec!["acme".into()]);
    let admission = Admission::new(settings(), registry, tenants());
    let message = |topic, payload: &'static str| MessageView {
        topic,
        payload: payload.as_bytes(),
        payload_bytes: payload.len(),
        via: Via::Listener,
    };
    let sender =
        admission.check(message("tenant/acme/device/new/telemetry", r#"{"site_id":"s"}"#), None).unwrap();
    assert_eq!(sender.device.site, "s");
    let refusal = admission
        .check(message("tenant/globex/device/new/telemetry", r#"{"site_id":"s"}"#), None)
        .unwrap_err();
    assert_eq!(refusal.reason, Reason::UnregisteredDevice);
}

#[test]
fn the_rate_holds_for_what_passes_and_for_what_does_not() {
    let hash = registry::token_hash("tok");
    let rate = Some(Rate { per_s: 0.001, burst: 2.0 });
    let admission =
        admission(AdmissionSettings { rate, ..settings() }, &format!("acme,d1,lab,ACTIVE,{hash}\n"));
    let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(100, 100_000)));
    let send = |payload: &str| {
        let topic = "tenant/acme/device/d1/telemetry";
        let AdmitResult { refused, .. } =
            admission.admit(vec![received(&tracker, topic, payload, Via::Broker)]);
        refused.first().map(|refused| refused.reason)
    };
    let (good, bad) =
        (r#"{"site_id":"lab","provision_token":"tok"}"#, r#"{"site_id":"lab","provision_token":"x"}"#);
    let verdicts = [bad, bad, bad, good, good, good].map(send);
    assert_eq!(
        verdicts,
        [
            Some(Reason::TokenInvalid),
            Some(Reason::TokenInvalid),
            Some(Reason::RateLimited),
            None,
            None,
            Some(Reason::RateLimited),
        ]
    );
}

#[test]
fn what_had_passed_is_admitted_again_without_a_question() {
    // The registry is empty, and the buckets are too.
    let rate = Some(tidegate_core::token_bucket::Rate { per_s: 0.000_001, burst: 1.0 });
    let admission = admission(AdmissionSettings { rate, ..settings() }, "");
    let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(100, 10_000)));
    let passed = |topic: &str| ReadmittedMessage {
        topic: topic.into(),
        payload: Bytes::from_static(b"no envelope"),
        received_ns: 7,
        tenant: "acme".into(),
        device: "d1".into(),
        site: "lab 1".into(),
        token: tracker.receive(1, 10),
    };
    for _ in 0..5 {
        let admitted = admission.readmit(passed("tenant/acme/device/d1/notes")).unwrap();
        assert_eq!((admitted.message_type(), admitted.received_ns), ("notes", 7));
        assert_eq!(admitted.device.identity_tags.as_deref().unwrap(), br",device_id=d1,site_id=lab\ 1");
        assert_eq!(admitted.tenant.database().unwrap().as_str(), "telemetry_acme");
    }
    // The template was changed since: the refusal still counts as one of an admitted message.
    let refused = admission.readmit(passed("elsewhere/d1")).unwrap_err();
    assert_eq!((refused.reason, refused.was_admitted()), (Reason::BadTopicFormat, true));
}

#[test]
fn what_admission_refused_is_judged_anew_by_the_way_it_came() {
    let rate = Some(tidegate_core::token_bucket::Rate { per_s: 0.000_001, burst: 1.0 });
    let credentials_of_type = HashMap::from([("lp".to_owned(), CredentialSource::Broker)]);
    let rows = "acme,d1,lab-1,ACTIVE,\n";
    let admission = admission(AdmissionSettings { rate, credentials_of_type, ..settings() }, rows);
    let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(100, 10_000)));
    let received = |via| Received {
        topic: "tenant/acme/device/d1/lp".into(),
        payload: Bytes::from_static(b"m f=1"),
        payload_bytes: 5,
        received_ns: 7,
        via,
        token: tracker.receive(1, 10),
    };
    for _ in 0..5 {
        assert!(admission.readmit_refused(received(Via::Broker)).is_ok());
        let refused = admission.readmit_refused(received(Via::Listener)).unwrap_err();
        assert_eq!((refused.reason, refused.was_admitted()), (Reason::BadPayload, false));
    }
    assert_eq!(admission.books.of_known("acme").snapshot().messages.received, 10);
}

#[test]
fn a_device_over_its_rate_waits_at_the_listener_and_is_refused_behind_a_broker() {
    let hash = registry::token_hash("tok");
    let rate = Some(Rate { per_s: 0.1, burst: 2.0 });
    let admission =
        admission(AdmissionSettings { rate, ..settings() }, &format!("acme,d1,lab,ACTIVE,{hash}\n"));
    let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(100, 100_000)));
    let messages = |via| {
        let (good, bad) =
            (r#"{"site_id":"lab","provision_token":"tok"}"#, r#"{"site_id":"lab","provision_token":"x"}"#);
        [good, good, good, bad]
            .map(|payload| received(&tracker, "tenant/acme/device/d1/telemetry", payload, via))
            .into()
    };
    let result = admission.admit(messages(Via::Listener));
    assert_eq!((result.admitted.len(), result.refused.len(), result.over_rate.len()), (2, 0, 2));
    assert!((1.0..=10.1).contains(&result.wait.as_secs_f64()), "{:?}", result.wait);
    assert_eq!(admission.books.of_known("acme").snapshot().messages.received, 2, "counted before its time");
    let result = admission.admit(messages(Via::Broker));
    assert_eq!((result.admitted.len(), result.refused.len(), result.over_rate.len()), (0, 4, 0));
    // Each is the device's, but the token of the last is not.
    let seen: Vec<_> = result.refused.iter().map(|one| (one.reason, one.is_known, one.is_proven)).collect();
    assert_eq!(seen[..3], [(Reason::RateLimited, true, true); 3]);
    assert_eq!(seen[3], (Reason::RateLimited, true, false));
}

#[test]
fn a_refused_message_says_if_its_device_is_known() {
    let admission = admission(settings(), "acme,d1,lab,ACTIVE,\n");
    let tracker = AckTracker::new(Arc::new(ReceiveWindow::new(100, 100_000)));
    for (device, payload, reason, is_known) in [
        ("d1", "no JSON", Reason::BadPayload, true),
        ("d1", "{}", Reason::MissingSiteId, true),
        ("d1", r#"{"site_id":"lab"}"#, Reason::TokenNotSet, true),
        ("d9", "no JSON", Reason::BadPayload, false),
        ("d9", r#"{"site_id":"lab"}"#, Reason::UnregisteredDevice, false),
    ] {
        let topic = format!("tenant/acme/device/{device}/telemetry");
        let refused = admission.admit(vec![received(&tracker, &topic, payload, Via::Broker)]).refused;
        assert_eq!((refused[0].reason, refused[0].is_known, refused[0].is_proven), (reason, is_known, false));
    }
}

#[test]
fn the_listener_takes_no_topic_that_the_subscription_would_not_deliver() {
    let admission = admission(settings(), "acme,d1,lab,ACTIVE,\n");
    let reason = |topic: &str, via| {
        let view = MessageView { topic, payload: b"{}", payload_bytes: 2, via };
        admission.check(view, None).unwrap_err().reason
    };
    for topic in ["tenant/acme/device/d1/telemetry/", "tenant/acme/device/d1/telemetry/more"] {
        assert_eq!(reason(topic, Via::Listener), Reason::BadTopicFormat);
        assert_eq!(reason(topic, Via::Proven), Reason::BadTopicFormat);
        assert_eq!(reason(topic, Via::Broker), Reason::MissingSiteId);
    }
    assert_eq!(reason("tenant/acme/device/d1/telemetry", Via::Listener), Reason::MissingSiteId);
}

/// A registry file with a device and a token, and topics for it: a network server's, one without envelope, and ours.
fn admission_of_topics(require_token: bool) -> Admission {
    let tenants = std::collections::BTreeMap::new();
    let rules = |template, message_type, envelope| TopicRules {
        template,
        tenant: "acme",
        device: "{device}",
        message_type,
        site: "",
        tenants: &tenants,
        envelope,
        qos: 1,
    };
    let templates = [
        TopicTemplate::parse("tenant/{tenant}/device/{device}/{type}").unwrap(),
        TopicTemplate::new(&rules("v3/{app}/devices/{device}/up", "uplink", EnvelopeKind::ThingsStack))
            .unwrap(),
        TopicTemplate::new(&rules("raw/{site}/{device}/{kind}", "raw", EnvelopeKind::None)).unwrap(),
    ];
    let topics = Arc::new(TopicTemplates::new(templates.into()).unwrap());
    let hash = registry::token_hash("tok-1");
    admission(
        AdmissionSettings { topics, require_token, ..settings() },
        &format!("acme,d,lab,ACTIVE,{hash}\n"),
    )
}

fn judge<'a>(
    admission: &Admission,
    topic: &'a str,
    payload: &'a [u8],
    via: Via,
) -> Result<Sender, (Reason, String)> {
    let message = MessageView { topic, payload, payload_bytes: payload.len(), via };
    admission.check(message, None).map_err(|error| (error.reason, error.detail.to_string()))
}

const UPLINK: &[u8] =
    br#"{"uplink_message": {"f_port": 2, "frm_payload": "AQI=", "decoded_payload": {"t": 1}}}"#;

#[test]
fn the_source_vouches_for_messages_whose_envelope_has_no_credentials() {
    let admission = admission_of_topics(true);
    for (topic, payload) in [("v3/a/devices/d/up", UPLINK), ("raw/lab/d/x", b"\xff\x00")] {
        for via in [Via::Broker, Via::Proven] {
            let sender = judge(&admission, topic, payload, via).unwrap();
            assert_eq!((sender.tenant.id.as_str(), sender.device.site.as_str()), ("acme", "lab"));
            assert!(sender.tape.is_empty(), "it is not the decoder's payload");
        }
        let (reason, detail) = judge(&admission, topic, payload, Via::Listener).unwrap_err();
        assert!(reason == Reason::TokenMissing && detail.contains("at CONNECT"), "{detail}");
        // Where no message needs a token, these need none either.
        assert!(judge(&admission_of_topics(false), topic, payload, Via::Listener).is_ok());
    }
    let (reason, _) = judge(&admission, "v3/a/devices/other/up", UPLINK, Via::Broker).unwrap_err();
    assert_eq!(reason, Reason::UnregisteredDevice);
    // Beside them, the envelope of a device brings its token as ever.
    let ours = "tenant/acme/device/d/telemetry";
    assert_eq!(judge(&admission, ours, b"\xff", Via::Broker).unwrap_err().0, Reason::BadPayload);
    let good = br#"{"site_id": "lab", "provision_token": "tok-1"}"#;
    let sender = judge(&admission, ours, good, Via::Broker).unwrap();
    assert!(sender.content.is_none() && !sender.tape.is_empty());
}

#[test]
fn a_decoder_gets_the_content_of_the_envelope_and_what_else_the_topic_names() {
    let admission = admission_of_topics(true);
    let content = judge(&admission, "v3/a/devices/d/up", UPLINK, Via::Broker).unwrap().content.unwrap();
    let uplink = content.uplink.as_ref().unwrap();
    assert_eq!((&*uplink.bytes, &UPLINK[uplink.object.clone().unwrap()]), (&[1, 2][..], &br#"{"t": 1}"#[..]));
    let attributes: Vec<_> = content.attributes.iter().collect();
    assert_eq!(attributes, [("f_port", "2"), ("f_cnt", "0"), ("topic.app", "a")]);
    let content = judge(&admission, "raw/lab/d/x", b"", Via::Broker).unwrap().content.unwrap();
    assert!(content.uplink.is_none());
    assert_eq!(content.attributes.iter().collect::<Vec<_>>(), [("topic.kind", "x")]);
}

#[test]
fn a_bad_envelope_and_a_wrong_site_in_the_topic_are_refused() {
    let admission = admission_of_topics(true);
    let refused = |topic, payload| judge(&admission, topic, payload, Via::Broker).unwrap_err();
    let (reason, detail) = refused("v3/a/devices/d/up", b"{}");
    assert!(reason == Reason::BadEnvelope && detail.contains("uplink_message is missing"), "{detail}");
    let (reason, detail) = refused("raw/hall/d/x", b"");
    assert!(reason == Reason::SiteMismatch && detail.contains("\"hall\""), "{detail}");
    let (reason, detail) = refused("v3/a/devices/d/join", UPLINK);
    assert!(reason == Reason::BadTopicFormat && detail.contains("v3/{app}/devices/{device}/up"), "{detail}");
}
