//! Redaction of credentials in payloads and in texts about them.

use std::borrow::Cow;
use std::ops::Range;

const SECRET_KEYS: [&str; 1] = ["provision_token"];

const MASK: &str = "***";

/// Shorter secrets occur in a text by chance, and are masked behind their key only.
const SECRET_BYTES_MIN: usize = 4;

/// Bytes of its beginning that identify a cut secret.
const BEGINNING_BYTES_MIN: usize = 6;

/// Bytes that identify a part from its midst: more than a device's usual name, which tokens may contain.
const PART_BYTES_MIN: usize = 12;

/// A part of a longer secret is known by so much, however long the secret is.
const PART_BYTES_MAX: usize = 64;

/// Bytes of a run that is looked for first; no more than the shortest secret has.
const GRAM_BYTES: usize = SECRET_BYTES_MIN;

/// Bytes of a secret that may stay at the end of a text which was cut before it was masked.
pub const FRAGMENT_BYTES_MAX: usize = BEGINNING_BYTES_MIN - 1;

/// Masks the values of credentials in JSON, correct or not. Works on broken and cut
/// text too, and rather masks too much than too little.
pub fn redact_payload(payload: &str) -> Cow<'_, str> {
    let values = secret_values(payload);
    if values.is_empty() {
        return Cow::Borrowed(payload);
    }
    let mut masked = String::new();
    let mut copied = 0;
    for value in values {
        masked.push_str(&payload[copied..value.start]);
        masked.push('"');
        masked.push_str(MASK);
        masked.push('"');
        copied = value.end;
    }
    masked.push_str(&payload[copied..]);
    Cow::Owned(masked)
}

/// The values of credentials, quotes included.
fn secret_values(payload: &str) -> Vec<Range<usize>> {
    let bytes = payload.as_bytes();
    let mut values = Vec::new();
    let mut at = 0;
    while let Some(quote) = memchr::memchr(b'"', &bytes[at..]) {
        let begin = at + quote;
        let end = string_end(bytes, begin);
        count_steps(end - at);
        at = end;
        if !is_secret(&payload[begin..end]) {
            continue;
        }
        let colon = skip_space(bytes, end);
        if bytes.get(colon) != Some(&b':') {
            continue;
        }
        let value = skip_space(bytes, colon + 1);
        let value_end = match bytes.get(value) {
            Some(b'"') => string_end(bytes, value),
            // No credential has such a value; where it ends is not worth finding out.
            Some(b'{' | b'[') => bytes.len(),
            _ => bytes[value..]
                .iter()
                .position(|byte| b",}] \t\r\n".contains(byte))
                .map_or(bytes.len(), |n| value + n),
        };
        values.push(value..value_end);
        count_steps(value_end - at);
        at = value_end;
    }
    values
}

/// Masks in `detail`, which speaks of a message, what it quotes of the credentials in the message's
/// payload: behind their key, plain or escaped; and their values alone, whole or cut.
///
/// Both are read once: the cost is linear in their bytes, however many credentials there are.
pub fn redact_detail(payload: &[u8], detail: String) -> String {
    let detail = redact_named(detail);
    let payload = String::from_utf8_lossy(payload);
    let mut hiding = Hiding { text: detail.as_bytes(), grams: Grams::of(detail.as_bytes()), parts: None };
    for value in secret_values(&payload) {
        let raw = payload[value].trim_matches('"');
        if raw.len() < SECRET_BYTES_MIN || matches!(raw, "null" | "true" | "false") {
            continue;
        }
        hiding.hide(raw.len(), || raw.bytes());
        if raw.contains('\\')
            && let Ok(text) = serde_json::from_str::<String>(&format!("\"{raw}\""))
            && text.len() >= SECRET_BYTES_MIN
        {
            hiding.hide(text.len(), || text.bytes());
        }
        if raw.bytes().any(|byte| byte == b'\\' || !matches!(byte, b' '..=b'~')) {
            hiding.hide(raw.len(), || debugged(raw));
        }
    }
    let hidden = hiding.parts.map(Parts::hidden).unwrap_or_default();
    if !hidden.contains(&true) {
        return detail;
    }
    let mut masked = String::with_capacity(detail.len());
    let mut was_hidden = false;
    for (at, c) in detail.char_indices() {
        let is_hidden = hidden[at..at + c.len_utf8()].contains(&true);
        if !is_hidden {
            masked.push(c);
        } else if !was_hidden {
            masked.push_str(MASK);
        }
        was_hidden = is_hidden;
    }
    masked
}

