use std::fmt;

use crate::reason::Reason;

/// The line protocol of the database that gets the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V3,
    /// InfluxDB 1 and 2: no unescaped `=` in tag values, and no time at the edge of 64 bits.
    V1V2,
}

/// The reason why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFaultKind {
    NotUtf8,
    Nul,
    NoMeasurement,
    NoFields,
    TabInName,
    EndsInBackslash,
    NameTooLong,
    TagWithoutValue,
    EmptyTagKey,
    EmptyTagValue,
    EqualsInTagValue,
    EmptyFieldKey,
    FieldWithoutValue,
    BadValue,
    IntegerRange,
    UnsignedRange,
    FloatRange,
    OpenString,
    StringTooLong,
    AfterValue,
    BadTimestamp,
    TimestampRange,
    DuplicateKey,
    TimeKey,
    Identity,
    TenantTag,
    TableNotAllowed,
    FieldNotAllowed,
    OutsideWindow,
    ReservedTag,
    SeriesTooLong,
    LineTooLong,
    TooManyLines,
    /// All lines of the message together, with the identity and time that the gateway adds.
    TooManyBytes,
}

impl LineFaultKind {
    fn text(self) -> &'static str {
        match self {
            Self::NotUtf8 => "the bytes are not UTF-8",
            Self::Nul => "a NUL byte",
            Self::NoMeasurement => "the measurement is missing",
            Self::NoFields => "no field: expected a space and key=value after measurement and tags",
            Self::TabInName => "a tab: expected a space as separator; names cannot contain tabs",
            Self::EndsInBackslash => "a name that ends in a backslash, which would escape what follows",
            Self::NameTooLong => "a name longer than 65,536 bytes",
            Self::TagWithoutValue => "a tag without =value",
            Self::EmptyTagKey => "an empty tag key",
            Self::EmptyTagValue => "an empty tag value: leave the tag out",
            Self::EqualsInTagValue => "an unescaped = in a tag value, which only InfluxDB 3 accepts",
            Self::EmptyFieldKey => "an empty field key",
            Self::FieldWithoutValue => "a field without =value",
            Self::BadValue => "no field value: expected a number, 1i, 1u, true, false or \"text\"",
            Self::IntegerRange => "an integer outside 64 bits",
            Self::UnsignedRange => "an unsigned integer outside 64 bits",
            Self::FloatRange => "a float that is not finite in 64 bits",
            Self::OpenString => "a string whose closing quote is missing",
            Self::StringTooLong => "a string longer than 65,536 bytes",
            Self::AfterValue => "text after a field value: expected a comma or a space",
            Self::BadTimestamp => {
                "no timestamp: expected nanoseconds as a whole number, and the end of the line"
            }
            Self::TimestampRange => "a timestamp outside the range of the database",
            Self::DuplicateKey => "a key used twice in the line, as tag or field",
            Self::TimeKey => {
                "a tag or field named time: rename it, leave it out, or use it as the time of the line"
            }
            Self::Identity => "a tag or field named device_id or site_id: the gateway adds them",
            Self::TenantTag => "a tag or field with the name of the tenant tag: the gateway adds it",
            Self::TableNotAllowed => "a table that this tenant may not use",
            Self::FieldNotAllowed => "a field that this tenant may not use in this table",
            Self::OutsideWindow => "a time too far from the time of receipt",
            Self::ReservedTag => "a tag named _measurement or _field, which InfluxDB 2 reserves",
            Self::SeriesTooLong => {
                "measurement and tags of more than 65,535 bytes together, which InfluxDB 1 and 2 refuse"
            }
            Self::LineTooLong => "a line longer than 1,048,576 bytes",
            Self::TooManyLines => "more than 1,000 lines of one message",
            Self::TooManyBytes => {
                "more than 1,310,720 bytes of lines of one message, with the identity and the time that the gateway adds to each"
            }
        }
    }

    /// The reason that users see.
    pub fn reason(self) -> Reason {
        match self {
            Self::Identity | Self::TenantTag => Reason::IdentityInLine,
            Self::TooManyBytes => Reason::GuestOutput,
            _ => Reason::BadLine,
        }
    }
}

/// A fault and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    pub kind: LineFaultKind,
    /// The line among those of its message, from 1.
    pub line: u32,
    /// The byte within that line, from 1.
    pub byte: u32,
    /// The values and the rule, where a rule of the tenant was broken.
    pub detail: String,
    /// The line itself, cut to be shown.
    pub excerpt: String,
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, byte {}: {}{} in {:?}",
            self.line,
            self.byte,
            self.kind.text(),
            self.detail,
            self.excerpt
        )
    }
}

/// A fault at a byte of the text; the line is known one level up.
pub(crate) type Parsed<T> = Result<T, (LineFaultKind, usize)>;
