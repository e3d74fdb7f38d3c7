//! The handshake of a device: CONNECT, its authentication, and CONNACK.
//!
//! A client certificate that names a device is proof enough. Else the user name names it and the
//! password is its token. A device without credentials may connect if none are required, and is then
//! not authenticated: each of its messages must bring its own credentials.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::v4::ConnectReturnCode as Code4;
use rumqttc::v5::mqttbytes::v5::ConnAckProperties;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode as Code5;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::debug;

use crate::limits;
use crate::listener::client_certificate::ClientCertificate;
use crate::listener::close::{CloseInfo, CloseReason};
use crate::listener::connect_limits::TenantConnectionPermit;
use crate::listener::connection_table::{ClientIdGuard, ConnectionPermit};
use crate::listener::context::{CredentialPolicy, ListenerContext};
use crate::listener::frame_reader::FrameReader;
use crate::listener::proven_connections::{ProvenGuard, Revocation};
use crate::listener::socket::SocketWriter;
use crate::mqtt::control::{ConnectRequest, Frame, check_first_byte, encode};
use crate::mqtt::error::{PacketError, kind};
use crate::mqtt::framing::FrameLimits;
use crate::mqtt::publish::PeerLimits;
use crate::sink::MessageSink;
use tidegate_core::ack::redelivery::RedeliveryFilter;
use tidegate_core::identity::{AcceptedProof, AuthError, Claim, Identity, Proof};

/// One text for an unknown device and for a wrong token: a guesser learns nothing from it.
const BAD_CREDENTIALS: &str = "there is no such device, or its token is another one";

/// A device whose CONNECT was accepted.
pub struct Established {
    pub client_id: ClientIdGuard,
    pub keep_alive_s: u16,
    /// None: it speaks MQTT 3.1.1.
    pub peer_limits: Option<PeerLimits>,
    /// The device, if it is authenticated.
    pub sender: Option<AuthenticatedDevice>,
    /// The session that it asked for, by its name among `DeviceSessions`.
    pub session: Option<(String, Arc<RedeliveryFilter>)>,
}

/// A device that has proved who it is.
pub struct AuthenticatedDevice {
    pub identity: Identity,
    pub permit: TenantConnectionPermit,
    /// Held so that the connection ends when the proof does not hold any more.
    _proven: ProvenGuard,
}

/// A CONNECT that is refused: its close reason, and its CONNACK in both protocols.
struct ConnectRefusal {
    end: CloseInfo,
    /// The text for the device; the detail of `end` is for the log.
    why: String,
    code4: Code4,
    code5: Code5,
}

impl ConnectRefusal {
    fn new(reason: CloseReason, why: impl Into<String>, code4: Code4, code5: Code5) -> Self {
        let why = why.into();
        Self { end: CloseInfo::new(reason, why.clone()), why, code4, code5 }
    }

    fn unavailable(reason: CloseReason, why: impl Into<String>, code5: Code5) -> Self {
        Self::new(reason, why, Code4::ServiceUnavailable, code5)
    }

    /// Sets a detail for the log that the device does not see.
    fn logged(self, detail: String) -> Self {
        Self { end: CloseInfo { detail, ..self.end }, ..self }
    }
}

/// The handshake of one connection, with all that it uses.
pub struct Handshake<'a, I> {
    pub context: &'a ListenerContext<I>,
    pub permit: &'a ConnectionPermit,
    /// None: there is no client certificate.
    pub certificate: Option<ClientCertificate>,
    pub revocation: &'a Arc<Revocation>,
    pub taken_over: &'a Arc<Notify>,
    pub frames: FrameLimits,
}

