//! An uplink message of a LoRaWAN network server, and the reading of its JSON.
//!
//! The servers leave out values that are zero or empty, so a missing port or counter is 0. A value is read in the one
//! pass over the text, and checked strictly; of a key that stands twice, the last counts.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate_core::detail::Quoted;
use tidegate_core::envelope_content::{Attributes, EnvelopeContent, UplinkPayloads};
use tidegate_json::{Error, Kind, Reader};

use crate::limits::{UPLINK_TAGS_MAX, UPLINK_TEXT_BYTES_MAX};

/// The largest port of LoRaWAN.
pub(super) const F_PORT_MAX: u64 = 255;

/// The largest frame counter of LoRaWAN.
pub(super) const F_CNT_MAX: u64 = u32::MAX as u64;

/// The values of an uplink message that a decoder can have.
#[derive(Debug, Default)]
pub struct Uplink<'a> {
    pub f_port: u64,
    pub f_cnt: u64,
    pub bytes: Vec<u8>,
    /// The place of the object that the server's codec made.
    pub object: Option<Range<usize>>,
    pub received_at: Option<Cow<'a, str>>,
    /// The other texts, by the names of their attributes.
    pub texts: Vec<(&'static str, Cow<'a, str>)>,
    /// The tags of the device, in ChirpStack.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub reception: Reception<'a>,
}

/// The reception of a message: the gateway with the highest RSSI, and the number of gateways.
#[derive(Debug, Default)]
pub struct Reception<'a> {
    pub gateways: u64,
    pub best: Option<GatewayReception<'a>>,
}

/// The reception by one gateway.
#[derive(Debug, Default)]
pub struct GatewayReception<'a> {
    pub gateway_id: Option<Cow<'a, str>>,
    /// The value, and as it is written.
    pub rssi: Option<(f64, &'a str)>,
    pub snr: Option<&'a str>,
}

/// The reason that a payload is no uplink message.
#[derive(Debug, PartialEq)]
pub enum UplinkError {
    Json(Error),
    Missing(&'static str),
    /// The key, what it is, and what is expected.
    Kind(&'static str, &'static str, &'static str),
    Integer(&'static str, String, u64),
    TooLong(&'static str, usize),
    Base64(&'static str, String),
    TooManyTags,
}

impl fmt::Display for UplinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "the payload is not JSON: {error}"),
            Self::Missing(key) => write!(f, "{key} is missing: expected an uplink message"),
            Self::Kind(key, found, expected) => write!(f, "{key} is {found}: expected {expected}"),
            Self::Integer(key, value, max) => {
                write!(f, "{key} is {}: expected an integer, 0 to {max}", Quoted(value))
            }
            Self::TooLong(key, bytes) => {
                write!(f, "{key} has {bytes} bytes: at most {UPLINK_TEXT_BYTES_MAX} are taken")
            }
            Self::Base64(key, why) => write!(f, "{key} is no base64: {why}"),
            Self::TooManyTags => write!(f, "deviceInfo.tags has more than {UPLINK_TAGS_MAX} tags"),
        }
    }
}

impl From<Error> for UplinkError {
    fn from(error: Error) -> Self {
        Self::Json(error)
    }
}

impl<'a> Uplink<'a> {
    /// The content for the decoder. Attributes of values that are missing are missing; those of port and counter are 0.
    pub(super) fn content(self) -> EnvelopeContent {
        let mut attributes = Attributes::default();
        attributes.push("f_port", self.f_port.to_string());
        attributes.push("f_cnt", self.f_cnt.to_string());
        let mut push = |name: &'static str, value: Option<Cow<'_, str>>| {
            if let Some(value) = value {
                attributes.push(name, value);
            }
        };
        push("received_at", self.received_at);
        if let Some(best) = self.reception.best {
            push("rssi", best.rssi.map(|(_, text)| text.into()));
            push("snr", best.snr.map(Cow::from));
            push("gateway_id", best.gateway_id);
        }
        push("gateways", (self.reception.gateways > 0).then(|| self.reception.gateways.to_string().into()));
        for (name, value) in self.texts {
            push(name, Some(value));
        }
        for (name, value) in self.tags {
            attributes.push(format!("tags.{name}"), value);
        }
        let uplink = Some(UplinkPayloads { bytes: self.bytes.into(), object: self.object });
        EnvelopeContent { uplink, attributes }
    }

