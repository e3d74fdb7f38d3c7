//! CONNECT and CONNACK: who a device is, and whether it may come in.
//!
//! A client certificate that names a device is proof enough. Else the user name names it and the
//! password is its token. Who brings nothing is let in where nothing is asked for, and has then proved
//! nothing: each of its messages must bring its own credentials.

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
use crate::listener::close::CloseInfo;
use crate::listener::connect_limits::TenantConnectionPermit;
use crate::listener::connection_table::{ClientIdGuard, CloseReason, ConnectionPermit};
use crate::listener::context::{CredentialPolicy, ListenerContext};
use crate::listener::frame_reader::FrameReader;
use crate::listener::socket::SocketWriter;
use crate::mqtt::control::{ConnectRequest, Frame, check_first_byte, encode};
use crate::mqtt::error::{PacketError, kind};
use crate::mqtt::framing::FrameLimits;
use crate::mqtt::publish::PeerLimits;
use crate::sink::MessageSink;
use tidegate_core::ack::redelivery::RedeliveryFilter;
use tidegate_core::identity::{AuthError, Claim, Identity, Proof};

/// What a device says is wrong is one text for whoever guesses, too.
const BAD_CREDENTIALS: &str = "there is no such device, or its token is another one";

/// A device that was let in.
pub struct Established {
    pub name: ClientIdGuard,
    pub keep_alive_s: u16,
    /// None: it speaks MQTT 3.1.1.
    pub peer_limits: Option<PeerLimits>,
    /// Who it is, where it has proved that.
    pub sender: Option<AuthenticatedDevice>,
    /// The session that it asked for, by its name among `DeviceSessions`.
    pub session: Option<(String, Arc<RedeliveryFilter>)>,
}

/// A device that has proved who it is.
pub struct AuthenticatedDevice {
    pub identity: Identity,
    pub pass: TenantConnectionPermit,
}

/// A device that was not let in: how that is counted, and its CONNACK in both protocols.
struct ConnectRefusal {
    end: CloseInfo,
    /// What the device is told; the rest of `end` is for the log.
    why: String,
    code4: Code4,
    code5: Code5,
}

impl ConnectRefusal {
    fn new(ending: CloseReason, why: impl Into<String>, code4: Code4, code5: Code5) -> Self {
        let why = why.into();
        Self { end: CloseInfo::new(ending, why.clone()), why, code4, code5 }
    }

    fn unavailable(ending: CloseReason, why: impl Into<String>, code5: Code5) -> Self {
        Self::new(ending, why, Code4::ServiceUnavailable, code5)
    }

    /// With more for the log than for the device.
    fn logged(self, detail: String) -> Self {
        Self { end: CloseInfo { detail, ..self.end }, ..self }
    }
}

/// What the greeting of one connection works with.
pub struct Handshake<'a, I> {
    pub shared: &'a ListenerContext<I>,
    pub pass: &'a ConnectionPermit,
    /// Whom the client certificate names, or why nobody; None: there is none.
    pub certificate: Option<Result<Identity, String>>,
    pub taken_over: &'a Arc<Notify>,
    pub frames: FrameLimits,
}