impl<I: MessageSink> Handshake<'_, I> {
    /// Reads the CONNECT, checks it, and answers.
    ///
    /// # Errors
    /// The end of the connection.
    pub async fn run(
        &self,
        frames_in: &mut FrameReader<'_>,
        writer: &mut SocketWriter<'_>,
    ) -> Result<Established, CloseInfo> {
        let reading = timeout(Duration::from_secs(limits::LISTENER_CONNECT_TIMEOUT_S), self.read(frames_in));
        let request = reading.await.unwrap_or_else(|_| {
            let detail = format!("no complete CONNECT within {} s", limits::LISTENER_CONNECT_TIMEOUT_S);
            Err(CloseInfo::new(CloseReason::ConnectTimeout, detail))
        })?;
        let peer_limits = (request.level == 5).then_some(PeerLimits {
            packet_bytes_max: request.packet_bytes_max as usize,
            reason_strings: request.reason_strings,
        });
        let mut out = Vec::with_capacity(64);
        let sender = match self.authenticate(&request).await {
            Ok(sender) => sender,
            Err(refusal) => {
                match peer_limits {
                    Some(limits) => {
                        let why = Some(refusal.why);
                        let properties =
                            ConnAckProperties { reason_string: why, ..encode::connack_properties() };
                        encode::connack_v5(&mut out, refusal.code5, properties, limits);
                    }
                    None => encode::connack(&mut out, refusal.code4),
                }
                writer.write_all(&out).await?;
                let _ = writer.shutdown().await;
                frames_in.drain_before_close().await;
                return Err(refusal.end);
            }
        };
        let scope = sender.as_ref().map_or("", |sender| sender.identity.tenant.as_str());
        let assigned = request.client_id.is_empty().then(random_client_id);
        let id = assigned.as_deref().unwrap_or(&request.client_id);
        let client_id = self.permit.take_client_id(scope, id, self.taken_over.clone());
        let session = {
            // No client id and no tenant has a U+0000.
            let of = format!("{scope}\0{id}");
            // In MQTT 5 the CONNACK says that the session ends with the connection.
            if request.clean_session || peer_limits.is_some() {
                self.context.sessions.forget(&of);
                None
            } else {
                self.context.sessions.resume(&of).map(|session| (of, session))
            }
        };
        match peer_limits {
            Some(limits) => {
                frames_in.framer.set_v5();
                encode::connack_v5(
                    &mut out,
                    Code5::Success,
                    self.connack_properties(assigned.clone()),
                    limits,
                );
            }
            None => encode::connack(&mut out, Code4::Success),
        }
        if peer_limits.is_some_and(|limits| out.len() > limits.packet_bytes_max) {
            // [MQTT-3.1.2-24]: no packet of ours is small enough.
            return Err(CloseInfo::new(
                CloseReason::Unexpected,
                "a maximum packet size below that of a CONNACK",
            ));
        }
        debug!(client_id = id, level = request.level, proven = sender.is_some(), "device connected");
        writer.write_all(&out).await?;
        writer.flush().await?;
        Ok(Established { client_id, keep_alive_s: request.keep_alive_s, peer_limits, sender, session })
    }

    /// The properties of a CONNACK with success. No session outlives its connection, no topic alias is
    /// taken, QoS 1 is the most, and nobody can subscribe.
    fn connack_properties(&self, assigned_client_identifier: Option<String>) -> ConnAckProperties {
        ConnAckProperties {
            session_expiry_interval: Some(0),
            receive_max: Some(limits::LISTENER_UNACKNOWLEDGED_MAX as u16),
            max_qos: Some(1),
            max_packet_size: Some(self.frames.packet_bytes_max() as u32),
            topic_alias_max: Some(0),
            wildcard_subscription_available: Some(0),
            subscription_identifiers_available: Some(0),
            shared_subscription_available: Some(0),
            assigned_client_identifier,
            ..encode::connack_properties()
        }
    }

    async fn read(&self, frames_in: &mut FrameReader<'_>) -> Result<ConnectRequest, CloseInfo> {
        loop {
            check_first_packet(frames_in.framer.unread_bytes())?;
            match frames_in.next_frame()? {
                None => {}
                Some(Frame::Connect(connect)) => return Ok(*connect),
                Some(_) => {
                    return Err(CloseInfo::new(CloseReason::Unexpected, "the first packet is not a CONNECT"));
                }
            }
            frames_in.fill(None).await?;
        }
    }

    async fn authenticate(
        &self,
        request: &ConnectRequest,
    ) -> Result<Option<AuthenticatedDevice>, ConnectRefusal> {
        if !matches!(request.level, 4 | 5) {
            let why = format!("protocol level {}; expected 4 or 5 (MQTT 3.1.1 or 5)", request.level);
            let (code4, code5) = (Code4::RefusedProtocolVersion, Code5::UnsupportedProtocolVersion);
            return Err(ConnectRefusal::new(CloseReason::ProtocolLevel, why, code4, code5));
        }
        let id = request.client_id.len();
        if id == 0 && !request.clean_session && request.level == 4 {
            // [MQTT-3.1.3-8]; MQTT 5 gives the client a name.
            let why = "an empty client id needs a clean session";
            return Err(ConnectRefusal::new(
                CloseReason::ClientId,
                why,
                Code4::BadClientId,
                Code5::ClientIdentifierNotValid,
            ));
        }
        if id > limits::CLIENT_ID_BYTES_MAX {
            let why = format!("a client id of {id} bytes, over the limit of {}", limits::CLIENT_ID_BYTES_MAX);
            return Err(ConnectRefusal::new(
                CloseReason::ClientId,
                why,
                Code4::BadClientId,
                Code5::ClientIdentifierNotValid,
            ));
        }
        if request.authentication {
            let (code4, code5) = (Code4::NotAuthorized, Code5::BadAuthenticationMethod);
            let why = "an authentication method; expected user name and password, or a certificate";
            return Err(ConnectRefusal::new(CloseReason::AuthenticationMethod, why, code4, code5));
        }
        if request.will_qos > 1 && request.level == 5 {
            // [MQTT-3.2.2-12]; MQTT 3.1.1 has no code for it, and wills are ignored.
            let why = "a will at QoS 2; expected QoS 0 or 1";
            let (code4, code5) = (Code4::NotAuthorized, Code5::QoSNotSupported);
            return Err(ConnectRefusal::new(CloseReason::WillQos, why, code4, code5));
        }
        let Some(claim) = self.claim(request)? else { return Ok(None) };
        let identity = claim.identity.clone();
        let proof = self.verify(claim).await?;
        let context = self.context;
        let certificate = self.certificate.as_ref();
        let proven =
            context.proven.add(self.permit.connection, &identity, proof, certificate, self.revocation);
        // The registry may have changed before the connection was in the table.
        let asking = Duration::from_secs(limits::CONNECT_REGISTRY_WAIT_S);
        let again = timeout(asking, context.sink.recheck(&identity, &proof)).await;
        if let Ok(Err(AuthError::Credentials(why) | AuthError::NotAuthorized(why))) = again {
            let (code4, code5) = (Code4::NotAuthorized, Code5::NotAuthorized);
            return Err(ConnectRefusal::new(CloseReason::NotAuthorized, why, code4, code5));
        }
        match context.connections.connect_limits.admit_tenant(&identity.tenant) {
            Some(permit) => Ok(Some(AuthenticatedDevice { identity, permit, _proven: proven })),
            None => {
                let why = format!("tenant {} has too many connections", identity.tenant);
                Err(ConnectRefusal::unavailable(CloseReason::TenantMax, why, Code5::QuotaExceeded))
            }
        }
    }

    /// The identity that the device claims; None if it claims none and need not.
    fn claim(&self, request: &ConnectRequest) -> Result<Option<Claim>, ConnectRefusal> {
        let settings = &self.context.settings;
        let bad = |why: &str| {
            let (code4, code5) = (Code4::BadUserNamePassword, Code5::BadUserNamePassword);
            ConnectRefusal::new(CloseReason::BadCredentials, why, code4, code5)
        };
        let not_authorized = |why: &str| {
            ConnectRefusal::new(CloseReason::NotAuthorized, why, Code4::NotAuthorized, Code5::NotAuthorized)
        };
        if settings.asks == CredentialPolicy::Nothing {
            return Ok(None);
        }
        let username = request.username.as_deref().filter(|name| !name.is_empty());
        if username.is_some_and(|name| name.len() > limits::USERNAME_BYTES_MAX)
            || request.password.as_ref().is_some_and(|password| password.len() > limits::PASSWORD_BYTES_MAX)
        {
            return Err(bad("a user name or a password that is too long"));
        }
        let named = match username.map(|name| settings.username.read(name)) {
            Some(None) => {
                return Err(bad("the user name does not have the form of listen.username"));
            }
            named => named.flatten(),
        };
        match (self.certificate.as_ref().map(|certificate| &certificate.identity), named) {
            (Some(Ok(identity)), Some(named)) if *identity != named => {
                Err(not_authorized("the user name and the client certificate name different devices"))
            }
            (Some(Ok(identity)), _) => {
                Ok(Some(Claim { identity: identity.clone(), proof: Proof::Certificate }))
            }
            (_, Some(identity)) => match &request.password {
                Some(password) => Ok(Some(Claim { identity, proof: Proof::Token(password.clone()) })),
                None => Err(bad("the password is missing: expected the token of the device")),
            },
            (Some(Err(why)), None) => Err(not_authorized(why)),
            (None, None) if request.password.as_ref().is_some_and(|password| !password.is_empty()) => {
                Err(bad("a password without a user name"))
            }
            (None, None) if settings.asks == CredentialPolicy::Always => {
                Err(not_authorized("expected a user name and a password, or a client certificate"))
            }
            (None, None) => Ok(None),
        }
    }

    /// Has the sink check a claim, within the limit of failed CONNECTs.
    async fn verify(&self, claim: Claim) -> Result<AcceptedProof, ConnectRefusal> {
        let identity = claim.identity.clone();
        let Some(attempt) =
            self.context.connections.connect_limits.begin_attempt(self.permit.network, &identity.to_string())
        else {
            let why = "too many CONNECTs failed; try again in a minute";
            return Err(ConnectRefusal::unavailable(
                CloseReason::FailedConnects,
                why,
                Code5::ConnectionRateExceeded,
            )
            .logged(format!("{identity}: {why}")));
        };
        let asking = Duration::from_secs(limits::CONNECT_REGISTRY_WAIT_S);
        let answer = timeout(asking, self.context.sink.authenticate(claim)).await;
        match answer.unwrap_or(Err(AuthError::Unavailable("the registry gave no answer in time"))) {
            Ok(proof) => {
                attempt.succeeded();
                Ok(proof)
            }
            Err(AuthError::Credentials(detail)) => {
                let (code4, code5) = (Code4::BadUserNamePassword, Code5::BadUserNamePassword);
                Err(ConnectRefusal::new(CloseReason::BadCredentials, BAD_CREDENTIALS, code4, code5)
                    .logged(format!("{identity}: {detail}")))
            }
            Err(AuthError::NotAuthorized(why)) => {
                attempt.succeeded();
                Err(ConnectRefusal::new(
                    CloseReason::NotAuthorized,
                    why,
                    Code4::NotAuthorized,
                    Code5::NotAuthorized,
                )
                .logged(format!("{identity}: {why}")))
            }
            Err(AuthError::Unavailable(why)) => {
                attempt.succeeded();
                let text = "the registry cannot be asked now; try again";
                Err(ConnectRefusal::unavailable(CloseReason::Unavailable, text, Code5::ServerUnavailable)
                    .logged(format!("{identity}: {why}")))
            }
        }
    }
}

