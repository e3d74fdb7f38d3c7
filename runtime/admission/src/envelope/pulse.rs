//! The credentials in a JSON payload, read before any guest runs. The parser borrows, reads three
//! keys, skips the rest, and checks the whole text strictly (RFC 8259).

use std::borrow::Cow;
use std::fmt;

use tidegate_core::message::Via;
use tidegate_json::{Error, Kind, Number, Reader, TapeValue, TapeWriter, Text};

/// One of the three values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvelopeValue<'a> {
    /// Absent, null, the empty text, or zero.
    Missing,
    /// The text, or an integer's decimal digits.
    Text(Cow<'a, str>),
}

/// The three values that the host reads of a payload.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub site_id: EnvelopeValue<'a>,
    pub tenant_id: EnvelopeValue<'a>,
    pub provision_token: EnvelopeValue<'a>,
}

/// The reason that a payload is no envelope.
#[derive(Debug)]
pub enum EnvelopeError {
    Json(Error),
    NotAnObject(Kind),
    /// The key, and the kind of its value.
    Type(&'static str, &'static str),
}

impl EnvelopeError {
    /// The fault, with the way out for a message type whose payloads have no envelope.
    pub fn with_remedy(&self, message_type: &str, via: Via) -> String {
        if let EnvelopeError::Type(..) = self {
            return self.to_string();
        }
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let key = match !message_type.is_empty() && message_type.bytes().all(is_bare) {
            true => message_type.to_owned(),
            false => format!("{message_type:?}"),
        };
        match via {
            Via::Broker => format!(
                "{self}; if payloads of this type have no envelope, the operator can set [admission.types.{key}] \
                 credentials = \"broker\""
            ),
            Via::Listener | Via::Proven => format!(
                "{self}; if payloads of this type have no envelope, the operator can set [admission.types.{key}] \
                 credentials = \"listener\", and the device must prove itself at CONNECT"
            ),
        }
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::Json(error) => write!(f, "the payload is not JSON: {error}"),
            EnvelopeError::NotAnObject(kind) => {
                write!(f, "the payload is {}: expected a JSON object", kind.name())
            }
            EnvelopeError::Type(key, kind) => {
                write!(f, "{key} is {kind}: expected a string or a 64-bit integer")
            }
        }
    }
}

impl From<Error> for EnvelopeError {
    fn from(error: Error) -> Self {
        EnvelopeError::Json(error)
    }
}