impl<I: MessageSink> Handshake<'_, I> {
    /// Reads the CONNECT, judges it, and answers.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn greet(
        &self,
        input: &mut FrameReader<'_>,
        writer: &mut SocketWriter<'_>,
    ) -> Result<Established, CloseInfo> {
        let reading = timeout(Duration::from_secs(limits::LISTENER_CONNECT_TIMEOUT_S), self.read(input));
        let hello = reading.await.unwrap_or_else(|_| {
            let detail = format!("no complete CONNECT within {} s", limits::LISTENER_CONNECT_TIMEOUT_S);
            Err(CloseInfo::new(CloseReason::ConnectTimeout, detail))
        })?;
        let peer_limits = (hello.level == 5).then_some(PeerLimits {
            packet_bytes_max: hello.packet_bytes_max as usize,
            reason_strings: hello.reason_strings,
        });
        let mut out = Vec::with_capacity(64);
        let welcomed = match self.authenticate(&hello).await {
            Ok(sender) => sender,
            Err(turned) => {
                match peer_limits {
                    Some(limits) => {
                        let why = Some(turned.why);
                        let properties =
                            ConnAckProperties { reason_string: why, ..encode::connack_properties() };
                        encode::connack_v5(&mut out, turned.code5, properties, limits);
                    }
                    None => encode::connack(&mut out, turned.code4),
                }
                writer.write_all(&out).await?;
                let _ = writer.shutdown().await;
                input.drain_before_close().await;
                return Err(turned.end);
            }
        };
        let scope = welcomed.as_ref().map_or("", |sender| sender.identity.tenant.as_str());
        let assigned = hello.client_id.is_empty().then(random_client_id);
        let id = assigned.as_deref().unwrap_or(&hello.client_id);
        let name = self.pass.take_client_id(scope, id, self.taken_over.clone());
        let session = {
            // No client id and no tenant has a U+0000.
            let of = format!("{scope}\0{id}");
            // MQTT 5 is told that its session ends with the connection.
            if hello.clean_session || peer_limits.is_some() {
                self.shared.sessions.forget(&of);
                None
            } else {
                self.shared.sessions.go_on(&of).map(|session| (of, session))
            }
        };
        match peer_limits {
            Some(limits) => {
                input.framer.set_v5();
                encode::connack_v5(&mut out, Code5::Success, self.terms(assigned.clone()), limits);
            }
            None => encode::connack(&mut out, Code4::Success),
        }
        if peer_limits.is_some_and(|limits| out.len() > limits.packet_bytes_max) {
            // [MQTT-3.1.2-24]: there is nothing that we could say to it.
            return Err(CloseInfo::new(
                CloseReason::Unexpected,
                "a maximum packet size below that of a CONNACK",
            ));
        }
        debug!(client_id = id, level = hello.level, proven = welcomed.is_some(), "device connected");
        writer.write_all(&out).await?;
        writer.flush().await?;
        Ok(Established { name, keep_alive_s: hello.keep_alive_s, peer_limits, sender: welcomed, session })
    }

    /// The properties of a CONNACK that lets in. No session outlives its connection, no topic alias is
    /// taken, QoS 1 is the most, and nobody can subscribe.
    fn terms(&self, assigned_client_identifier: Option<String>) -> ConnAckProperties {
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

    async fn read(&self, input: &mut FrameReader<'_>) -> Result<ConnectRequest, CloseInfo> {
        loop {
            check_first_packet(input.framer.unread_bytes())?;
            match input.next_packet()? {
                None => {}
                Some(Frame::Connect(connect)) => return Ok(*connect),
                Some(_) => {
                    return Err(CloseInfo::new(CloseReason::Unexpected, "the first packet is not a CONNECT"));
                }
            }
            input.fill(None).await?;
        }
    }

    async fn authenticate(
        &self,
        hello: &ConnectRequest,
    ) -> Result<Option<AuthenticatedDevice>, ConnectRefusal> {
        if !matches!(hello.level, 4 | 5) {
            let why = format!("protocol level {}; expected 4 or 5 (MQTT 3.1.1 or 5)", hello.level);
            let (code4, code5) = (Code4::RefusedProtocolVersion, Code5::UnsupportedProtocolVersion);
            return Err(ConnectRefusal::new(CloseReason::ProtocolLevel, why, code4, code5));
        }
        let id = hello.client_id.len();
        if id == 0 && !hello.clean_session && hello.level == 4 {
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
        if hello.authentication {
            let (code4, code5) = (Code4::NotAuthorized, Code5::BadAuthenticationMethod);
            let why = "an authentication method; expected user name and password, or a certificate";
            return Err(ConnectRefusal::new(CloseReason::AuthenticationMethod, why, code4, code5));
        }
        let Some(claim) = self.claim(hello)? else { return Ok(None) };
        let identity = claim.identity.clone();
        self.verify(claim).await?;
        match self.shared.doors.ceilings.enter_tenant(&identity.tenant) {
            Some(pass) => Ok(Some(AuthenticatedDevice { identity, pass })),
            None => {
                let why = format!("tenant {} has too many connections", identity.tenant);
                Err(ConnectRefusal::unavailable(CloseReason::TenantMax, why, Code5::QuotaExceeded))
            }
        }
    }

    /// What the device says of itself; None where it says nothing and need not.
    fn claim(&self, hello: &ConnectRequest) -> Result<Option<Claim>, ConnectRefusal> {
        let settings = &self.shared.settings;
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
        let username = hello.username.as_deref().filter(|name| !name.is_empty());
        if username.is_some_and(|name| name.len() > limits::USERNAME_BYTES_MAX)
            || hello.password.as_ref().is_some_and(|password| password.len() > limits::PASSWORD_BYTES_MAX)
        {
            return Err(bad("a user name or a password that is too long"));
        }
        let named = match username.map(|name| settings.username.read(name)) {
            Some(None) => {
                return Err(bad("the user name does not have the form of listen.username"));
            }
            named => named.flatten(),
        };
        match (&self.certificate, named) {
            (Some(Ok(identity)), Some(named)) if *identity != named => {
                Err(not_authorized("the user name and the client certificate name different devices"))
            }
            (Some(Ok(identity)), _) => {
                Ok(Some(Claim { identity: identity.clone(), proof: Proof::Certificate }))
            }
            (_, Some(identity)) => match &hello.password {
                Some(password) => Ok(Some(Claim { identity, proof: Proof::Token(password.clone()) })),
                None => Err(bad("the password is missing: expected the token of the device")),
            },
            (Some(Err(why)), None) => Err(not_authorized(why)),
            (None, None) if hello.password.as_ref().is_some_and(|password| !password.is_empty()) => {
                Err(bad("a password without a user name"))
            }
            (None, None) if settings.asks == CredentialPolicy::Always => {
                Err(not_authorized("expected a user name and a password, or a client certificate"))
            }
            (None, None) => Ok(None),
        }
    }

    /// Asks whether it is so, at most as often as may be guessed.
    async fn verify(&self, claim: Claim) -> Result<(), ConnectRefusal> {
        let identity = claim.identity.clone();
        let Some(one_try) =
            self.shared.doors.ceilings.begin_attempt(self.pass.network, &identity.to_string())
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
        let answer = timeout(asking, self.shared.intake.authenticate(claim)).await;
        match answer.unwrap_or(Err(AuthError::Unavailable("the registry gave no answer in time"))) {
            Ok(()) => {
                one_try.succeeded();
                Ok(())
            }
            Err(AuthError::Credentials(detail)) => {
                let (code4, code5) = (Code4::BadUserNamePassword, Code5::BadUserNamePassword);
                Err(ConnectRefusal::new(CloseReason::BadCredentials, BAD_CREDENTIALS, code4, code5)
                    .logged(format!("{identity}: {detail}")))
            }
            Err(AuthError::NotAuthorized(why)) => {
                one_try.succeeded();
                Err(ConnectRefusal::new(
                    CloseReason::NotAuthorized,
                    why,
                    Code4::NotAuthorized,
                    Code5::NotAuthorized,
                )
                .logged(format!("{identity}: {why}")))
            }
            Err(AuthError::Unavailable(why)) => {
                one_try.succeeded();
                let told = "the registry cannot be asked now; try again";
                Err(ConnectRefusal::unavailable(CloseReason::Unavailable, told, Code5::ServerUnavailable)
                    .logged(format!("{identity}: {why}")))
            }
        }
    }
}

/// Refuses what cannot become a CONNECT of `LISTENER_CONNECT_BYTES_MAX` as soon as its beginning shows it.
fn check_first_packet(bytes: &[u8]) -> Result<(), CloseInfo> {
    let Some((&first, length)) = bytes.split_first() else { return Ok(()) };
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

/// A client id for a device that brought none: nobody can name it and take the connection over.
fn random_client_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(0_u8);
    format!("tidegate-{:016x}{:016x}", half(), half())
}
