//! The value of a metric by its data type.

use tidegate_guest::Refusal;

use crate::datatype::{DataType, Shape};
use crate::payload::{Budget, Metric, Sent, SentDataSet, SentTemplate};

/// A value.
#[derive(Debug)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Boolean(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    Array(Vec<Value<'a>>),
    DataSet(Box<DataSet<'a>>),
    Template(Box<Template<'a>>),
}

#[derive(Debug)]
pub struct DataSet<'a> {
    pub columns: Vec<&'a str>,
    pub types: Vec<DataType>,
    pub rows: Vec<Vec<Value<'a>>>,
}

#[derive(Debug)]
pub struct Template<'a> {
    pub version: Option<&'a str>,
    pub template_ref: Option<&'a str>,
    pub is_definition: bool,
    pub members: Vec<Member<'a>>,
    pub parameters: Vec<(&'a str, DataType, Value<'a>)>,
}

#[derive(Debug)]
pub struct Member<'a> {
    pub name: &'a str,
    pub datatype: DataType,
    /// Milliseconds.
    pub timestamp: Option<u64>,
    pub value: Value<'a>,
}

/// A value that is left out.
#[derive(Debug)]
pub enum Fault {
    /// The metric alone, for a reason.
    Left(&'static str),
    /// The whole message.
    Refused(Refusal),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Gives the data type of a member by its whole name, if the message does not say it.
pub type TypeOf<'f> = &'f dyn Fn(&str) -> Option<DataType>;

/// The value of a metric.
///
/// # Errors
/// The value does not fit the type, or the message is refused.
pub fn typed<'a>(
    name: &str,
    datatype: DataType,
    metric: &Metric<'a>,
    depth: usize,
    type_of: TypeOf<'_>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    if metric.is_null {
        return Ok(Value::Null);
    }
    let Some(sent) = metric.value else { return Err(Fault::Left("no_value")) };
    match (datatype.shape(), sent) {
        (Shape::Array, Sent::Bytes(bytes)) => array(datatype, bytes, budget),
        (Shape::DataSet, Sent::DataSet(wire)) => data_set(SentDataSet::read(wire, budget)?),
        (Shape::Template, Sent::Template(wire)) => {
            template(name, SentTemplate::read(wire, depth, budget)?, depth, type_of, budget)
        }
        _ => Ok(scalar(datatype, sent)?),
    }
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Left(reason)
    }
}

const TYPE_MISMATCH: &str = "type_mismatch";
const OUT_OF_RANGE: &str = "out_of_range";

fn scalar<'a>(datatype: DataType, sent: Sent<'a>) -> Result<Value<'a>, &'static str> {
    Ok(match (datatype.shape(), sent) {
        (Shape::Signed(bits), Sent::Int(number)) => Value::Integer(signed(bits, number.into())?),
        (Shape::Signed(bits), Sent::Long(number)) => Value::Integer(signed(bits, number)?),
        (Shape::Unsigned(bits), Sent::Int(number)) => unsigned(bits, number.into())?,
        (Shape::Unsigned(bits), Sent::Long(number)) => unsigned(bits, number)?,
        (Shape::DateTime, Sent::Int(number)) => Value::Integer(number.into()),
        (Shape::DateTime, Sent::Long(number)) => Value::Integer(number.try_into().map_err(|_| OUT_OF_RANGE)?),
        (Shape::Float | Shape::Double, Sent::Float(number)) => Value::Float(number.into()),
        (Shape::Double, Sent::Double(number)) => Value::Float(number),
        (Shape::Boolean, Sent::Boolean(value)) => Value::Boolean(value),
        (Shape::Text, Sent::Text(text)) => Value::Text(text),
        (Shape::Bytes, Sent::Bytes(bytes)) => Value::Bytes(bytes),
        _ => return Err(TYPE_MISMATCH),
    })
}

/// A signed number of so many bits: as two's complement of these bits, or with its sign extended to 32 or 64.
fn signed(bits: u32, number: u64) -> Result<i64, &'static str> {
    if bits == 64 {
        return Ok(number as i64);
    }
    let unused = 64 - bits;
    let value = ((number << unused) as i64) >> unused;
    let is_extended = number == value as u64 || number == u64::from(value as u32);
    if number >> bits == 0 || is_extended { Ok(value) } else { Err(OUT_OF_RANGE) }
}

fn unsigned(bits: u32, number: u64) -> Result<Value<'static>, &'static str> {
    match bits {
        64 => Ok(Value::Unsigned(number)),
        _ if number >> bits == 0 => Ok(Value::Integer(number as i64)),
        _ => Err(OUT_OF_RANGE),
    }
}

