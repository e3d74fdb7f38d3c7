//! The listener's keys, and whether a stranger who can reach it could get a message in.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::checks::values::{address, is_loopback, within};
use crate::config::error::ConfigError;
use crate::config::sections::{Config, TopicSection};
use crate::config::words::{ClientCertificates, ConnectCredentials, Credentials, RegistryKind};
use crate::core::identity::NameTemplate;
use crate::core::topic::EnvelopeKind;
use crate::limits::LISTENER_PROXIES_MAX;

/// The proof that a device gives at CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectProof {
    None,
    Optional,
    Required,
}

/// The meaning of `listen.credentials`, with `auto` resolved.
pub fn connect_credentials(config: &Config) -> ConnectProof {
    match config.listen.credentials.get() {
        ConnectCredentials::None => ConnectProof::None,
        ConnectCredentials::Optional => ConnectProof::Optional,
        ConnectCredentials::Required => ConnectProof::Required,
        ConnectCredentials::Auto if config.admission.credentials.is(Credentials::Listener) => {
            ConnectProof::Required
        }
        ConnectCredentials::Auto if relies_on_listener(config).is_some() => ConnectProof::Optional,
        ConnectCredentials::Auto => proof_of_topics(config),
    }
}

/// The proof that the topics of a gateway without a broker need: their messages may bring none.
fn proof_of_topics(config: &Config) -> ConnectProof {
    let open = config.registry.kind.is(RegistryKind::Open) || !config.registry.require_token;
    let bare = |topic: &TopicSection| !topic.envelope.is(EnvelopeKind::Pulse);
    match config.topics.iter().filter(|topic| bare(topic)).count() {
        0 => ConnectProof::None,
        _ if open || !config.mqtt.url.is_empty() => ConnectProof::None,
        count if count == config.topics.len() => ConnectProof::Required,
        _ => ConnectProof::Optional,
    }
}

/// The key that lets messages in by what was proved at CONNECT.
fn relies_on_listener(config: &Config) -> Option<String> {
    let admission = &config.admission;
    if admission.credentials.is(Credentials::Listener) {
        return Some("admission.credentials".into());
    }
    let (name, _) = admission.types.iter().find(|(_, rules)| rules.credentials.is(Credentials::Listener))?;
    Some(format!("admission.types.{name}.credentials"))
}

pub(super) fn check(config: &Config, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    let listen = &config.listen;
    if !listen.address.is_empty() {
        address("listen.address", &listen.address)?;
    }
    within("listen.connections_max", listen.connections_max, 1, 1_000_000)?;
    within("listen.connections_per_address_max", listen.connections_per_address_max, 1, 1_000_000)?;
    within("listen.connections_per_tenant_max", listen.connections_per_tenant_max, 1, 1_000_000)?;
    within("listen.connects_per_s", listen.connects_per_s, 0.0, 1e6)?;
    within("listen.connects_burst", listen.connects_burst, 1.0, 1e6)?;
    within("listen.failed_connects_per_min", listen.failed_connects_per_min, 0, 100_000)?;
    within("listen.messages_per_s_per_tenant", listen.messages_per_s_per_tenant, 0, 10_000_000)?;
    listen.credentials.check("listen.credentials")?;
    listen.client_certificates.check("listen.client_certificates")?;
    for (key, text) in
        [("listen.username", &listen.username), ("listen.certificate_name", &listen.certificate_name)]
    {
        NameTemplate::parse(text).map_err(|fault| ConfigError::value(key, text, fault.to_string()))?;
    }
    proxies(config)?;
    tls(config)?;
    if let Some(key) = relies_on_listener(config) {
        if listen.address.is_empty() {
            let allowed = "envelope or broker, because listen.address is empty and no device can connect";
            return Err(ConfigError::value(&key, "listener", allowed));
        }
        if listen.credentials.is(ConnectCredentials::None) {
            return Err(ConfigError::value(
                "listen.credentials",
                listen.credentials.as_str(),
                format!("auto, optional or required, because {key} = \"listener\" needs a proof at CONNECT"),
            ));
        }
    }
    if listen.address.is_empty() {
        return Ok(());
    }
    let proof = connect_credentials(config);
    let open = config.registry.kind.is(RegistryKind::Open);
    if open && proof == ConnectProof::Required && listen.client_certificates.is(ClientCertificates::No) {
        return Err(ConfigError::value(
            "listen.credentials",
            listen.credentials.as_str(),
            "none or optional, or listen.client_certificates: registry.kind = \"open\" has no tokens, so no device \
             could connect",
        ));
    }
    open_doors(config, proof)?;
    if listen.tls_cert_file.is_empty() && !is_loopback(address("listen.address", &listen.address)?) {
        notes.push(format!(
            "listen.address = {:?} has no TLS (listen.tls_cert_file): tokens travel unencrypted",
            listen.address
        ));
    }
    Ok(())
}

