//! The rights of a caller of the admin side: by its token, by its address, and by the host that it names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::core::keyed_buckets::KeyedTokenBuckets;
use crate::core::route_key::name_of;
use crate::limits::{ADMIN_ADDRESSES_MAX, ADMIN_FAILURES_RATE};

/// The rights of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It brought no token that somebody has.
    Nobody,
    /// It sees and changes what is its own.
    Tenant,
    /// It may read all that holds no payload.
    Reader,
    Operator,
}

/// The thing that a caller's rights depend on, for a connection that outlives one answer.
#[derive(Clone)]
pub enum Proof {
    Nothing,
    Token(Arc<str>),
    /// A session, by its name.
    Session(Arc<str>),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(hidden)")
    }
}

/// A caller, for the handlers.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub access: Access,
    /// The tenant whose token it brought, by the name of its folder.
    pub tenant: Option<Arc<str>>,
    pub proof: Proof,
    /// It comes from this machine, and calls it by an address or as localhost. A page of a foreign site that
    /// a browser shows cannot: it calls its own name.
    pub is_local: bool,
}

impl Visitor {
    /// True if it may see names of all tenants, hosts and files.
    pub fn sees_names(&self) -> bool {
        match self.access {
            Access::Operator | Access::Reader => true,
            Access::Tenant => false,
            Access::Nobody => self.is_local,
        }
    }

    /// True if it may see what devices sent, of the tenants that it sees.
    pub fn sees_payloads(&self) -> bool {
        matches!(self.access, Access::Operator | Access::Tenant)
    }

    /// The name of the tenant whose token it brought.
    pub fn tenant_name(&self) -> Option<String> {
        let folder = self.tenant.as_deref()?;
        Some(name_of(folder).unwrap_or_else(|| folder.to_owned()))
    }
}

impl std::fmt::Display for Visitor {
    /// The author of a change in the audit log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.access, &self.tenant) {
            (Access::Tenant, Some(tenant)) => write!(f, "tenant {tenant}"),
            (Access::Reader, _) => f.write_str("reader"),
            _ => f.write_str("operator"),
        }
    }
}

/// True if a browser says that a page of another address has made this request. Browsers say so in headers that no
/// page can set; programs say nothing.
pub fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some(site) => !matches!(site, "same-origin" | "none"),
        None => {
            let host = text(header::HOST).unwrap_or_default();
            text(header::ORIGIN)
                .is_some_and(|origin| origin.split_once("://").map(|(_, host)| host) != Some(host))
        }
    }
}

/// True if a browser says that a page of this very address has made this request.
pub fn comes_from_here(headers: &HeaderMap) -> bool {
    let says = headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN);
    says && !comes_from_elsewhere(headers)
}

/// The address of a caller.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The network that counts as one caller: an address, or for IPv6 its /64, whose owner has any number of
/// addresses in it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64))
        }
        other => other,
    }
}

/// The operator's token, and the one that only reads; empty: there is none.
#[derive(Clone, Default)]
pub struct AdminTokens {
    pub operator: String,
    pub reader: String,
}

impl std::fmt::Debug for AdminTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminTokens(hidden)")
    }
}

impl AdminTokens {
    /// The rights of a token.
    pub fn access(&self, given: Option<&str>) -> Access {
        let Some(given) = given else { return Access::Nobody };
        let is = |token: &str| !token.is_empty() && bool::from(given.as_bytes().ct_eq(token.as_bytes()));
        if is(&self.operator) {
            Access::Operator
        } else if is(&self.reader) {
            Access::Reader
        } else {
            Access::Nobody
        }
    }
}

/// The token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// True if a request names this machine by an address, as localhost, or not at all.
pub fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Requests without a right token, by address.
#[derive(Debug)]
pub struct Failures {
    started: Instant,
    by_address: Mutex<KeyedTokenBuckets<IpAddr>>,
}

impl Default for Failures {
    fn default() -> Self {
        let by_address = Mutex::new(KeyedTokenBuckets::new(ADMIN_FAILURES_RATE, ADMIN_ADDRESSES_MAX));
        Self { started: Instant::now(), by_address }
    }
}

impl Failures {
    /// Counts an attempt of an address; false if too many have failed of late.
    pub fn begin(&self, address: IpAddr) -> bool {
        self.by_address.lock().take(address, self.started.elapsed().as_secs_f64())
    }

    /// Takes an attempt back that did not fail.
    pub fn succeeded(&self, address: IpAddr) {
        self.by_address.lock().release(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_or_localhost_names_this_machine() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            names_this_machine(&headers)
        };
        for host in ["127.0.0.1:9464", "localhost", "LOCALHOST:1", "[::1]:9464", "10.0.0.1"] {
            assert!(named(host), "{host}");
        }
        for host in ["evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!named(host), "{host}");
        }
        assert!(names_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn a_request_of_another_address_is_known_by_what_its_browser_says() {
        let request = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "localhost:9464".parse().unwrap());
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            (comes_from_elsewhere(&headers), comes_from_here(&headers))
        };
        assert_eq!(request(&[]), (false, false));
        assert_eq!(request(&[("sec-fetch-site", "same-origin")]), (false, true));
        assert_eq!(request(&[("origin", "http://localhost:9464")]), (false, true));
        // Of another port of the same host too.
        for (name, value) in [
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://localhost:8080"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            assert_eq!(request(&[(name, value)]), (true, false), "{value}");
        }
    }

    #[test]
    fn an_address_that_guesses_is_stopped_and_one_that_knows_is_not() {
        let failures = Failures::default();
        let (guesser, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let tries = (0..1000).filter(|_| failures.begin(guesser)).count();
        assert!(tries as f64 <= 2.0 * ADMIN_FAILURES_RATE.burst, "{tries}");
        for _ in 0..1000 {
            assert!(failures.begin(other));
            failures.succeeded(other);
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert!(of("::1").is_loopback() && of("::ffff:127.0.0.1").is_loopback());
    }

    #[test]
    fn each_token_gives_its_own_rights_and_an_empty_one_none() {
        let tokens = AdminTokens { operator: "op".into(), reader: "rd".into() };
        assert_eq!(tokens.access(Some("op")), Access::Operator);
        assert_eq!(tokens.access(Some("rd")), Access::Reader);
        assert_eq!(tokens.access(Some("")), Access::Nobody);
        assert_eq!(AdminTokens::default().access(Some("")), Access::Nobody);
        assert_eq!(tokens.access(None), Access::Nobody);
    }
}