    /// Sets one of the texts, if it is there.
    pub(super) fn set_text(&mut self, name: &'static str, value: Option<Cow<'a, str>>) {
        self.texts.retain(|(known, _)| *known != name);
        self.texts.extend(value.map(|value| (name, value)));
    }
}

impl<'a> Reception<'a> {
    /// Counts a gateway that received the message.
    fn add(&mut self, mut gateway: GatewayReception<'a>) {
        self.gateways += 1;
        if gateway.rssi.is_some() && gateway.snr.is_none() {
            // Zero is left out.
            gateway.snr = Some("0");
        }
        let level = |gateway: &GatewayReception<'_>| gateway.rssi.map_or(f64::NEG_INFINITY, |(rssi, _)| rssi);
        if self.best.as_ref().is_none_or(|best| level(&gateway) > level(best)) {
            self.best = Some(gateway);
        }
    }
}

/// Reads the members of an object; `member` reads a value, or leaves it to be skipped. False: it is null.
pub(super) fn members<'a>(
    reader: &mut Reader<'a>,
    key: &'static str,
    mut member: impl FnMut(&mut Reader<'a>, &str) -> Result<(), UplinkError>,
) -> Result<bool, UplinkError> {
    match reader.peek()? {
        Kind::Null => {
            reader.null()?;
            return Ok(false);
        }
        Kind::Object => reader.object()?,
        other => return Err(UplinkError::Kind(key, other.name(), "an object")),
    }
    while let Some(name) = reader.next_key()? {
        member(reader, &name.decode())?;
    }
    Ok(true)
}

/// Reads an array of receptions; `gateway` reads one of them.
pub(super) fn receptions<'a>(
    reader: &mut Reader<'a>,
    key: &'static str,
    gateway: impl Fn(&mut Reader<'a>) -> Result<GatewayReception<'a>, UplinkError>,
) -> Result<Reception<'a>, UplinkError> {
    let mut reception = Reception::default();
    match reader.peek()? {
        Kind::Null => {
            reader.null()?;
            return Ok(reception);
        }
        Kind::Array => reader.array()?,
        other => return Err(UplinkError::Kind(key, other.name(), "an array")),
    }
    while reader.next_element()? {
        reception.add(gateway(reader)?);
    }
    Ok(reception)
}

/// Reads a text; `None` if it is null or empty.
pub(super) fn text<'a>(
    reader: &mut Reader<'a>,
    key: &'static str,
) -> Result<Option<Cow<'a, str>>, UplinkError> {
    let text = match reader.peek()? {
        Kind::Null => return Ok(reader.null().map(|()| None)?),
        Kind::String => reader.string()?.decode(),
        other => return Err(UplinkError::Kind(key, other.name(), "a string")),
    };
    if text.len() > UPLINK_TEXT_BYTES_MAX {
        return Err(UplinkError::TooLong(key, text.len()));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// Reads an integer; null is 0.
pub(super) fn integer(reader: &mut Reader<'_>, key: &'static str, max: u64) -> Result<u64, UplinkError> {
    let number = match reader.peek()? {
        Kind::Null => return Ok(reader.null().map(|()| 0)?),
        Kind::Number => reader.number()?,
        other => return Err(UplinkError::Kind(key, other.name(), "an integer")),
    };
    let value = number.as_u64().filter(|value| *value <= max);
    value.ok_or_else(|| UplinkError::Integer(key, number.text().to_owned(), max))
}

/// Reads a number; null is none, and so is a number that no 64-bit float comes near.
pub(super) fn number<'a>(
    reader: &mut Reader<'a>,
    key: &'static str,
) -> Result<Option<(f64, &'a str)>, UplinkError> {
    match reader.peek()? {
        Kind::Null => Ok(reader.null().map(|()| None)?),
        Kind::Number => {
            let number = reader.number()?;
            if number.text().len() > UPLINK_TEXT_BYTES_MAX {
                return Err(UplinkError::TooLong(key, number.text().len()));
            }
            Ok(number.as_f64().map(|value| (value, number.text())))
        }
        other => Err(UplinkError::Kind(key, other.name(), "a number")),
    }
}

/// Reads bytes in base64; null is none.
pub(super) fn bytes(reader: &mut Reader<'_>, key: &'static str) -> Result<Vec<u8>, UplinkError> {
    match reader.peek()? {
        Kind::Null => Ok(reader.null().map(|()| Vec::new())?),
        Kind::String => {
            let text = reader.string()?.decode();
            STANDARD.decode(&*text).map_err(|error| UplinkError::Base64(key, error.to_string()))
        }
        other => Err(UplinkError::Kind(key, other.name(), "a string in base64")),
    }
}

/// Reads over an object, and gives its place in the text; null is none.
pub(super) fn object(
    reader: &mut Reader<'_>,
    key: &'static str,
) -> Result<Option<Range<usize>>, UplinkError> {
    match reader.peek()? {
        Kind::Null => Ok(reader.null().map(|()| None)?),
        Kind::Object => {
            // `peek` has passed the blanks before it.
            let start = reader.position();
            reader.skip_value()?;
            Ok(Some(start..reader.position()))
        }
        other => Err(UplinkError::Kind(key, other.name(), "an object")),
    }
}
