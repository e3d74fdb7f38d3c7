//! The messages of sparkplug_b.proto, with their values as they were sent.

use tidegate_guest::Refusal;

use crate::wire::{Wire, fault};

/// Metrics, array elements, cells and members in one message, so that few bytes never become much memory.
pub const VALUES_MAX: usize = 16_384;

/// Templates inside of templates.
pub const DEPTH_MAX: usize = 8;

/// A payload.
#[derive(Debug, Default)]
pub struct Payload<'a> {
    pub timestamp: Option<u64>,
    pub seq: Option<u64>,
    pub metrics: Vec<Metric<'a>>,
}

/// A metric.
#[derive(Debug, Default)]
pub struct Metric<'a> {
    pub name: Option<&'a str>,
    pub alias: Option<u64>,
    /// Milliseconds.
    pub timestamp: Option<u64>,
    pub datatype: Option<u32>,
    pub is_historical: bool,
    pub is_transient: bool,
    pub is_null: bool,
    pub value: Option<Sent<'a>>,
}

/// A value as it was sent: the field of the `oneof` that is set.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    DataSet(Wire<'a>),
    Template(Wire<'a>),
    Extension,
}

/// The values that a message may still have.
#[derive(Debug)]
pub struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: VALUES_MAX }
    }
}

impl Budget {
    /// # Errors
    /// The message has more than `VALUES_MAX`.
    pub fn take(&mut self, values: usize) -> Result<(), Refusal> {
        match self.left.checked_sub(values) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let detail = format!(
                    "more than {VALUES_MAX} metrics, elements and cells: expected fewer in a message"
                );
                Err(Refusal::new("TOO_MANY_VALUES", detail))
            }
        }
    }
}

impl<'a> Payload<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// `BAD_PAYLOAD` with the place, or `TOO_MANY_VALUES`.
    pub fn read(bytes: &'a [u8], budget: &mut Budget) -> Result<Self, Refusal> {
        let mut wire = Wire::new(bytes);
        let mut payload = Self::default();
        loop {
            let at = wire.position();
            let Some((field, raw)) = wire.field()? else { return Ok(payload) };
            match field {
                1 => payload.timestamp = Some(raw.varint("timestamp", at)?),
                2 => {
                    budget.take(1)?;
                    payload.metrics.push(Metric::read(raw.message("metrics", at)?)?);
                }
                3 => payload.seq = Some(raw.varint("seq", at)?),
                _ => {}
            }
        }
    }
}

impl<'a> Metric<'a> {
    pub fn read(mut wire: Wire<'a>) -> Result<Self, Refusal> {
        let mut metric = Self::default();
        loop {
            let at = wire.position();
            let Some((field, raw)) = wire.field()? else { return Ok(metric) };
            match field {
                1 => metric.name = Some(raw.text("a metric's name", at)?),
                2 => metric.alias = Some(raw.varint("alias", at)?),
                3 => metric.timestamp = Some(raw.varint("a metric's timestamp", at)?),
                4 => metric.datatype = Some(raw.varint("datatype", at)? as u32),
                5 => metric.is_historical = raw.varint("is_historical", at)? != 0,
                6 => metric.is_transient = raw.varint("is_transient", at)? != 0,
                7 => metric.is_null = raw.varint("is_null", at)? != 0,
                10 => metric.value = Some(Sent::Int(raw.varint("int_value", at)? as u32)),
                11 => metric.value = Some(Sent::Long(raw.varint("long_value", at)?)),
                12 => metric.value = Some(Sent::Float(f32::from_bits(raw.fixed32("float_value", at)?))),
                13 => metric.value = Some(Sent::Double(f64::from_bits(raw.fixed64("double_value", at)?))),
                14 => metric.value = Some(Sent::Boolean(raw.varint("boolean_value", at)? != 0)),
                15 => metric.value = Some(Sent::Text(raw.text("string_value", at)?)),
                16 => metric.value = Some(Sent::Bytes(raw.message("bytes_value", at)?.bytes())),
                17 => metric.value = Some(Sent::DataSet(raw.message("dataset_value", at)?)),
                18 => metric.value = Some(Sent::Template(raw.message("template_value", at)?)),
                19 => metric.value = Some(Sent::Extension),
                _ => {}
            }
        }
    }
}

