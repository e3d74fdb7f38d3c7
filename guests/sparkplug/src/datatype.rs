//! The data types of Sparkplug B, by their numbers.

/// The data type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataType(u8);

const NAMES: [&str; 35] = [
    "Unknown",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float",
    "Double",
    "Boolean",
    "String",
    "DateTime",
    "Text",
    "UUID",
    "DataSet",
    "Bytes",
    "File",
    "Template",
    "PropertySet",
    "PropertySetList",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Int64Array",
    "UInt8Array",
    "UInt16Array",
    "UInt32Array",
    "UInt64Array",
    "FloatArray",
    "DoubleArray",
    "BooleanArray",
    "StringArray",
    "DateTimeArray",
];

/// The form of a data type's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Bits.
    Signed(u32),
    /// Bits.
    Unsigned(u32),
    Float,
    Double,
    Boolean,
    Text,
    DateTime,
    Bytes,
    DataSet,
    Template,
    Array,
}

impl DataType {
    pub const TEMPLATE: Self = Self(19);

    /// The data type of a metric. None: no metric has a type of this number.
    pub fn of(number: u32) -> Option<Self> {
        match number {
            1..=19 | 22..=34 => Some(Self(number as u8)),
            _ => None,
        }
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    pub fn shape(self) -> Shape {
        match self.0 {
            1..=4 => Shape::Signed(4 << self.0),
            5..=8 => Shape::Unsigned(4 << (self.0 - 4)),
            9 => Shape::Float,
            10 => Shape::Double,
            11 => Shape::Boolean,
            12 | 14 | 15 => Shape::Text,
            13 => Shape::DateTime,
            16 => Shape::DataSet,
            17 | 18 => Shape::Bytes,
            19 => Shape::Template,
            _ => Shape::Array,
        }
    }

    /// The type of an array's elements. None: it is no array of numbers.
    pub fn element(self) -> Option<Self> {
        match self.0 {
            22..=31 => Some(Self(self.0 - 21)),
            34 => Some(Self(13)),
            _ => None,
        }
    }

    pub fn is_boolean_array(self) -> bool {
        self.0 == 32
    }
}
