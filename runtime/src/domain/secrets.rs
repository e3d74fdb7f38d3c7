//! Credentials in payloads and in what is said of them, masked before anybody sees them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

const SECRET_KEYS: [&str; 1] = ["provision_token"];
const MASK: &str = "***";
/// What is shorter stands in a text by chance, and is masked behind its key alone.
const SECRET_BYTES_MIN: usize = 4;
/// A cut secret is known by so much of its beginning.
const BEGINNING_BYTES_MIN: usize = 6;
/// A part from its midst is known by so much: more than a device's usual name, which tokens may hold.
const PART_BYTES_MIN: usize = 12;
/// More than any detail quotes.
const SECRET_BYTES_LOOKED_FOR_MAX: usize = 4096;

/// Masks the values of credentials in what is, or was meant to be, JSON. Works on broken and cut
/// text too, and rather masks too much than too little.
pub fn mask_secrets(payload: &str) -> Cow<'_, str> {
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

/// Where the values of credentials stand, their quotes included.
fn secret_values(payload: &str) -> Vec<Range<usize>> {
    let bytes = payload.as_bytes();
    let mut values = Vec::new();
    let mut at = 0;
    while let Some(quote) = memchr::memchr(b'"', &bytes[at..]) {
        let begin = at + quote;
        let end = string_end(bytes, begin);
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
        at = value_end;
    }
    values
}

/// Masks in `detail`, which speaks of a message, what it quotes of the credentials in the message's
/// payload: behind their key, plain or escaped; and their values alone, whole or cut.
pub fn mask_detail(payload: &[u8], detail: String) -> String {
    let detail = mask_named(detail);
    let payload = String::from_utf8_lossy(payload);
    let mut hidden = vec![false; detail.len()];
    for value in secret_values(&payload) {
        let raw = payload[value].trim_matches('"');
        if matches!(raw, "null" | "true" | "false") {
            continue;
        }
        hide(detail.as_bytes(), raw, &mut hidden);
        if raw.contains('\\') {
            if let Ok(text) = serde_json::from_str::<String>(&format!("\"{raw}\"")) {
                hide(detail.as_bytes(), &text, &mut hidden);
            }
            hide(detail.as_bytes(), &raw.escape_debug().to_string(), &mut hidden);
        }
    }
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

/// Marks where a secret stands in a text: whole, its beginning, or a long part of it.
fn hide(text: &[u8], secret: &str, hidden: &mut [bool]) {
    let secret = &secret.as_bytes()[..secret.len().min(SECRET_BYTES_LOOKED_FOR_MAX)];
    if secret.len() < SECRET_BYTES_MIN {
        return;
    }
    let beginning = &secret[..secret.len().min(BEGINNING_BYTES_MIN)];
    for at in memchr::memmem::find_iter(text, beginning) {
        let same = text[at..].iter().zip(secret).take_while(|(a, b)| a == b).count();
        hidden[at..at + same].fill(true);
    }
    let width = PART_BYTES_MIN.max(secret.len() / 2).min(secret.len());
    let parts: HashSet<&[u8]> = secret.windows(width).collect();
    for (at, part) in text.windows(width).enumerate() {
        if parts.contains(part) {
            hidden[at..at + width].fill(true);
        }
    }
}

/// Masks what stands behind the key of a credential: in JSON, in JSON that was escaped, however
/// often, and in line protocol.
fn mask_named(text: String) -> String {
    let lower = text.to_ascii_lowercase();
    let bytes = text.as_bytes();
    let mut masked = String::new();
    let mut copied = 0;
    for key in SECRET_KEYS {
        for (found, _) in lower.match_indices(key) {
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

/// Where a quoted value ends whose quote has `escapes` backslashes before it: at a quote that has no
/// more, or at the end of a text that was cut.
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(mask_secrets(payload), masked, "{payload}");
        }
    }

    #[test]
    fn what_holds_no_token_stays_as_it_is() {
        for payload in
            ["", "{", r#"{"a":"provision_token"}"#, r#"{"a":"x\"#, "\"", r#""provision_token""#, "é\"\\é"]
        {
            assert!(matches!(mask_secrets(payload), Cow::Borrowed(same) if same == payload), "{payload}");
        }
    }

    #[test]
    fn a_detail_quotes_no_token_plain_escaped_or_cut() {
        let payload = br#"{"site_id":"s","provision_token":"tok-secret","v":1}"#;
        let masked = |detail: &str| mask_detail(payload, detail.to_owned());
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
            assert_eq!(mask_detail(escaped, format!("<{detail}>")), "<***>", "{detail}");
        }
    }

    #[test]
    fn names_in_a_detail_stay_where_a_token_is_made_of_them() {
        let payload = br#"{"provision_token":"tok-dev-0001"}"#;
        let detail = "the device dev-0001 is not known";
        assert_eq!(mask_detail(payload, detail.into()), detail);
        assert_eq!(mask_detail(br#"{"provision_token":null}"#, "null".into()), "null");
    }
}
