//! A tenant's rules for its lines beyond their form: a prefix of its tables, a tag with its name, the
//! tables and fields that it may write, and the greatest distance of a time from its receipt.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::detail::Quoted;
use crate::line_protocol::fault::{Dialect, LineFaultKind, Parsed};
use crate::line_protocol::names;

/// The rules of one tenant. Most have none, and pay for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineRules {
    /// Stands before every measurement; needs no escapes.
    pub table_prefix: Box<[u8]>,
    pub tenant_tag: Option<TenantTag>,
    /// Measurements as the guest writes them, without the prefix. `None`: any.
    pub tables: Option<NameSet>,
    /// `None`: any.
    pub fields: Option<NameSet>,
    /// Tables whose fields are not those of `fields`.
    pub fields_of: HashMap<Box<[u8]>, NameSet>,
    /// The distance that a line's time may have from the receipt of its message, into the past, in nanoseconds.
    pub past_max_ns: Option<i64>,
    /// The same into the future.
    pub future_max_ns: Option<i64>,
}

/// The tag that carries the tenant. It is the host's, as the identity tags are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantTag {
    pub key: Box<[u8]>,
    /// `,key=tenant`, escaped. It stands before all other tags: databases sort by the first.
    pub spliced: Box<[u8]>,
}

/// Names that may be used: whole ones, and beginnings of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    whole: HashSet<Box<[u8]>, foldhash::fast::FixedState>,
    beginnings: Vec<Box<[u8]>>,
    /// The rules as the operator wrote them.
    shown: String,
}

impl NameSet {
    /// Names, of which a last `*` stands for whatever follows.
    pub fn new(names: &[String]) -> Self {
        let mut set = Self { shown: names.join(", "), ..Self::default() };
        for name in names {
            match name.strip_suffix('*') {
                Some(beginning) => set.beginnings.push(beginning.as_bytes().into()),
                None => _ = set.whole.insert(name.as_bytes().into()),
            }
        }
        set
    }

    fn has(&self, name: &[u8]) -> bool {
        self.whole.contains(name) || self.beginnings.iter().any(|beginning| name.starts_with(beginning))
    }
}

impl LineRules {
    /// True if there is no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True if it says which tables or fields may be written.
    pub(super) fn limits_names(&self) -> bool {
        self.tables.is_some() || self.fields.is_some() || !self.fields_of.is_empty()
    }

    /// Bytes that each line is given.
    pub(super) fn spliced_bytes(&self) -> usize {
        self.table_prefix.len() + self.tenant_tag.as_ref().map_or(0, |tag| tag.spliced.len())
    }

    /// The fields that may stand in a table (`None`: any), if the tenant may write to it.
    pub(super) fn table(&self, text: &[u8], start: usize, end: usize) -> Parsed<Option<&NameSet>> {
        let name = measurement_name(&text[start..end]);
        if self.tables.as_ref().is_some_and(|tables| !tables.has(&name)) {
            return Err((LineFaultKind::TableNotAllowed, start));
        }
        if self.fields_of.is_empty() {
            return Ok(self.fields.as_ref());
        }
        Ok(self.fields_of.get(&*name).or(self.fields.as_ref()))
    }

    /// True if a time, parsed before, is near enough to its receipt.
    pub(super) fn has_time(&self, time: &[u8], received_ns: i64) -> bool {
        if self.past_max_ns.is_none() && self.future_max_ns.is_none() {
            return true;
        }
        let Some(time) = parse(time) else { return false };
        let ahead = i128::from(time) - i128::from(received_ns);
        self.past_max_ns.is_none_or(|most| -ahead <= i128::from(most))
            && self.future_max_ns.is_none_or(|most| ahead <= i128::from(most))
    }

    /// The rule that a line broke at a byte, in words; empty for other faults.
    pub(super) fn explain(&self, kind: LineFaultKind, text: &[u8], at: usize, received_ns: i64) -> String {
        match kind {
            LineFaultKind::TableNotAllowed => {
                let name = names::measurement(text, at).map_or(at, |end| end);
                let name = measurement_name(&text[at..name]);
                let allowed = self.tables.as_ref().map_or("", |tables| &tables.shown);
                format!(" ({}; allowed: {allowed})", Quoted(&String::from_utf8_lossy(&name)))
            }
            LineFaultKind::FieldNotAllowed => {
                let key = names::field_key(text, at, Dialect::V3).map_or(at..at, |key| key);
                let key = key_name(&text[key]);
                format!(" ({})", Quoted(&String::from_utf8_lossy(&key)))
            }
            LineFaultKind::OutsideWindow => {
                let end =
                    at + text[at..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-')).count();
                let time = String::from_utf8_lossy(&text[at..end]);
                let side = |most: Option<i64>, of: &str| match most {
                    Some(most) => format!("at most {} s {of}", most / 1_000_000_000),
                    None => format!("any {of}"),
                };
                let (past, future) = (side(self.past_max_ns, "before"), side(self.future_max_ns, "after"));
                format!(
                    " ({time}, received at {received_ns}; allowed: {past}, {future}; \
                         set by time_past_max_s and time_future_max_s)"
                )
            }
            LineFaultKind::TenantTag => {
                let key = self.tenant_tag.as_ref().map_or(&b""[..], |tag| &tag.key);
                format!(" ({})", String::from_utf8_lossy(key))
            }
            _ => String::new(),
        }
    }
}

impl NameSet {
    /// True for a permitted field key.
    pub(super) fn permits_key(&self, key: &[u8]) -> bool {
        self.has(&key_name(key))
    }
}

fn parse(time: &[u8]) -> Option<i64> {
    std::str::from_utf8(time).ok()?.parse().ok()
}

/// A measurement without its escapes, which are those of comma and space alone.
fn measurement_name(escaped: &[u8]) -> Cow<'_, [u8]> {
    unescaped(escaped, b", ")
}

