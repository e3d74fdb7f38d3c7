//! The text of a refusal: bounded, free of credentials, and safe to show.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use crate::limits::{QUOTED_BYTES_MAX, REFUSAL_DETAIL_BYTES_MAX};
use crate::redact::{FRAGMENT_BYTES_MAX, redact_detail};

/// Marks the place where a text was cut.
const CUT: char = '…';

/// The text of a refusal, for the owner of the device: at most
/// `REFUSAL_DETAIL_BYTES_MAX` bytes, without credentials, without characters that steer a terminal.
///
/// The text is cut before anything else is done with it, so its cost has a bound however long it was.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Detail(Box<str>);

impl Detail {
    /// A text that quotes no payload.
    pub fn new(text: &str) -> Self {
        Self::redacted(text, &[])
    }

    /// A text about a message; nothing is left in it of the credentials in the message's payload.
    pub fn redacted(text: &str, payload: &[u8]) -> Self {
        let kept = truncate(text, REFUSAL_DETAIL_BYTES_MAX);
        let mut masked = redact_detail(payload, kept.to_owned());
        if kept.len() < text.len() {
            // A credential that the cut went through may have left its first bytes at the end.
            masked.truncate(masked.floor_char_boundary(masked.len().saturating_sub(FRAGMENT_BYTES_MAX)));
            masked.push(CUT);
        }
        Self(bounded(printable(&masked), REFUSAL_DETAIL_BYTES_MAX).into())
    }

    /// The same text, at most so many bytes long.
    pub fn shortened(&self, bytes: usize) -> Self {
        Self(truncate(&self.0, bytes).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Detail {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq<str> for Detail {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Detail {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<Detail> for String {
    fn from(detail: Detail) -> Self {
        detail.0.into()
    }
}

/// The beginning of a text, at most so many bytes, never half a character.
pub fn truncate(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A text of at most so many bytes, that ends in `…` where it was cut.
fn bounded(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - CUT.len_utf8()));
        text.push(CUT);
    }
    text
}

/// A stranger's text as `{:?}` quotes it; only its first `QUOTED_BYTES_MAX` bytes are read.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = truncate(self.0, QUOTED_BYTES_MAX);
        write!(f, "{shown:?}")?;
        if shown.len() < self.0.len() { write!(f, "{CUT}") } else { Ok(()) }
    }
}

/// True if a character moves a terminal's cursor, ends a line, or reorders the text around it.
pub fn is_unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// A text for a terminal: characters that steer it, or reorder the text, are escaped as in Rust.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe_to_show(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// A text of several lines for a terminal; the ends of its lines stay.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{QUOTED_BYTES_MAX, REFUSAL_DETAIL_BYTES_MAX};

    #[test]
    fn a_detail_is_at_most_a_kibibyte_and_never_half_a_character() {
        for text in ["x".repeat(200_000), "ä…".repeat(50_000), "\u{202e}".repeat(100_000)] {
            let detail = Detail::new(&text);
            assert!(detail.len() <= REFUSAL_DETAIL_BYTES_MAX, "{}", detail.len());
            assert!(detail.len() > REFUSAL_DETAIL_BYTES_MAX - 16, "{}", detail.len());
            assert!(detail.ends_with(CUT));
        }
        assert_eq!(Detail::new("short"), "short");
        let whole = "y".repeat(REFUSAL_DETAIL_BYTES_MAX);
        assert_eq!(Detail::new(&whole), *whole);
        assert_eq!(Detail::new("no JSON: ä").shortened(10), "no JSON: ");
    }

    #[test]
    fn what_steers_a_terminal_is_made_visible() {
        assert_eq!(Detail::new("a\x1b[2J\n\u{9b}\u{7f}"), "a\\u{1b}[2J\\n\\u{9b}\\u{7f}");
        assert_eq!(printable_lines("a\n\x07b\r\n"), "a\n\\u{7}b\\r\n");
        assert_eq!(printable("\u{202e}gnp.exe\u{2028}\u{2066}é"), "\\u{202e}gnp.exe\\u{2028}\\u{2066}é");
    }

    #[test]
    fn a_credential_that_the_cut_goes_through_leaves_nothing() {
        let token = "secret-token-0123456789";
        let payload = format!(r#"{{"provision_token":"{token}"}}"#);
        for before in REFUSAL_DETAIL_BYTES_MAX - 40..=REFUSAL_DETAIL_BYTES_MAX {
            let text = format!("{}{token}{}", "-".repeat(before), "-".repeat(100));
            let detail = Detail::redacted(&text, payload.as_bytes());
            assert!(!detail.contains(|c: char| c.is_ascii_alphanumeric()), "{before}: {detail}");
        }
    }

    #[test]
    fn a_quotation_looks_at_the_beginning_of_a_text_only() {
        assert_eq!(Quoted("a\"b").to_string(), r#""a\"b""#);
        let long = Quoted(&"\u{1}".repeat(1_000_000)).to_string();
        assert!(long.len() <= 6 * QUOTED_BYTES_MAX && long.ends_with("\"…"), "{}", long.len());
    }
}