/// A data set as it was sent.
#[derive(Debug, Default)]
pub struct SentDataSet<'a> {
    pub columns: Vec<&'a str>,
    pub types: Vec<u32>,
    /// The cells of each row; one that is not set has no value.
    pub rows: Vec<Vec<Option<Sent<'a>>>>,
    pub column_count: Option<u64>,
}

impl<'a> SentDataSet<'a> {
    pub fn read(mut wire: Wire<'a>, budget: &mut Budget) -> Result<Self, Refusal> {
        let mut set = Self::default();
        loop {
            let at = wire.position();
            let Some((field, raw)) = wire.field()? else { return Ok(set) };
            match field {
                1 => set.column_count = Some(raw.varint("num_of_columns", at)?),
                2 => {
                    budget.take(1)?;
                    set.columns.push(raw.text("a column's name", at)?);
                }
                3 => {
                    budget.take(1)?;
                    set.types.push(raw.varint("a column's type", at)? as u32);
                }
                4 => {
                    budget.take(1)?;
                    set.rows.push(row(raw.message("rows", at)?, budget)?);
                }
                _ => {}
            }
        }
    }
}

fn row<'a>(mut wire: Wire<'a>, budget: &mut Budget) -> Result<Vec<Option<Sent<'a>>>, Refusal> {
    let mut cells = Vec::new();
    loop {
        let at = wire.position();
        let Some((field, raw)) = wire.field()? else { return Ok(cells) };
        if field == 1 {
            budget.take(1)?;
            cells.push(scalar(raw.message("elements", at)?, 0)?.value);
        }
    }
}

/// A parameter of a template. A cell of a data set is one without name and type.
#[derive(Debug, Default)]
pub struct SentParameter<'a> {
    pub name: Option<&'a str>,
    pub datatype: Option<u32>,
    pub value: Option<Sent<'a>>,
}

/// Reads a message whose `oneof` of values begins behind `offset` fields.
fn scalar<'a>(mut wire: Wire<'a>, offset: u64) -> Result<SentParameter<'a>, Refusal> {
    let mut parameter = SentParameter::default();
    loop {
        let at = wire.position();
        let Some((field, raw)) = wire.field()? else { return Ok(parameter) };
        if field <= offset {
            match field {
                1 => parameter.name = Some(raw.text("a parameter's name", at)?),
                _ => parameter.datatype = Some(raw.varint("a parameter's type", at)? as u32),
            }
            continue;
        }
        parameter.value = Some(match field - offset {
            1 => Sent::Int(raw.varint("int_value", at)? as u32),
            2 => Sent::Long(raw.varint("long_value", at)?),
            3 => Sent::Float(f32::from_bits(raw.fixed32("float_value", at)?)),
            4 => Sent::Double(f64::from_bits(raw.fixed64("double_value", at)?)),
            5 => Sent::Boolean(raw.varint("boolean_value", at)? != 0),
            6 => Sent::Text(raw.text("string_value", at)?),
            7 => Sent::Extension,
            _ => continue,
        });
    }
}

/// A template as it was sent.
#[derive(Debug, Default)]
pub struct SentTemplate<'a> {
    pub version: Option<&'a str>,
    pub template_ref: Option<&'a str>,
    pub is_definition: bool,
    pub metrics: Vec<Metric<'a>>,
    pub parameters: Vec<SentParameter<'a>>,
}

impl<'a> SentTemplate<'a> {
    pub fn read(mut wire: Wire<'a>, depth: usize, budget: &mut Budget) -> Result<Self, Refusal> {
        if depth > DEPTH_MAX {
            let text = format!("templates are nested deeper than {DEPTH_MAX}: expected fewer levels");
            return Err(fault(wire.position(), &text));
        }
        let mut template = Self::default();
        loop {
            let at = wire.position();
            let Some((field, raw)) = wire.field()? else { return Ok(template) };
            match field {
                1 => template.version = Some(raw.text("a template's version", at)?),
                2 => {
                    budget.take(1)?;
                    template.metrics.push(Metric::read(raw.message("a template's metrics", at)?)?);
                }
                3 => {
                    budget.take(1)?;
                    template.parameters.push(scalar(raw.message("parameters", at)?, 2)?);
                }
                4 => template.template_ref = Some(raw.text("template_ref", at)?),
                5 => template.is_definition = raw.varint("is_definition", at)? != 0,
                _ => {}
            }
        }
    }
}