/// The bytes of a text as `{:?}` writes it.
fn debugged(text: &str) -> impl Iterator<Item = u8> {
    text.chars().flat_map(|c| {
        let (plain, escaped) = if c == '\'' { (Some(c), None) } else { (None, Some(c.escape_debug())) };
        plain.into_iter().chain(escaped.into_iter().flatten()).flat_map(|c| {
            let mut bytes = [0; 4];
            let length = c.encode_utf8(&mut bytes).len();
            bytes.into_iter().take(length)
        })
    })
}

/// Bytes of the beginning of a secret that a text is known by, and of its other parts.
fn bytes_known_by(bytes: usize) -> (usize, usize) {
    let part = (bytes / 2).clamp(PART_BYTES_MIN, PART_BYTES_MAX).min(bytes);
    (bytes.min(BEGINNING_BYTES_MIN), part)
}

/// The runs of four bytes of a text, as a set that may say yes for others. Most texts quote no secret, and need
/// no `Parts` then.
struct Grams([u64; 64]);

impl Grams {
    fn of(text: &[u8]) -> Self {
        count_steps(text.len());
        let mut grams = Self([0; 64]);
        for gram in text.windows(GRAM_BYTES) {
            let (word, bit) = Self::place(u32::from_le_bytes(gram.try_into().expect("it has four")));
            grams.0[word] |= bit;
        }
        grams
    }

    fn place(gram: u32) -> (usize, u64) {
        let hash = gram.wrapping_mul(0x9e37_79b1) >> 20;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    /// False if neither the beginning nor a long part of a secret of `bytes` bytes is in the text: `Parts::hide`
    /// would mark nothing.
    fn may_hold(&self, bytes: usize, secret: impl Iterator<Item = u8>) -> bool {
        let (beginning, part) = bytes_known_by(bytes);
        // Grams in a row that are in the text, up to the one that ends here.
        let (mut gram, mut run) = (0u32, 0);
        for (place, byte) in secret.enumerate() {
            count_steps(1);
            gram = gram >> 8 | u32::from(byte) << 24;
            let read = place + 1;
            if read < GRAM_BYTES {
                continue;
            }
            let (word, bit) = Self::place(gram);
            run = if self.0[word] & bit == 0 { 0 } else { run + 1 };
            let same = if run == 0 { 0 } else { run + GRAM_BYTES - 1 };
            if same >= part || same == read && same >= beginning {
                return true;
            }
        }
        false
    }
}

/// A text while secrets are hidden in it.
struct Hiding<'a> {
    text: &'a [u8],
    grams: Grams,
    /// Made for the first secret that the text may hold.
    parts: Option<Parts>,
}

impl Hiding<'_> {
    fn hide<I: Iterator<Item = u8>>(&mut self, bytes: usize, secret: impl Fn() -> I) {
        if self.grams.may_hold(bytes, secret()) {
            self.parts.get_or_insert_with(|| Parts::of(self.text)).hide(bytes, secret());
        }
    }
}

/// The parts of a text: a suffix automaton over its bytes. It is built in one pass over the text, and
/// finds the parts of a secret in the text in one pass over the secret (Blumer et al., 1985).
#[derive(Debug)]
struct Parts {
    /// The first is the empty part.
    states: Vec<State>,
    /// The state of each beginning of the text.
    ends: Vec<usize>,
}

