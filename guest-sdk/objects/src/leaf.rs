//! The values of an object.

use std::borrow::Cow;

use tidegate_guest::json::Number;

/// A value that is no container.
#[derive(Clone, Debug)]
pub enum Leaf<'a> {
    /// No value: it makes no field.
    Null,
    Boolean(bool),
    /// One that is not finite makes no field.
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    /// A number of JSON, with its digits.
    Number(Number<'a>),
    Text(Cow<'a, str>),
}

impl Leaf<'_> {
    /// Its text as a tag, and for people.
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => "null".into(),
            Self::Boolean(value) => (if *value { "true" } else { "false" }).into(),
            Self::Float(value) => float_text(*value).into(),
            Self::Integer(value) => value.to_string().into(),
            Self::Unsigned(value) => value.to_string().into(),
            Self::Number(number) => number.text().into(),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    /// The float that is nearest to it. None: it is no number, or larger than any float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Integer(value) => Some(*value as f64),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Number(number) => number.as_f64(),
            Self::Null | Self::Boolean(_) | Self::Text(_) => None,
        }
    }

    /// The integer that it is. None: it is none, or outside 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Float(value) => {
                let is_whole = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
                is_whole.then_some(*value as i64)
            }
            Self::Integer(value) => Some(*value),
            Self::Unsigned(value) => i64::try_from(*value).ok(),
            Self::Number(number) => match number.as_i64() {
                Ok(value) => Some(value),
                Err(_) => Self::Float(number.as_f64()?).as_i64(),
            },
            Self::Null | Self::Boolean(_) | Self::Text(_) => None,
        }
    }

    /// The units of ten to the power of `power` nanoseconds that it says, in nanoseconds.
    pub fn scaled_ns(&self, power: u32) -> Option<i64> {
        match self {
            Self::Number(number) => number.scaled(power),
            Self::Float(value) => {
                let ns = value * 10_f64.powi(power as i32);
                (ns.abs() < 9.2e18).then_some(ns.round() as i64)
            }
            _ => self.as_i64()?.checked_mul(10_i64.pow(power)),
        }
    }
}

/// A float as text. A whole one has no point: a tag `7` is one whether it came as `7` or `7.0`.
fn float_text(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let mut text = Vec::new();
    tidegate_guest::float::write(value, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// A value that has values in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Object,
    Array,
}
