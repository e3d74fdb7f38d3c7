//! One record as it was sent, and the labels of RFC 8428 section 4.

use tidegate_guest::Refusal;
use tidegate_guest::json::{Number, Reader};

/// The labels, with their integers in CBOR (RFC 8428 table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    BaseVersion,
    BaseName,
    BaseTime,
    BaseUnit,
    BaseValue,
    BaseSum,
    Name,
    Unit,
    Value,
    StringValue,
    BooleanValue,
    DataValue,
    Sum,
    Time,
    UpdateTime,
}

const LABELS: [(&str, i64, Label); 15] = [
    ("bver", -1, Label::BaseVersion),
    ("bn", -2, Label::BaseName),
    ("bt", -3, Label::BaseTime),
    ("bu", -4, Label::BaseUnit),
    ("bv", -5, Label::BaseValue),
    ("bs", -6, Label::BaseSum),
    ("n", 0, Label::Name),
    ("u", 1, Label::Unit),
    ("v", 2, Label::Value),
    ("vs", 3, Label::StringValue),
    ("vb", 4, Label::BooleanValue),
    ("vd", 8, Label::DataValue),
    ("s", 5, Label::Sum),
    ("t", 6, Label::Time),
    ("ut", 7, Label::UpdateTime),
];

impl Label {
    pub fn of_text(text: &str) -> Option<Self> {
        LABELS.iter().find(|(name, _, _)| *name == text).map(|(_, _, label)| *label)
    }

    pub fn of_integer(number: i64) -> Option<Self> {
        LABELS.iter().find(|(_, integer, _)| *integer == number).map(|(_, _, label)| *label)
    }

    /// The label as it stands in JSON.
    pub fn name(self) -> &'static str {
        LABELS[self as usize].0
    }
}

/// A number: the nearest float, and nanoseconds if it is a time in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    pub float: f64,
    /// The decimal number times ten to nine, without the digits below a nanosecond. None: outside 64 bits.
    pub nanos: Option<i64>,
    /// The number, if it is an integer.
    pub integer: Option<i64>,
}

impl Quantity {
    /// None: the number is outside 64-bit floats.
    pub fn of(number: &Number<'_>) -> Option<Self> {
        let integer = number.as_i64().ok();
        Some(Self { float: number.as_f64()?, nanos: number.scaled(9), integer })
    }

    /// The decimal number that a text in the grammar of JSON says.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::of(&Reader::new(text).number().ok()?)
    }
}

/// A value of a record that is no number.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Number(f64),
    Text(std::borrow::Cow<'a, str>),
    Boolean(bool),
    Data(std::borrow::Cow<'a, [u8]>),
}

/// One record as it was sent.
#[derive(Debug, Default)]
pub struct Record<'a> {
    /// Its number in the pack, from 0, and its first byte.
    pub index: usize,
    pub at: usize,
    pub version: Option<Quantity>,
    pub base_name: Option<std::borrow::Cow<'a, str>>,
    pub base_time: Option<Quantity>,
    pub base_unit: Option<std::borrow::Cow<'a, str>>,
    pub base_value: Option<Quantity>,
    pub base_sum: Option<Quantity>,
    pub name: Option<std::borrow::Cow<'a, str>>,
    pub unit: Option<std::borrow::Cow<'a, str>>,
    pub value: Option<Value<'a>>,
    pub sum: Option<Quantity>,
    pub time: Option<Quantity>,
    pub update_time: Option<Quantity>,
    labels: u32,
}

impl<'a> Record<'a> {
    pub fn new(index: usize, at: usize) -> Self {
        Self { index, at, ..Self::default() }
    }

    /// The refusal of this record, with its place.
    pub fn refuse(&self, code: &str, fault: impl std::fmt::Display) -> Refusal {
        Refusal::new(code, format!("record {} (at byte {}): {fault}", self.index, self.at))
    }

    /// Records that a label stands here.
    ///
    /// # Errors
    /// It stands here twice, or it is a second value.
    pub fn add(&mut self, label: Label) -> Result<(), Refusal> {
        let bit = 1 << label as u32;
        if self.labels & bit != 0 {
            let fault = format!("the label {} stands twice: expected it once", label.name());
            return Err(self.refuse("DUPLICATE_LABEL", fault));
        }
        self.labels |= bit;
        if is_value(label) && self.value.is_some() {
            return Err(self.refuse("TWO_VALUES", "expected one of v, vs, vb and vd"));
        }
        Ok(())
    }

    /// Checks a label that this program does not know.
    ///
    /// # Errors
    /// Its last character says that it must be understood (RFC 8428 section 4.4).
    pub fn add_unknown(&self, label: &str) -> Result<(), Refusal> {
        if !label.ends_with('_') {
            return Ok(());
        }
        let shown: String = label.chars().take(64).collect();
        let fault = format!(
            "the label {shown:?} ends in _, so it must be understood, and it is not: expected labels of RFC 8428"
        );
        Err(self.refuse("MUST_UNDERSTAND", fault))
    }

    /// True if there is a field that is no base field.
    pub fn has_fields(&self) -> bool {
        self.labels >> Label::Name as u32 != 0
    }

    pub fn is_empty(&self) -> bool {
        self.labels == 0
    }

    /// Sets a number.
    pub fn set_number(&mut self, label: Label, number: Quantity) {
        match label {
            Label::BaseVersion => self.version = Some(number),
            Label::BaseTime => self.base_time = Some(number),
            Label::BaseValue => self.base_value = Some(number),
            Label::BaseSum => self.base_sum = Some(number),
            Label::Sum => self.sum = Some(number),
            Label::Time => self.time = Some(number),
            Label::UpdateTime => self.update_time = Some(number),
            _ => self.value = Some(Value::Number(number.float)),
        }
    }

    /// Sets a text.
    pub fn set_text(&mut self, label: Label, text: std::borrow::Cow<'a, str>) {
        match label {
            Label::BaseName => self.base_name = Some(text),
            Label::BaseUnit => self.base_unit = Some(text),
            Label::Name => self.name = Some(text),
            Label::Unit => self.unit = Some(text),
            _ => self.value = Some(Value::Text(text)),
        }
    }
}

fn is_value(label: Label) -> bool {
    matches!(label, Label::Value | Label::StringValue | Label::BooleanValue | Label::DataValue)
}

/// The kind of value that a label has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Number,
    Text,
    Boolean,
    Data,
}

impl Label {
    pub fn form(self) -> Form {
        match self {
            Self::BaseName | Self::BaseUnit | Self::Name | Self::Unit | Self::StringValue => Form::Text,
            Self::BooleanValue => Form::Boolean,
            Self::DataValue => Form::Data,
            _ => Form::Number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_labels_is_in_the_order_of_the_labels() {
        for (place, (name, number, label)) in LABELS.iter().enumerate() {
            assert_eq!(*label as usize, place);
            assert_eq!(label.name(), *name);
            assert_eq!(Label::of_integer(*number), Some(*label));
            assert_eq!(is_value(*label), name.starts_with('v'));
        }
    }
}