/// The parts that end at the same places of the text.
#[derive(Clone, Debug, Default)]
struct State {
    /// Bytes of the longest of them.
    bytes: usize,
    /// The state of the longest shorter part that ends at more places.
    link: usize,
    /// Sorted by byte.
    next: Vec<(u8, usize)>,
    /// Bytes of the longest that occurs in a secret; 0: none does.
    hidden: usize,
    /// Parts of so many bytes that end with the hidden one are hidden as well.
    hidden_from: usize,
}

impl State {
    fn follow(&self, byte: u8) -> Option<usize> {
        let place = self.next.binary_search_by_key(&byte, |(byte, _)| *byte).ok()?;
        Some(self.next[place].1)
    }

    fn lead(&mut self, byte: u8, to: usize) {
        match self.next.binary_search_by_key(&byte, |(byte, _)| *byte) {
            Ok(place) => self.next[place].1 = to,
            Err(place) => self.next.insert(place, (byte, to)),
        }
    }

    fn hide(&mut self, bytes: usize, from: usize) {
        self.hidden_from = if self.hidden == 0 { from } else { self.hidden_from.min(from) };
        self.hidden = self.hidden.max(bytes);
    }
}

impl Parts {
    fn of(text: &[u8]) -> Self {
        let mut parts = Self { states: vec![State::default()], ends: Vec::with_capacity(text.len()) };
        let mut last = 0;
        for &byte in text {
            last = parts.append(last, byte);
            parts.ends.push(last);
        }
        parts
    }

    /// Adds the parts that end with one more byte; `last` is the state of the text so far.
    fn append(&mut self, last: usize, byte: u8) -> usize {
        let added = self.states.len();
        self.states.push(State { bytes: self.states[last].bytes + 1, ..State::default() });
        let mut at = Some(last);
        while let Some(state) = at {
            count_steps(1);
            if let Some(next) = self.states[state].follow(byte) {
                self.states[added].link = self.split(state, byte, next);
                break;
            }
            self.states[state].lead(byte, added);
            at = (state != 0).then(|| self.states[state].link);
        }
        added
    }

    /// The state of the parts of `state` with one more byte: `next`, or a new one where `next` has
    /// longer parts too.
    fn split(&mut self, state: usize, byte: u8, next: usize) -> usize {
        let bytes = self.states[state].bytes + 1;
        if self.states[next].bytes == bytes {
            return next;
        }
        let apart = self.states.len();
        self.states.push(State { bytes, ..self.states[next].clone() });
        self.states[next].link = apart;
        let mut at = Some(state);
        while let Some(state) = at.filter(|&state| self.states[state].follow(byte) == Some(next)) {
            count_steps(1);
            self.states[state].lead(byte, apart);
            at = (state != 0).then(|| self.states[state].link);
        }
        apart
    }

    /// Marks the parts of a secret of `bytes` bytes in the text: whole, its beginning, or a long part.
    fn hide(&mut self, bytes: usize, secret: impl Iterator<Item = u8>) {
        let (beginning, part) = bytes_known_by(bytes);
        let (mut at, mut same) = (0, 0);
        for (place, byte) in secret.enumerate() {
            count_steps(1);
            let next = loop {
                match self.states[at].follow(byte) {
                    Some(next) => break Some(next),
                    None if at == 0 => break None,
                    None => {
                        count_steps(1);
                        at = self.states[at].link;
                        same = self.states[at].bytes;
                    }
                }
            };
            (at, same) = next.map_or((0, 0), |next| (next, same + 1));
            if same >= part {
                self.states[at].hide(same, part);
            } else if same >= beginning && same == place + 1 {
                self.states[at].hide(same, same);
            }
        }
    }

