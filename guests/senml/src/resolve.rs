//! Resolved records (RFC 8428 section 4.6): base fields applied, times absolute, names whole.

use std::borrow::Cow;

use tidegate_guest::Refusal;

use crate::record::{Quantity, Record, Value};

/// The newest version that is understood (RFC 8428 section 4.4), and the version of a pack that names none.
const VERSION: i64 = 10;

/// Times below 2^28 seconds are relative to now (RFC 8428 section 4.5.3).
const ABSOLUTE_FROM_NS: i64 = (1 << 28) * 1_000_000_000;

/// One resolved record. Its name is that of the resolver, until the next record.
#[derive(Debug)]
pub struct Resolved<'a> {
    pub unit: Option<Cow<'a, str>>,
    /// None: now.
    pub time_ns: Option<i64>,
    pub value: Option<Value<'a>>,
    pub sum: Option<f64>,
    /// Seconds.
    pub update_time: Option<f64>,
}

/// The base fields, as the records up to here have set them.
#[derive(Debug)]
pub struct Resolver<'a> {
    received_ns: i64,
    version: Option<i64>,
    base_name: Cow<'a, str>,
    base_time_ns: i64,
    base_unit: Option<Cow<'a, str>>,
    base_value: f64,
    base_sum: f64,
    name: String,
}

impl<'a> Resolver<'a> {
    pub fn new(received_ns: i64) -> Self {
        Self {
            received_ns,
            version: None,
            base_name: Cow::Borrowed(""),
            base_time_ns: 0,
            base_unit: None,
            base_value: 0.0,
            base_sum: 0.0,
            name: String::new(),
        }
    }

    /// The name of the record that was resolved last.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Resolves the next record. None: it has base fields alone.
    ///
    /// # Errors
    /// It is against RFC 8428, with its place and the expected value.
    pub fn resolve(&mut self, mut record: Record<'a>) -> Result<Option<Resolved<'a>>, Refusal> {
        self.check_version(&record)?;
        self.take_base(&mut record)?;
        if !record.has_fields() && !record.is_empty() {
            return Ok(None);
        }
        self.name.clear();
        self.name.push_str(&self.base_name);
        self.name.push_str(record.name.as_deref().unwrap_or_default());
        check_name(&self.name).map_err(|fault| record.refuse("BAD_NAME", fault))?;
        let value = match record.value.take() {
            Some(Value::Number(number)) => Some(Value::Number(number + self.base_value)),
            None if record.sum.is_none() => {
                return Err(record.refuse("NO_VALUE", "expected one of v, vs, vb, vd and s"));
            }
            value => value,
        };
        let sum = record.sum.map(|sum| sum.float + self.base_sum);
        let number = match value {
            Some(Value::Number(number)) => number,
            _ => 0.0,
        };
        if !number.is_finite() || !sum.unwrap_or_default().is_finite() {
            let fault = "the value and its base value together are outside 64-bit floats";
            return Err(record.refuse("BAD_NUMBER", fault));
        }
        Ok(Some(Resolved {
            time_ns: self.time_ns(&record)?,
            unit: record.unit.or_else(|| self.base_unit.clone()),
            value,
            sum,
            update_time: record.update_time.map(|time| time.float),
        }))
    }

    fn check_version(&mut self, record: &Record<'_>) -> Result<(), Refusal> {
        let version = match record.version {
            None => None,
            Some(Quantity { integer: Some(version @ 1..=VERSION), .. }) => Some(version),
            Some(Quantity { float, .. }) => {
                let fault = format!("bver is {float}: expected an integer from 1 to {VERSION}");
                return Err(record.refuse("BAD_VERSION", fault));
            }
        };
        let known = *self.version.get_or_insert(version.unwrap_or(VERSION));
        if version.is_some_and(|version| version != known) {
            let fault = format!(
                "bver is {}, after {known} in the records before: expected one version in a pack",
                version.unwrap_or_default()
            );
            return Err(record.refuse("BAD_VERSION", fault));
        }
        Ok(())
    }

    fn take_base(&mut self, record: &mut Record<'a>) -> Result<(), Refusal> {
        if let Some(name) = record.base_name.take() {
            self.base_name = name;
        }
        if let Some(time) = record.base_time {
            self.base_time_ns = nanos("bt", time, record)?;
        }
        if let Some(unit) = record.base_unit.take() {
            self.base_unit = Some(unit);
        }
        if let Some(value) = record.base_value {
            self.base_value = value.float;
        }
        if let Some(sum) = record.base_sum {
            self.base_sum = sum.float;
        }
        Ok(())
    }

    /// The time of a record; None for now.
    fn time_ns(&self, record: &Record<'_>) -> Result<Option<i64>, Refusal> {
        let offset = record.time.map_or(Ok(0), |time| nanos("t", time, record))?;
        let time = self.base_time_ns.checked_add(offset);
        let time = match time {
            Some(0) => return Ok(None),
            Some(time) if time < ABSOLUTE_FROM_NS => self.received_ns.checked_add(time),
            time => time,
        };
        match time {
            Some(time) => Ok(Some(time)),
            None => Err(record.refuse("BAD_TIME", "bt and t together are outside 1677 to 2262")),
        }
    }
}

fn nanos(label: &str, time: Quantity, record: &Record<'_>) -> Result<i64, Refusal> {
    time.nanos.ok_or_else(|| {
        let fault = format!("{label} is {}: expected seconds within the years 1677 to 2262", time.float);
        record.refuse("BAD_TIME", fault)
    })
}

/// Checks a whole name (RFC 8428 section 4.5.1).
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '/' | '_');
    if let Some(character) = name.chars().find(|character| !allowed(*character)) {
        let shown: String = name.chars().take(80).collect();
        return Err(format!(
            "the name {shown:?} has {character:?}: expected letters and digits of ASCII, and - : . / _"
        ));
    }
    match name.chars().next() {
        None => Err("n and bn are missing or empty: expected a name".into()),
        Some(first) if first.is_ascii_alphanumeric() => Ok(()),
        Some(first) => Err(format!("the name begins with {first:?}: expected a letter or a digit")),
    }
}