/// The networks of balancers.
///
/// # Errors
/// One is none, or there are more than a look at each connection should cost.
pub(crate) fn proxies(config: &Config) -> Result<Vec<IpNet>, ConfigError> {
    let proxies = &config.listen.proxies;
    let refuse = |expected: String| ConfigError::value("listen.proxies", proxies, expected);
    if proxies.len() > LISTENER_PROXIES_MAX {
        return Err(refuse(format!("at most {LISTENER_PROXIES_MAX} addresses or networks")));
    }
    let network = |text: &String| {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| {
            refuse(format!(
                "addresses such as \"10.0.0.5\", or networks such as \"10.0.0.0/24\"; {text:?} is none"
            ))
        })
    };
    proxies.iter().map(network).collect()
}

/// True if devices of this machine alone reach the listener.
fn is_local(config: &Config) -> Result<bool, ConfigError> {
    let is_loopback = is_loopback(address("listen.address", &config.listen.address)?);
    Ok(is_loopback && config.listen.proxies.is_empty())
}

fn tls(config: &Config) -> Result<(), ConfigError> {
    let listen = &config.listen;
    let (cert, key) = (&listen.tls_cert_file, &listen.tls_key_file);
    if cert.is_empty() != key.is_empty() {
        let (missing, other) = match cert.is_empty() {
            true => ("listen.tls_cert_file", "listen.tls_key_file"),
            false => ("listen.tls_key_file", "listen.tls_cert_file"),
        };
        return Err(ConfigError::value(
            missing,
            "",
            format!("a PEM file, because {other} is set and TLS needs both"),
        ));
    }
    let asked = !listen.client_certificates.is(ClientCertificates::No);
    if asked && cert.is_empty() {
        return Err(ConfigError::value(
            "listen.client_certificates",
            listen.client_certificates.as_str(),
            "no, because listen.tls_cert_file and listen.tls_key_file are empty and certificates need TLS",
        ));
    }
    if asked && listen.client_ca_file.is_empty() {
        return Err(ConfigError::value(
            "listen.client_ca_file",
            &listen.client_ca_file,
            "a PEM file with the authorities that sign devices' certificates, because \
             listen.client_certificates is set",
        ));
    }
    if !asked && !listen.client_ca_file.is_empty() {
        return Err(ConfigError::value(
            "listen.client_certificates",
            listen.client_certificates.as_str(),
            "optional or required, because listen.client_ca_file is set and has no other use",
        ));
    }
    if !asked && !listen.client_crl_file.is_empty() {
        return Err(ConfigError::value(
            "listen.client_crl_file",
            &listen.client_crl_file,
            "no value, because listen.client_certificates = \"no\" and the file has no other use",
        ));
    }
    Ok(())
}