fn array<'a>(datatype: DataType, bytes: &'a [u8], budget: &mut Budget) -> Result<Value<'a>, Fault> {
    const BAD: Fault = Fault::Left("bad_array");
    if let Some(element) = datatype.element() {
        let size = match element.shape() {
            Shape::Signed(bits) | Shape::Unsigned(bits) => bits as usize / 8,
            Shape::Float => 4,
            _ => 8,
        };
        if !bytes.len().is_multiple_of(size) {
            return Err(BAD);
        }
        budget.take(bytes.len() / size)?;
        let number =
            |chunk: &[u8]| chunk.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let elements = bytes.chunks_exact(size).map(|chunk| match element.shape() {
            Shape::Float => Ok(Value::Float(f32::from_bits(number(chunk) as u32).into())),
            Shape::Double => Ok(Value::Float(f64::from_bits(number(chunk)))),
            _ => scalar(element, Sent::Long(number(chunk))),
        });
        return Ok(Value::Array(elements.collect::<Result<_, _>>()?));
    }
    if datatype.is_boolean_array() {
        let Some((count, bits)) = bytes.split_first_chunk::<4>() else { return Err(BAD) };
        let count = u32::from_le_bytes(*count) as usize;
        if bits.len() != count.div_ceil(8) {
            return Err(BAD);
        }
        budget.take(count)?;
        let bit = |place: usize| Value::Boolean(bits[place / 8] >> (7 - place % 8) & 1 == 1);
        return Ok(Value::Array((0..count).map(bit).collect()));
    }
    let Some((last, texts)) = bytes.split_last() else { return Ok(Value::Array(Vec::new())) };
    if *last != 0 {
        return Err(BAD);
    }
    let mut elements = Vec::new();
    for text in texts.split(|&byte| byte == 0) {
        budget.take(1)?;
        elements.push(Value::Text(std::str::from_utf8(text).map_err(|_| BAD)?));
    }
    Ok(Value::Array(elements))
}

fn data_set(sent: SentDataSet<'_>) -> Result<Value<'_>, Fault> {
    const BAD: Fault = Fault::Left("bad_dataset");
    let columns = sent.columns.len();
    if columns != sent.types.len() || sent.column_count.is_some_and(|count| count != columns as u64) {
        return Err(BAD);
    }
    let types =
        sent.types.iter().map(|&number| DataType::of(number)).collect::<Option<Vec<_>>>().ok_or(BAD)?;
    let mut rows = Vec::with_capacity(sent.rows.len());
    for cells in sent.rows {
        if cells.len() != columns {
            return Err(BAD);
        }
        let cells = cells.iter().zip(&types).map(|(cell, datatype)| match cell {
            Some(sent) => scalar(*datatype, *sent).map_err(|_| BAD),
            None => Ok(Value::Null),
        });
        rows.push(cells.collect::<Result<_, _>>()?);
    }
    Ok(Value::DataSet(Box::new(DataSet { columns: sent.columns, types, rows })))
}

fn template<'a>(
    name: &str,
    sent: SentTemplate<'a>,
    depth: usize,
    type_of: TypeOf<'_>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    const BAD: Fault = Fault::Left("bad_template");
    let mut members = Vec::with_capacity(sent.metrics.len());
    for metric in &sent.metrics {
        let member = metric.name.filter(|name| !name.is_empty()).ok_or(BAD)?;
        let whole = format!("{name}/{member}");
        let datatype = match metric.datatype {
            None | Some(0) => type_of(&whole),
            Some(number) => DataType::of(number),
        };
        let datatype = datatype.ok_or(BAD)?;
        let value = match typed(&whole, datatype, metric, depth + 1, type_of, budget) {
            // A definition need not have values.
            Err(Fault::Left("no_value")) => Value::Null,
            value => value?,
        };
        members.push(Member { name: member, datatype, timestamp: metric.timestamp, value });
    }
    let mut parameters = Vec::with_capacity(sent.parameters.len());
    for parameter in &sent.parameters {
        let datatype = parameter.datatype.and_then(DataType::of).ok_or(BAD)?;
        let value = parameter.value.map_or(Ok(Value::Null), |sent| scalar(datatype, sent))?;
        parameters.push((parameter.name.ok_or(BAD)?, datatype, value));
    }
    Ok(Value::Template(Box::new(Template {
        version: sent.version,
        template_ref: sent.template_ref,
        is_definition: sent.is_definition,
        members,
        parameters,
    })))
}
