//! The listener in TLS: certificates of both sides, and new ones while it runs.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode, PubAckReason};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidegate::source::listener::{
    ClientCertificates, CloseReason, CredentialPolicy, ListenerSettings, TlsKeys, TlsSettings,
};

use crate::harness::fake_pipeline::SettleMode;
use crate::harness::gateway::GatewayDir;
use crate::harness::listener::{RunningListener, TOPIC, settings};
use crate::harness::mqtt5_client::{Mqtt5Client, TlsClient, socket};

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority that issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate of a server: PEM of certificate and key.
    fn server(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// A device's certificate with this common name.
    fn device(&self, name: &str) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A device's certificate with a serial number, and the end of its validity.
    fn numbered(&self, name: &str, serial: u64, seconds: i64) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let span = std::time::SystemTime::now() + Duration::from_secs(seconds as u64);
        params.not_after = span.into();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A list that revokes certificates by their numbers, in PEM form.
    fn revoking(&self, serials: &[u64]) -> String {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// Writes a certificate of a server into a folder.
    fn serve_in(&self, folder: &Path) {
        let (certificate, key) = self.server();
        std::fs::write(folder.join("cert.pem"), certificate).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
        std::fs::write(folder.join("ca.pem"), self.0.pem()).unwrap();
    }
}

fn start(folder: &Path, asks: CredentialPolicy, client_certificates: ClientCertificates) -> RunningListener {
    let crl = folder.join("crl.pem");
    let tls = TlsSettings {
        keys: TlsKeys::LISTEN,
        client_crl_file: if crl.exists() { crl } else { PathBuf::new() },
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
        client_ca_file: folder.join("ca.pem"),
        client_certificates,
    };
    RunningListener::start(ListenerSettings { asks, tls: Some(tls), ..settings() }, SettleMode::AtOnce, 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_any_size_pass_in_tls_and_a_stranger_to_tls_does_not() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.serve_in(folder.path());
    let running = start(folder.path(), CredentialPolicy::Always, ClientCertificates::No);
    let open = || Mqtt5Client::open_tls(running.address, &[authority.root()], None);
    let mut device = open().connected("d1", Some(("acme/d1", "tok-d1")));
    for size in [0, 1, 63, 64, 65, 4000, 8192, 100_000] {
        let id = device.publish(TOPIC, QoS::AtLeastOnce, vec![b'x'; size]);
        assert_eq!(device.puback(), (id, PubAckReason::Success, None), "{size}");
        let taken = running.downstream.taken().pop().unwrap();
        assert_eq!((taken.payload.len(), taken.payload_bytes), (if size > 8192 { 1024 } else { size }, size));
    }
    // Many at once, of which one read of the socket brings several.
    let ids: Vec<u16> = (0..2000).map(|_| device.publish(TOPIC, QoS::AtLeastOnce, "small")).collect();
    assert_eq!(ids.iter().map(|_| device.puback().0).collect::<Vec<_>>(), ids);
    assert_eq!(
        open().greet("d1", Some(("acme/d1", "guess")), None).unwrap().code,
        ConnectReturnCode::BadUserNamePassword
    );

    // MQTT without TLS is no handshake; silence is none either, and both are bounded.
    let mut plain = socket(running.address);
    plain.write_all(&[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'q']).unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest);
    running.ended(CloseReason::Handshake, 1, 5).await;
    let _silent = socket(running.address);
    running.ended(CloseReason::Handshake, 2, 20).await;
    let id = device.publish(TOPIC, QoS::AtLeastOnce, "still served");
    assert_eq!(device.puback().0, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_a_device_is_and_nothing_else_is_its_own() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.serve_in(folder.path());
    let running = start(folder.path(), CredentialPolicy::Always, ClientCertificates::Optional);
    let open = |shown: Option<Shown>| TlsClient::open_tls(running.address, &[authority.root()], shown);
    let mut device = open(Some(authority.device("acme/d1"))).connected("d1", None);
    let mine = device.publish(TOPIC, QoS::AtLeastOnce, "mine");
    assert_eq!(device.puback(), (mine, PubAckReason::Success, None));
    device.publish("tenant/acme/device/d2/telemetry", QoS::AtLeastOnce, "not mine");
    assert_eq!(device.puback().1, PubAckReason::NotAuthorized);

    let code =
        |shown: Option<Shown>, login| open(shown).greet("x", login, None).map(|connack| connack.code).ok();
    assert_eq!(code(Some(authority.device("acme/revoked")), None), Some(ConnectReturnCode::NotAuthorized));
    assert_eq!(code(Some(authority.device("nobody")), None), Some(ConnectReturnCode::NotAuthorized));
    let other = Some(("acme/d2", "tok-d2"));
    assert_eq!(code(Some(authority.device("acme/d1")), other), Some(ConnectReturnCode::NotAuthorized));
    // A certificate that names nobody leaves the password, and so does none.
    assert_eq!(code(Some(authority.device("nobody")), other), Some(ConnectReturnCode::Success));
    assert_eq!(code(None, other), Some(ConnectReturnCode::Success));
    assert_eq!(code(None, None), Some(ConnectReturnCode::NotAuthorized));
    // Of an authority that nobody here believes: no handshake.
    assert_eq!(code(Some(Authority::new().device("acme/d1")), None), None);
    running.ended(CloseReason::Handshake, 1, 5).await;

    let strict = start(folder.path(), CredentialPolicy::Always, ClientCertificates::Required);
    let mut without = TlsClient::open_tls(strict.address, &[authority.root()], None);
    assert!(without.greet("x", other, None).is_err(), "let in without a certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_its_connection_and_one_that_expires_too() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.serve_in(folder.path());
    std::fs::write(folder.path().join("crl.pem"), authority.revoking(&[7])).unwrap();
    let running = start(folder.path(), CredentialPolicy::Always, ClientCertificates::Required);
    let open = |name: &str, serial: u64, seconds: i64| {
        let shown = authority.numbered(name, serial, seconds);
        TlsClient::open_tls(running.address, &[authority.root()], Some(shown))
    };
    assert!(open("acme/d1", 7, 3600).greet("d1", None, None).is_err(), "let in though it is revoked");
    let mut stays = open("acme/d1", 8, 3600).connected("d1", None);
    let mut gone = open("acme/d2", 9, 3600).connected("d2", None);
    let mut short = open("acme/d3", 10, 20).connected("d3", None);
    std::fs::write(folder.path().join("crl.pem"), authority.revoking(&[7, 9])).unwrap();
    assert!(running.tls.as_ref().unwrap().refresh().unwrap());
    running.ended(CloseReason::Revoked, 1, 10).await;
    let not_authorized = DisconnectReasonCode::NotAuthorized;
    assert_eq!(tokio::task::block_in_place(|| gone.disconnected()).0, not_authorized);
    running.ended(CloseReason::CertificateExpired, 1, 40).await;
    assert_eq!(tokio::task::block_in_place(|| short.disconnected()).0, not_authorized);
    let id = stays.publish(TOPIC, QoS::AtLeastOnce, "still here");
    assert_eq!(stays.puback().0, id);
    // A list that cannot be read does not replace the one in service.
    std::fs::write(folder.path().join("crl.pem"), "no list").unwrap();
    let error = running.tls.as_ref().unwrap().refresh().unwrap_err().to_string();
    assert!(error.contains("listen.client_crl_file"), "{error}");
    assert!(open("acme/d1", 9, 3600).greet("d1", None, None).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_serves_new_connections_and_leaves_the_old_ones() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    old.serve_in(folder.path());
    let running = start(folder.path(), CredentialPolicy::Nothing, ClientCertificates::No);
    let mut before = TlsClient::open_tls(running.address, &[old.root()], None).connected("before", None);
    new.serve_in(folder.path());
    assert!(running.tls.as_ref().unwrap().refresh().unwrap());
    let _after = TlsClient::open_tls(running.address, &[new.root()], None).connected("after", None);
    let mut outdated = TlsClient::open_tls(running.address, &[old.root()], None);
    assert!(outdated.greet("outdated", None, None).is_err());
    let id = before.publish(TOPIC, QoS::AtLeastOnce, "still here");
    assert_eq!(before.puback().0, id);
}

/// The gateway loads a new certificate by itself, and on SIGHUP; after a bad one the old one stays.
#[test]
fn the_gateway_follows_its_certificate_and_refuses_to_start_without_one() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("_default", "lp", "passthrough");
    let tls = "tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\nclient_certificates = \"optional\"\n\
               client_ca_file = \"ca.pem\"\n[admission]\ncredentials = \"listener\"\n[output]\nkind = \"file\"\n";
    scene.configure(tls);
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert!(!status.success() && errors.contains("listen.tls_cert_file"), "{errors}");
    let folder = scene.path("cert.pem").parent().unwrap().to_owned();
    old.serve_in(&folder);
    let (status, _, errors) = scene.verb(&["validate"], "");
    assert!(status.success(), "{errors}");
    let gateway = scene.start();
    let address = scene.listener.parse().unwrap();
    let open = |authority: &Authority, shown| TlsClient::open_tls(address, &[authority.root()], shown);
    let mut device = open(&old, Some(old.device("acme/dev-1"))).connected("d", None);
    let mut publish = |value: u8| {
        device.publish("tenant/acme/device/dev-1/lp", QoS::AtLeastOnce, format!("m value={value}"));
        assert_eq!(device.puback().1, PubAckReason::Success);
    };
    publish(1);
    std::fs::write(scene.path("key.pem"), "no key").unwrap();
    gateway.wait("said", |_| scene.log().contains("the listener's certificate stays as it was"));
    drop(open(&old, None).connected("old", Some(("acme/dev-1", "tok-dev-1"))));
    new.serve_in(&folder);
    // SAFETY: kill(2) of a child that has not been waited for.
    unsafe { libc::kill(gateway.pid() as i32, libc::SIGHUP) };
    gateway.wait("read again", |_| scene.log().contains("the listener's certificate was read again"));
    let served = |_: &crate::harness::gateway::Gateway<'_>| open(&new, None).greet("n", None, None).is_ok();
    gateway.wait_for(Duration::from_secs(10), "served by the new one", served);
    publish(2);
    gateway.wait_written("acme", 2);
    gateway.assert_balanced();
}