/// A value as it was read; checked when the last of its key is known.
enum RawValue<'a> {
    Value(EnvelopeValue<'a>),
    Wrong(&'static str),
}

impl<'a> Envelope<'a> {
    /// Reads a payload, and leaves its tape in `tape`. Of a key that stands twice, the last counts.
    ///
    /// # Errors
    /// It is not JSON, no object, or one of the three values is neither a string nor an integer.
    pub fn read(payload: &'a [u8], tape: &'a mut TapeWriter) -> Result<Self, EnvelopeError> {
        if !tape.write(payload)? {
            return Self::read_without_tape(payload);
        }
        // SAFETY: this payload was read just now.
        let root = unsafe { tape.tape(payload) }.expect("the tape was written").value();
        let members = root.members().ok_or_else(|| EnvelopeError::NotAnObject(root.kind()))?;
        let missing = || RawValue::Value(EnvelopeValue::Missing);
        let (mut site_id, mut tenant_id, mut provision_token) = (missing(), missing(), missing());
        for (key, value) in members {
            if key.is("site_id") {
                site_id = tape_value(value);
            } else if key.is("provision_token") {
                provision_token = tape_value(value);
            } else if key.is("tenant_id") {
                tenant_id = tape_value(value);
            }
        }
        Self::checked(tenant_id, site_id, provision_token)
    }

    fn read_without_tape(payload: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(payload);
        let kind = reader.peek()?;
        if kind != Kind::Object {
            // A payload that is no JSON at all is refused as that.
            reader.end()?;
            return Err(EnvelopeError::NotAnObject(kind));
        }
        reader.object()?;
        let missing = || RawValue::Value(EnvelopeValue::Missing);
        let (mut site_id, mut tenant_id, mut provision_token) = (missing(), missing(), missing());
        while let Some(key) = reader.next_key()? {
            if key.is("site_id") {
                site_id = value(&mut reader)?;
            } else if key.is("provision_token") {
                provision_token = value(&mut reader)?;
            } else if key.is("tenant_id") {
                tenant_id = value(&mut reader)?;
            }
        }
        reader.end()?;
        Self::checked(tenant_id, site_id, provision_token)
    }

    fn checked(
        tenant_id: RawValue<'a>,
        site_id: RawValue<'a>,
        provision_token: RawValue<'a>,
    ) -> Result<Self, EnvelopeError> {
        let checked = |key, raw| match raw {
            RawValue::Value(value) => Ok(value),
            RawValue::Wrong(kind) => Err(EnvelopeError::Type(key, kind)),
        };
        Ok(Self {
            tenant_id: checked("tenant_id", tenant_id)?,
            site_id: checked("site_id", site_id)?,
            provision_token: checked("provision_token", provision_token)?,
        })
    }
}

fn string(text: Text<'_>) -> RawValue<'_> {
    let text = text.decode();
    RawValue::Value(if text.is_empty() { EnvelopeValue::Missing } else { EnvelopeValue::Text(text) })
}

fn number(number: Number<'_>) -> RawValue<'_> {
    match number.as_i64() {
        Ok(0) => RawValue::Value(EnvelopeValue::Missing),
        Ok(_) => RawValue::Value(EnvelopeValue::Text(Cow::Borrowed(number.text()))),
        Err(_) if number.is_integer() => RawValue::Wrong("an integer outside 64 bits"),
        Err(_) => RawValue::Wrong("a number with a fraction or an exponent"),
    }
}

fn tape_value(value: TapeValue<'_>) -> RawValue<'_> {
    match (value.string(), value.number(), value.kind()) {
        (Some(text), _, _) => string(text),
        (None, Some(value), _) => number(value),
        (None, None, Kind::Null) => RawValue::Value(EnvelopeValue::Missing),
        (None, None, other) => RawValue::Wrong(other.name()),
    }
}

fn value<'a>(reader: &mut Reader<'a>) -> Result<RawValue<'a>, Error> {
    Ok(match reader.peek()? {
        Kind::String => string(reader.string()?),
        Kind::Null => {
            reader.null()?;
            RawValue::Value(EnvelopeValue::Missing)
        }
        Kind::Number => number(reader.number()?),
        other => {
            reader.skip_value()?;
            RawValue::Wrong(other.name())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(EnvelopeValue<'_>, EnvelopeValue<'_>), String> {
        Envelope::read(text.as_bytes(), Box::leak(Box::default()))
            .map(|e| (e.site_id, e.provision_token))
            .map_err(|fault| fault.to_string())
    }

    #[test]
    fn texts_and_integers_are_values_and_falsy_ones_are_missing() {
        let text = |text: &'static str| EnvelopeValue::Text(text.into());
        assert_eq!(read(r#"{"site_id":"a","provision_token":-5}"#), Ok((text("a"), text("-5"))));
        assert_eq!(
            read(r#"{"site_id":0,"provision_token":""}"#),
            Ok((EnvelopeValue::Missing, EnvelopeValue::Missing))
        );
        assert_eq!(read(r#"{"site_id":null}"#), Ok((EnvelopeValue::Missing, EnvelopeValue::Missing)));
        assert_eq!(read(r#"{"s\u0069te_id":"\u00e9"}"#), Ok((text("é"), EnvelopeValue::Missing)));
    }

    #[test]
    fn the_last_of_a_key_counts() {
        assert_eq!(read(r#"{"site_id":[1],"site_id":"b"}"#).unwrap().0, EnvelopeValue::Text("b".into()));
        assert!(read(r#"{"site_id":"b","site_id":[1]}"#).unwrap_err().contains("site_id is an array"));
    }

    #[test]
    fn a_payload_without_an_envelope_is_told_what_the_operator_can_set() {
        let fault = Envelope::read(b"\x01\x67", &mut TapeWriter::default()).unwrap_err();
        let remedy = fault.with_remedy("lpp", Via::Broker);
        assert!(remedy.contains("[admission.types.lpp] credentials = \"broker\""), "{remedy}");
        let remedy = Envelope::read(b"21.5", &mut TapeWriter::default())
            .unwrap_err()
            .with_remedy("a b", Via::Listener);
        assert!(remedy.contains("[admission.types.\"a b\"] credentials = \"listener\""), "{remedy}");
    }

    #[test]
    fn what_is_no_envelope_says_what_it_is_and_where() {
        assert!(read("[1]").unwrap_err().contains("an array"));
        assert!(read(r#"{"a":01}"#).unwrap_err().contains("byte"));
        assert!(read(r#"{"provision_token":1.0}"#).unwrap_err().contains("fraction"));
        assert!(read(r#"{"provision_token":100000000000000000000}"#).unwrap_err().contains("64 bits"));
        assert!(read("{} {}").is_err());
        assert!(read("").is_err());
    }
}