    /// The marked bytes of the text.
    fn hidden(mut self) -> Vec<bool> {
        let mut order: Vec<usize> = (1..self.states.len()).collect();
        order.sort_unstable_by_key(|&state| self.states[state].bytes);
        // The end of a hidden part is hidden wherever it stands alone.
        for &state in order.iter().rev() {
            let State { link, hidden, hidden_from, .. } = self.states[state];
            let bytes = self.states[link].bytes;
            if hidden > 0 && bytes >= hidden_from {
                self.states[link].hide(bytes, hidden_from);
            }
        }
        // A longer text ends with all that its own end ends with.
        for &state in &order {
            let inherited = self.states[self.states[state].link].hidden;
            self.states[state].hidden = self.states[state].hidden.max(inherited);
        }
        let mut hidden = vec![false; self.ends.len()];
        let mut left = 0;
        for (place, &state) in self.ends.iter().enumerate().rev() {
            left = self.states[state].hidden.max(left);
            hidden[place] = left > 0;
            left = left.saturating_sub(1);
        }
        hidden
    }
}

#[inline]
fn count_steps(_steps: usize) {
    #[cfg(any(test, fuzzing))]
    steps::TAKEN.with(|taken| taken.set(taken.get() + _steps));
}

/// Masks the text behind the key of a credential: in JSON, in JSON that was escaped, however
/// often, and in line protocol.
fn redact_named(text: String) -> String {
    let lower = text.to_ascii_lowercase();
    let bytes = text.as_bytes();
    let mut masked = String::new();
    let mut copied = 0;
    for key in SECRET_KEYS {
        for (found, _) in lower.match_indices(key) {
            count_steps(1);
            let key_end = found + key.len();
            if key_end < copied {
                continue;
            }
            let quotes = skip(bytes, key_end, b"\\\"'");
            let sign = skip_space(bytes, quotes);
            let is_value = match bytes.get(sign) {
                // Without quotes it is our own text that speaks of the key.
                Some(b':') => quotes > key_end,
                Some(b'=') => true,
                _ => false,
            };
            if !is_value {
                continue;
            }
            let value = skip_space(bytes, sign + 1);
            let quote = skip(bytes, value, b"\\");
            let (begin, end) = match bytes.get(quote) {
                Some(b'"') => (quote + 1, quoted_end(bytes, quote + 1, quote - value)),
                _ => {
                    let ends = |byte: &u8| b",}] \t\r\n\"".contains(byte);
                    (value, bytes[value..].iter().position(ends).map_or(bytes.len(), |n| value + n))
                }
            };
            if begin < end {
                masked.push_str(&text[copied..begin]);
                masked.push_str(MASK);
                copied = end;
            }
        }
    }
    if copied == 0 {
        return text;
    }
    masked.push_str(&text[copied..]);
    masked
}

/// The end of a quoted value whose quote has `escapes` backslashes before it: a quote with no more of
/// them, or the end of a text that was cut.
fn quoted_end(bytes: &[u8], from: usize, escapes: usize) -> usize {
    for quote in memchr::memchr_iter(b'"', &bytes[from..]).map(|n| from + n) {
        let before = bytes[from..quote].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if before <= escapes {
            return quote - before;
        }
    }
    bytes.len()
}

fn skip(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].iter().position(|byte| !what.contains(byte)).map_or(bytes.len(), |n| from + n)
}

/// The end of the JSON string whose quote stands at `begin`, its closing quote included.
fn string_end(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
        // The escaped character may be a long one: stand at the beginning of the next.
        while at < bytes.len() && bytes[at] & 0xc0 == 0x80 {
            at += 1;
        }
    }
    bytes.len()
}

fn is_secret(string: &str) -> bool {
    let plain = string.trim_matches('"');
    let unescaped = match plain.contains('\\') {
        true => serde_json::from_str::<String>(string).map_or(Cow::Borrowed(plain), Cow::Owned),
        false => Cow::Borrowed(plain),
    };
    SECRET_KEYS.iter().any(|key| unescaped.trim().eq_ignore_ascii_case(key))
}

fn skip_space(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| !byte.is_ascii_whitespace()).map_or(bytes.len(), |n| from + n)
}

/// Steps of the maskers on this thread, so that a test can hold their cost to a bound.
#[cfg(any(test, fuzzing))]
pub mod steps {
    use std::cell::Cell;

