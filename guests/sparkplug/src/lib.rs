//! Sparkplug B 3.0: births, data and deaths of edge nodes and devices, as lines.
//!
//! A birth certificate names each metric, its type and, where the node uses one, its alias. Data often have the alias
//! alone. So the decoder keeps the births of an edge node and its devices in the state of the node's partition, with
//! the last sequence number and the number of the session (`bdSeq`). A metric becomes a field with its name; the tags
//! are `group`, `edge` and, for a device, `device`.
//!
//! Data of a node that was not born are refused (`NO_BIRTH`). A gap of the sequence numbers, or an unknown alias, loses
//! only what cannot be resolved: the reason stands in the log and in the state, under the key `rebirth`, until the node
//! is born again. This decoder cannot publish: the gateway reads the code and the key, and requests the births where
//! the operator allows it.
//!
//! Options: see `options.rs`.

mod wire;
pub mod payload;
pub mod datatype;
pub mod value;
pub mod topic;
mod birth;
pub mod node_state;
pub mod session;
mod options;
mod fields;

use tidegate_guest::{Decoder, Line, Lines, Message, Refusal, Route, ignored, log};

use fields::{FieldValue, Fields, Rows, TimeNs, field_name, scalar};
use node_state::Cache;
use options::Options;
use session::Verdict;
use topic::Topic;

/// Lines of one message that the gateway takes.
const LINES_MAX: usize = 1_000;

pub struct Sparkplug {
    options: Options,
    cache: Cache,
}

impl Decoder for Sparkplug {
    fn configure(route: &Route) -> Result<Self, String> {
        Ok(Self { options: Options::read(route)?, cache: Cache::default() })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let Self { options, cache } = self;
        let topic = message.topic();
        let topic = Topic::read(&topic, options.prefix_levels)?;
        session::take(message, &topic, cache, &mut |verdict| {
            report(&topic, &verdict);
            write(options, &topic, &verdict, lines)
        })
    }
}

impl Sparkplug {
    /// Takes a message, and gives the verdict to a function in place of writing lines.
    ///
    /// # Errors
    /// Same as `decode`.
    pub fn interpret(
        &mut self,
        message: &Message<'_>,
        then: &mut dyn FnMut(Verdict<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let topic = message.topic();
        session::take(message, &Topic::read(&topic, self.options.prefix_levels)?, &mut self.cache, then)
    }
}

/// Tells what is left out, and that a rebirth is wanted.
fn report(topic: &Topic<'_>, verdict: &Verdict<'_>) {
    for dropped in &verdict.dropped {
        ignored::record(&format!("{} {}", dropped.reason, dropped.name), ignored::Kind::Other);
    }
    if let Some(reason) = &verdict.rebirth {
        log::warn(&format!(
            "edge node {:?} of group {:?} needs a rebirth: {reason}",
            topic.edge, topic.group
        ));
    }
}

/// Writes a line for each time of the metrics, and one for each row of a data set.
fn write(
    options: &Options,
    topic: &Topic<'_>,
    verdict: &Verdict<'_>,
    lines: &mut Lines,
) -> Result<(), Refusal> {
    let Fields { fields, rows, .. } = Fields::new(options, &verdict.metrics);
    // A name that comes again at the same time belongs to a further line, so that the last value counts.
    let mut order: Vec<(TimeNs, bool, usize, usize)> = fields
        .iter()
        .enumerate()
        .map(|(place, field)| (field.time_ns, field.is_historical, 0, place))
        .collect();
    order.sort_by(|a, b| (a.0, a.1, &fields[a.3].name).cmp(&(b.0, b.1, &fields[b.3].name)));
    for place in 1..order.len() {
        let (before, this) = (order[place - 1], order[place]);
        if (before.0, before.1) == (this.0, this.1) && fields[before.3].name == fields[this.3].name {
            order[place].2 = before.2 + 1;
        }
    }
    order.sort_unstable();
    let mut count = 0;
    for group in order.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
        count_line(&mut count)?;
        let (time_ns, is_historical, ..) = group[0];
        let mut line = start(lines, &options.measurement, topic, is_historical);
        for (.., place) in group {
            line = field(line, &fields[*place].name, &fields[*place].value);
        }
        end(line, time_ns)?;
    }
    for rows in &rows {
        write_rows(options, topic, rows, &mut count, lines)?;
    }
    Ok(())
}

fn write_rows(
    options: &Options,
    topic: &Topic<'_>,
    rows: &Rows<'_>,
    count: &mut usize,
    lines: &mut Lines,
) -> Result<(), Refusal> {
    let measurement = format!("{}_dataset", options.measurement);
    for (number, cells) in rows.set.rows.iter().enumerate() {
        count_line(count)?;
        let line = start(lines, &measurement, topic, rows.is_historical);
        let mut line =
            line.tag("metric", &field_name(rows.name.as_str().into())).tag("row", &number.to_string());
        let mut is_empty = true;
        for (column, cell) in rows.set.columns.iter().zip(cells) {
            match scalar(cell, options) {
                Ok(Some(value)) => {
                    line = field(line, &field_name((*column).into()), &value);
                    is_empty = false;
                }
                Ok(None) => {}
                Err(kind) => ignored::record(column, kind),
            }
        }
        if !is_empty {
            end(line, rows.time_ns)?;
        }
    }
    Ok(())
}

fn count_line(count: &mut usize) -> Result<(), Refusal> {
    *count += 1;
    if *count > LINES_MAX {
        let detail = format!(
            "the message makes more than {LINES_MAX} lines: expected fewer times or rows in one message"
        );
        return Err(Refusal::new("TOO_MANY_LINES", detail));
    }
    Ok(())
}

fn start<'l>(lines: &'l mut Lines, measurement: &str, topic: &Topic<'_>, is_historical: bool) -> Line<'l> {
    let line = lines.line(measurement).tag("group", topic.group).tag("edge", topic.edge);
    let line = line.tag("device", topic.device.unwrap_or_default());
    line.tag("historical", if is_historical { "true" } else { "" })
}

fn field<'l>(line: Line<'l>, name: &str, value: &FieldValue<'_>) -> Line<'l> {
    match value {
        FieldValue::Integer(number) => line.integer(name, *number),
        FieldValue::Unsigned(number) => line.unsigned(name, *number),
        FieldValue::Float(number) => line.float(name, *number),
        FieldValue::Boolean(value) => line.boolean(name, *value),
        FieldValue::Text(text) => line.string(name, text),
    }
}

fn end(line: Line<'_>, time_ns: TimeNs) -> Result<(), Refusal> {
    match time_ns {
        Some(time_ns) => line.at(time_ns),
        None => line.end(),
    }
}

tidegate_guest::export!(Sparkplug);