fn key_name(escaped: &[u8]) -> Cow<'_, [u8]> {
    unescaped(escaped, b"\\,= ")
}

fn unescaped<'a>(name: &'a [u8], escapable: &[u8]) -> Cow<'a, [u8]> {
    if memchr::memchr(b'\\', name).is_none() {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'\\', Some(next)) if escapable.contains(next) => plain.extend(bytes.next()),
            _ => plain.push(byte),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_protocol::fault::{Dialect, LineFaultKind};
    use crate::line_protocol::{LineChecker, LineContext};
    use std::collections::HashMap;

    const S: i64 = 1_000_000_000;
    const RECEIVED: i64 = 1_000_000 * S;

    fn set(names: &[&str]) -> NameSet {
        NameSet::new(&names.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn check(rules: &LineRules, text: &str) -> Result<String, (LineFaultKind, String)> {
        let stamp = LineContext {
            identity_tags: b",device_id=d",
            received_ns: RECEIVED,
            dialect: Dialect::V3,
            rules: Some(rules),
        };
        let mut out = Vec::new();
        match LineChecker::default().check(text.as_bytes(), stamp, &mut out) {
            Ok(_) => Ok(String::from_utf8(out).unwrap()),
            Err(fault) => Err((fault.kind, fault.to_string())),
        }
    }

    #[test]
    fn prefix_and_tag_are_spliced_in_before_the_identity() {
        let tag = TenantTag { key: (*b"tenant").into(), spliced: (*b",tenant=acme").into() };
        let rules =
            LineRules { table_prefix: (*b"a_").into(), tenant_tag: Some(tag), ..LineRules::default() };
        assert_eq!(
            check(&rules, "m,x=1 f=1 5\nn\\ o f=2").unwrap(),
            format!(
                "a_m,tenant=acme,device_id=d,x=1 f=1 5\na_n\\ o,tenant=acme,device_id=d f=2 {RECEIVED}\n"
            )
        );
        for forged in ["m,tenant=other f=1", "m tenant=1", "m,ten\\ant=x,tenant=y f=1", "m f=1,tenant=\"a\""]
        {
            let (kind, text) = check(&rules, forged).unwrap_err();
            assert_eq!(kind, LineFaultKind::TenantTag, "{forged}");
            assert_eq!(kind.reason(), crate::reason::Reason::IdentityInLine);
            assert!(text.contains("(tenant)"), "{text}");
        }
    }

    #[test]
    fn only_allowed_tables_and_fields_pass_whatever_their_escapes() {
        let fields_of = HashMap::from([((*b"b").into(), set(&["only"]))]);
        let rules = LineRules {
            tables: Some(set(&["a", "b", "with space", "c_*"])),
            fields: Some(set(&["f", "g*"])),
            fields_of,
            ..LineRules::default()
        };
        for good in ["a f=1", "a f=1,g1=2,g=3", "b only=1", "with\\ space f=1", "c_anything f=1"] {
            assert!(check(&rules, good).is_ok(), "{good}");
        }
        for (bad, kind) in [
            ("d f=1", LineFaultKind::TableNotAllowed),
            ("a\\,b f=1", LineFaultKind::TableNotAllowed),
            ("c f=1", LineFaultKind::TableNotAllowed),
            ("a x=1", LineFaultKind::FieldNotAllowed),
            ("a f=1,x=2", LineFaultKind::FieldNotAllowed),
            ("b f=1", LineFaultKind::FieldNotAllowed),
            ("a f\\ =1", LineFaultKind::FieldNotAllowed),
        ] {
            assert_eq!(check(&rules, bad).unwrap_err().0, kind, "{bad}");
        }
        let (_, text) = check(&rules, "a f=1\nd f=1").unwrap_err();
        assert!(text.contains("line 2") && text.contains("\"d\"; allowed: a, b, with space, c_*"), "{text}");
        let (_, text) = check(&rules, "a f=1,x=2").unwrap_err();
        assert!(text.contains("byte 7") && text.contains("\"x\""), "{text}");
    }

    #[test]
    fn a_time_outside_the_window_is_refused_with_the_values() {
        let rules = LineRules { past_max_ns: Some(60 * S), future_max_ns: Some(S), ..LineRules::default() };
        let at = |time: i64| check(&rules, &format!("m f=1 {time}"));
        for good in [RECEIVED, RECEIVED - 60 * S, RECEIVED + S] {
            assert!(at(good).is_ok(), "{good}");
        }
        assert!(check(&rules, "m f=1").is_ok(), "the time of receipt is in every window");
        for bad in [RECEIVED - 60 * S - 1, RECEIVED + S + 1, i64::MIN + 2, i64::MAX, 0] {
            let (kind, text) = at(bad).unwrap_err();
            assert_eq!(kind, LineFaultKind::OutsideWindow);
            assert!(text.contains(&format!("({bad}, received at {RECEIVED}")), "{text}");
            assert!(text.contains("at most 60 s before, at most 1 s after"), "{text}");
        }
        let past_only = LineRules { past_max_ns: Some(60 * S), ..LineRules::default() };
        assert!(check(&past_only, &format!("m f=1 {}", i64::MAX)).is_ok());
        assert!(check(&past_only, "m f=1 1").is_err());
    }
}