    thread_local!(pub static TAKEN: Cell<usize> = const { Cell::new(0) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::steps;
    use std::borrow::Cow;

    #[test]
    fn tokens_are_masked_wherever_they_stand() {
        for (payload, masked) in [
            (r#"{"provision_token":"tok-1","a":1}"#, r#"{"provision_token":"***","a":1}"#),
            (r#"{"a":{"provision_token" : "t\"ok-1"}}"#, r#"{"a":{"provision_token" : "***"}}"#),
            (r#"{"provision_token":12345,"a":1}"#, r#"{"provision_token":"***","a":1}"#),
            (r#"{"provision\u005ftoken":"tok-1"}"#, r#"{"provision\u005ftoken":"***"}"#),
            (
                r#"{"provision_token":"tok-1","provision_token":"tok-2"}"#,
                r#"{"provision_token":"***","provision_token":"***"}"#,
            ),
            (r#"{"provision_token":"tok-cut-of"#, r#"{"provision_token":"***""#),
            (r#"{"provision_token":"tok\é"#, r#"{"provision_token":"***""#),
            (r#"{"provision_token":["tok-1"],"a":1}"#, r#"{"provision_token":"***""#),
            (r#"{"Provision_Token":"tok-1"}"#, r#"{"Provision_Token":"***"}"#),
        ] {
            assert_eq!(redact_payload(payload), masked, "{payload}");
        }
    }

    #[test]
    fn what_holds_no_token_stays_as_it_is() {
        for payload in
            ["", "{", r#"{"a":"provision_token"}"#, r#"{"a":"x\"#, "\"", r#""provision_token""#, "é\"\\é"]
        {
            assert!(matches!(redact_payload(payload), Cow::Borrowed(same) if same == payload), "{payload}");
        }
    }

    #[test]
    fn a_detail_quotes_no_token_plain_escaped_or_cut() {
        let payload = br#"{"site_id":"s","provision_token":"tok-secret","v":1}"#;
        let masked = |detail: &str| redact_detail(payload, detail.to_owned());
        for (detail, expected) in [
            (
                r#"a tag without =value in "{\"site_id\":\"s\",\"provision_token\":\"tok-secret\",\"v\":1}""#,
                r#"a tag without =value in "{\"site_id\":\"s\",\"provision_token\":\"***\",\"v\":1}""#,
            ),
            (r#"in "{\"provision_token\":\"to"…"#, r#"in "{\"provision_token\":\"***"…"#),
            (r#"in {"provision_token" : "tok-secret"}"#, r#"in {"provision_token" : "***"}"#),
            (r#"in {"provision_token":"tok-s"#, r#"in {"provision_token":"***"#),
            (r#"in {"Provision_Token":17,"a":1}"#, r#"in {"Provision_Token":***,"a":1}"#),
            ("in m,provision_token=other v=1", "in m,provision_token=*** v=1"),
            ("X: bad value tok-secret here", "X: bad value *** here"),
            ("X: cut in tok-sec…", "X: cut in ***…"),
            (
                "provision_token is missing: expected the token",
                "provision_token is missing: expected the token",
            ),
            ("provision_token: expected a text", "provision_token: expected a text"),
            ("tok is no number", "tok is no number"),
        ] {
            assert_eq!(masked(detail), expected, "{detail}");
        }
        let escaped = br#"{"provision\u005ftoken":"t\"ok-\u00e9-secret"}"#;
        for detail in [r#"t"ok-é-secret"#, r#"t\"ok-\u00e9-secret"#, r#"t\\\"ok-\\u00e9-secret"#] {
            assert_eq!(redact_detail(escaped, format!("<{detail}>")), "<***>", "{detail}");
        }
    }

    #[test]
    fn names_in_a_detail_stay_where_a_token_is_made_of_them() {
        let payload = br#"{"provision_token":"tok-dev-0001"}"#;
        let detail = "the device dev-0001 is not known";
        assert_eq!(redact_detail(payload, detail.into()), detail);
        assert_eq!(redact_detail(br#"{"provision_token":null}"#, "null".into()), "null");
    }

    #[test]
    fn a_text_without_a_secret_is_read_once() {
        let token = "tok-dev-0001-0123456789";
        let payload = format!(r#"{{"provision_token":"{token}","temp":yes}}"#);
        let detail = "the payload is no JSON: at byte 214 a value was expected, and \"yes\" stands there";
        let taken = steps_of(|| drop(redact_detail(payload.as_bytes(), detail.into())));
        assert!(taken <= payload.len() + token.len() + detail.len(), "{taken}");
        assert_eq!(redact_detail(payload.as_bytes(), format!("{detail} {token}")), format!("{detail} ***"));
    }

    fn steps_of(work: impl FnOnce()) -> usize {
        steps::TAKEN.with(|taken| taken.set(0));
        work();
        steps::TAKEN.with(std::cell::Cell::get)
    }

    /// Steps for each byte of payload and detail: both are read a few times, never once for each other.
    const STEPS_A_BYTE_MAX: usize = 16;

    #[test]
    fn the_cost_is_linear_however_many_credentials_there_are() {
        for credential in [
            r#""provision_token":"x""#,
            r#""provision_token":"aaaaaaaaaaaa""#,
            r#""provision_token":"a\"bcdef""#,
        ] {
            for bytes in [20_000, 200_000] {
                let payload = credential.repeat(bytes / credential.len());
                for detail in [payload.clone(), format!("in {payload:?}"), "a".repeat(1_024)] {
                    let most = STEPS_A_BYTE_MAX * (payload.len() + detail.len());
                    let taken = steps_of(|| drop(redact_detail(payload.as_bytes(), detail)));
                    assert!(
                        taken > payload.len() / 2 && taken <= most,
                        "{credential} {bytes}: {taken} of {most}"
                    );
                }
                let taken = steps_of(|| drop(redact_payload(&payload)));
                assert!(taken > payload.len() / 2 && taken <= 2 * payload.len(), "{credential}: {taken}");
            }
        }
    }

    /// The same marks by a naive search.
    fn hidden_plainly(text: &[u8], secrets: &[Vec<u8>]) -> Vec<bool> {
        let mut hidden = vec![false; text.len()];
        for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
            let part = (secret.len() / 2).clamp(PART_BYTES_MIN, PART_BYTES_MAX).min(secret.len());
            let beginning = secret.len().min(BEGINNING_BYTES_MIN);
            for from in 0..secret.len() {
                for to in from + 1..=secret.len() {
                    let wanted = if from == 0 { beginning } else { part };
                    if to - from < wanted {
                        continue;
                    }
                    for at in memchr::memmem::find_iter(text, &secret[from..to]) {
                        hidden[at..at + to - from].fill(true);
                    }
                    // Occurrences that overlap.
                    for (at, window) in text.windows(to - from).enumerate() {
                        if window == &secret[from..to] {
                            hidden[at..at + to - from].fill(true);
                        }
                    }
                }
            }
        }
        hidden
    }

    proptest::proptest! {
        #[test]
        fn what_is_hidden_is_what_a_plain_search_finds(
            text in proptest::collection::vec(b'a'..=b'c', 0..80),
            secrets in proptest::collection::vec(proptest::collection::vec(b'a'..=b'c', 0..40), 0..4),
        ) {
            let mut parts = Parts::of(&text);
            let grams = Grams::of(&text);
            for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN) {
                parts.hide(secret.len(), secret.iter().copied());
                let alone = hidden_plainly(&text, std::slice::from_ref(secret));
                let may_hold = grams.may_hold(secret.len(), secret.iter().copied());
                proptest::prop_assert!(may_hold || !alone.contains(&true), "{:?} in {:?}", secret, text);
            }
            proptest::prop_assert_eq!(parts.hidden(), hidden_plainly(&text, &secrets));
        }
    }
}
