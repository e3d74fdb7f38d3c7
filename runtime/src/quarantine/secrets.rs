//! Credentials in payloads, masked before anybody sees them.

use std::borrow::Cow;

const SECRET_KEYS: [&str; 1] = ["provision_token"];
const MASK: &str = "***";

/// Masks the values of credentials in what is, or was meant to be, JSON. Works on broken and cut
/// text too, and rather masks too much than too little.
pub fn mask_secrets(payload: &str) -> Cow<'_, str> {
    let bytes = payload.as_bytes();
    let mut masked = String::new();
    let mut copied = 0;
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
        masked.push_str(&payload[copied..value]);
        masked.push('"');
        masked.push_str(MASK);
        masked.push('"');
        (copied, at) = (value_end, value_end);
    }
    if copied == 0 {
        return Cow::Borrowed(payload);
    }
    masked.push_str(&payload[copied..]);
    Cow::Owned(masked)
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
}