/// Refuses a packet that cannot become a CONNECT of `LISTENER_CONNECT_BYTES_MAX` as soon as its beginning
/// shows it.
fn check_first_packet(bytes: &[u8]) -> Result<(), CloseInfo> {
    let Some((&first, length)) = bytes.split_first() else { return Ok(()) };
    if let Some(protocol) = other_protocol(bytes) {
        let detail = format!("it speaks {protocol}, and this port speaks plain MQTT");
        return Err(CloseInfo::new(CloseReason::Malformed, detail));
    }
    check_first_byte(first)?;
    if first >> 4 != kind::CONNECT {
        return Err(CloseInfo::new(CloseReason::Unexpected, "the first packet is no CONNECT"));
    }
    let mut announced = 0;
    for (at, byte) in length.iter().take(4).enumerate() {
        announced |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let bytes_max = limits::LISTENER_CONNECT_BYTES_MAX;
    if announced > bytes_max {
        return Err(PacketError::TooLong { bytes: announced, bytes_max }.into());
    }
    Ok(())
}

/// The protocol that some first bytes show, if it is a usual one that is not MQTT.
fn other_protocol(bytes: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 6] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"PRI "];
    // A handshake record (RFC 8446 section 5.1). No MQTT packet begins with 0x16.
    if bytes.starts_with(&[0x16, 3]) {
        return Some("TLS");
    }
    METHODS.iter().any(|method| bytes.starts_with(method)).then_some("HTTP")
}

/// A random client id for a device that brought none: nobody can guess it and take the connection over.
fn random_client_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(0_u8);
    format!("tidegate-{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_tls_on_the_plain_port_are_named() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1"[..], "HTTP"),
            (b"POST", "HTTP"),
            (b"PRI * HTTP/2.0", "HTTP"),
            (&[0x16, 3, 1, 2, 0], "TLS"),
        ] {
            let end = check_first_packet(bytes).unwrap_err();
            assert!(end.reason == CloseReason::Malformed && end.detail.contains(protocol), "{end:?}");
        }
        assert!(check_first_packet(&[0x10, 14, 0, 4]).is_ok());
        assert!(check_first_packet(b"").is_ok());
    }
}