/// A listener that strangers can reach must let nothing in without a credential of the device that it
/// is counted as. Where CONNECT must be proved, that is one: a device then publishes to its own topics
/// only, whatever its messages must bring beside it. Else each message must bring one: the token in the
/// envelope, which a registry must know and want.
fn open_doors(config: &Config, proof: ConnectProof) -> Result<(), ConfigError> {
    if is_local(config)? || proof == ConnectProof::Required {
        return Ok(());
    }
    let refuse = |why: &str| {
        Err(ConfigError::value(
            "listen.address",
            &config.listen.address,
            format!(
                "a loopback address without listen.proxies, or listen.credentials = \"required\": with {why} a message \
                 could come in without a credential"
            ),
        ))
    };
    if config.registry.kind.is(RegistryKind::Open) {
        return refuse("registry.kind = \"open\"");
    }
    if !config.registry.require_token {
        return refuse("registry.require_token = false");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ConfigError;
    use crate::config::sections::Config;

    /// The key that is complained about; empty where all is well.
    fn key(text: &str) -> String {
        let config: Config = toml::from_str(text).unwrap();
        match check(&config, &mut Vec::new()) {
            Ok(()) => String::new(),
            Err(ConfigError::Value { key, .. }) => key,
            Err(other) => panic!("{other}"),
        }
    }

    const TLS: &str = "tls_cert_file = \"c\"\ntls_key_file = \"k\"\nclient_ca_file = \"a\"\n";

    /// Every combination of what lets a message in, at an address that strangers reach: it may start
    /// only where each message is somebody's by a credential.
    #[test]
    fn a_listener_that_strangers_reach_lets_nothing_in_without_a_credential() {
        for registry in ["file", "postgres", "open"] {
            for require_token in [true, false] {
                for admission in ["envelope", "broker", "listener"] {
                    for credentials in ["auto", "none", "optional", "required"] {
                        for certificates in ["no", "optional", "required"] {
                            let tls = if certificates == "no" { "" } else { TLS };
                            let text = format!(
                                "[listen]\naddress = \"0.0.0.0:1883\"\ncredentials = \"{credentials}\"\n\
                                 client_certificates = \"{certificates}\"\n{tls}\
                                 [registry]\nkind = \"{registry}\"\nrequire_token = {require_token}\n\
                                 [admission]\ncredentials = \"{admission}\"\n"
                            );
                            let proved =
                                credentials == "required" || credentials == "auto" && admission == "listener";
                            let can_prove = registry != "open" || certificates != "no";
                            let nonsense = admission == "listener" && credentials == "none";
                            let by_envelope = registry != "open" && require_token;
                            let good = !nonsense && if proved { can_prove } else { by_envelope };
                            assert_eq!(key(&text).is_empty(), good, "{text}{}", key(&text));
                            // On loopback the same is for the operator alone.
                            let near = text.replace("0.0.0.0", "127.0.0.1");
                            assert_eq!(key(&near).is_empty(), !nonsense && (!proved || can_prove), "{near}");
                            // A balancer of this machine brings strangers there.
                            let proxied = near.replace("[listen]\n", "[listen]\nproxies = [\"127.0.0.1\"]\n");
                            assert_eq!(key(&proxied).is_empty(), good, "{proxied}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_belongs_together_is_asked_for_together() {
        let listen = |more: &str| key(&format!("[listen]\naddress = \"127.0.0.1:1883\"\n{more}"));
        assert_eq!(listen("tls_cert_file = \"c\""), "listen.tls_key_file");
        assert_eq!(listen("tls_key_file = \"k\""), "listen.tls_cert_file");
        assert_eq!(listen("client_certificates = \"optional\""), "listen.client_certificates");
        assert_eq!(listen("client_ca_file = \"a\""), "listen.client_certificates");
        let pair = "tls_cert_file = \"c\"\ntls_key_file = \"k\"\n";
        assert_eq!(listen(&format!("{pair}client_certificates = \"required\"")), "listen.client_ca_file");
        assert_eq!(listen(pair), "");
        assert_eq!(listen("username = \"{tenant}{device}\""), "listen.username");
        assert_eq!(listen("certificate_name = \"{device}\""), "listen.certificate_name");
        assert_eq!(key("[admission]\ncredentials = \"listener\""), "admission.credentials");
        assert_eq!(key("[admission.types.lp]\ncredentials = \"listener\""), "admission.types.lp.credentials");
    }

    #[test]
    fn a_balancer_is_an_address_or_a_network() {
        let of = |list: &str| key(&format!("[listen]\naddress = \"127.0.0.1:1883\"\nproxies = [{list}]\n"));
        assert_eq!(of("\"10.0.0.5\", \"10.1.0.0/16\", \"2001:db8::/64\", \"::1\""), "");
        for bad in ["\"balancer\"", "\"10.0.0.0/33\"", "\"\""] {
            assert_eq!(of(bad), "listen.proxies", "{bad}");
        }
        let many = vec!["\"10.0.0.5\""; LISTENER_PROXIES_MAX + 1].join(",");
        assert_eq!(of(&many), "listen.proxies");
    }

    #[test]
    fn what_must_be_proved_follows_from_what_is_relied_on() {
        let proof = |text: &str| connect_credentials(&toml::from_str(text).unwrap());
        assert_eq!(proof(""), ConnectProof::None);
        assert_eq!(proof("[admission]\ncredentials = \"listener\""), ConnectProof::Required);
        assert_eq!(proof("[admission.types.lp]\ncredentials = \"listener\""), ConnectProof::Optional);
        assert_eq!(
            proof("[listen]\ncredentials = \"optional\"\n[admission]\ncredentials = \"listener\""),
            ConnectProof::Optional
        );
    }
}
