//! The line of a telemetry message.

use tidegate_guest::json::{Kind, Number, Reader, Tape};
use tidegate_guest::time::parse_iso8601;
use tidegate_guest::{Line, Lines, Message, Refusal, ignored};

/// Writes the line of a message as devices usually send them: each key once, `seq` before `metrics`,
/// only numbers and booleans in them, a time that is read. False, and nothing written, when it is
/// not such a message: then it is read with care.
#[inline]
pub fn write_in_one_pass(message: &Message<'_>, lines: &mut Lines) -> bool {
    usual(message, lines).is_some()
}

#[inline]
fn usual(message: &Message<'_>, lines: &mut Lines) -> Option<()> {
    let mut reader = Reader::new(message.payload);
    reader.object().ok()?;
    let (mut time_ns, mut seq) = (None, None);
    let mut line: Option<Line<'_>> = None;
    let mut unstarted = Some(lines);
    while let Some(key) = reader.next_key().ok()? {
        match key.plain()? {
            "ts" if time_ns.is_none() => {
                time_ns = Some(parse_iso8601(reader.string().ok()?.plain()?.as_bytes()).ok()?);
            }
            "seq" if seq.is_none() => seq = Some(reader.number().ok()?.as_i64().ok()?),
            "metrics" => {
                let mut started = unstarted.take()?.line("telemetry").integer("seq", seq?);
                reader.object().ok()?;
                while let Some(name) = reader.next_key().ok()? {
                    let name = name.plain()?;
                    started = match reader.peek().ok()? {
                        Kind::Number => started.number(name, &reader.number().ok()?),
                        Kind::Bool => started.boolean(name, reader.bool().ok()?),
                        _ => return None,
                    };
                }
                line = Some(started);
            }
            "ts" | "seq" => return None,
            _ => {}
        }
    }
    reader.end().ok()?;
    line?.at(time_ns?).ok()
}

/// The same as `write_in_one_pass`, of a message that the gateway has read.
#[inline]
pub fn write_from_tape(tape: Tape<'_>, lines: &mut Lines) -> bool {
    usual_tape(tape, lines).is_some()
}

#[inline]
fn usual_tape(tape: Tape<'_>, lines: &mut Lines) -> Option<()> {
    let (mut time_ns, mut seq, mut metrics) = (None, None, None);
    for (key, value) in tape.value().members()? {
        match key.plain()? {
            "ts" if time_ns.is_none() => {
                time_ns = Some(parse_iso8601(value.string()?.plain()?.as_bytes()).ok()?);
            }
            "seq" if seq.is_none() => seq = Some(value.number()?.as_i64().ok()?),
            "metrics" if metrics.is_none() => metrics = Some(value.members()?),
            "ts" | "seq" | "metrics" => return None,
            _ => {}
        }
    }
    let (time_ns, seq, metrics) = (time_ns?, seq?, metrics?);
    let mut line = lines.line("telemetry").integer("seq", seq);
    for (name, value) in metrics {
        line = line.tape_value(name.plain()?, &value)?;
    }
    line.at(time_ns).ok()
}

/// Writes the line. `metrics` is the value as it stands in the text, already checked to be JSON.
#[inline]
pub fn write(metrics: Option<&str>, seq: i64, time_ns: i64, lines: &mut Lines) -> Result<(), Refusal> {
    let Some(metrics) = metrics else {
        return lines.line("telemetry").integer("seq", seq).at(time_ns);
    };
    let mut reader = Reader::new(metrics.as_bytes());
    match reader.peek()? {
        Kind::Object => {}
        _ if is_falsy(metrics) => return lines.line("telemetry").integer("seq", seq).at(time_ns),
        kind => {
            let detail = format!("metrics is {}: expected an object", kind.name());
            return Err(Refusal::new("BAD_METRICS", detail));
        }
    }
    reader.object()?;
    let mut line = lines.line("telemetry").integer("seq", seq);
    while let Some(key) = reader.next_key()? {
        let decoded;
        let name = match key.plain() {
            Some(plain) => plain,
            None => {
                decoded = key.decode();
                decoded.as_ref()
            }
        };
        line = match reader.peek()? {
            Kind::Number => line.number(name, &reader.number()?),
            Kind::Bool => line.boolean(name, reader.bool()?),
            // What is left out still counts for which value of a key is the last.
            _ => {
                drop(line);
                return write_with_care(metrics, seq, time_ns, lines);
            }
        };
        if line.has_duplicate() {
            drop(line);
            return write_with_care(metrics, seq, time_ns, lines);
        }
    }
    line.at(time_ns)
}

/// True for a value that Python takes for false.
fn is_falsy(value: &str) -> bool {
    let zero = |text: &str| text.parse::<f64>().is_ok_and(|number| number == 0.0);
    let empty_array = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    matches!(value, "null" | "false" | "\"\"")
        || zero(value)
        || empty_array.is_some_and(|inside| inside.trim().is_empty())
}

enum Metric<'a> {
    Number(Number<'a>),
    Boolean(bool),
    LeftOut(ignored::Kind),
}

/// The same where a key stands twice or a value is left out: gathers first, as a Python dict does,
/// so that the last value of a key stands at its first place.
#[cold]
fn write_with_care(metrics: &str, seq: i64, time_ns: i64, lines: &mut Lines) -> Result<(), Refusal> {
    let mut places = std::collections::HashMap::new();
    let mut gathered: Vec<(String, Metric<'_>)> = Vec::new();
    let mut reader = Reader::new(metrics.as_bytes());
    reader.object()?;
    while let Some(key) = reader.next_key()? {
        let name = key.decode().into_owned();
        let metric = match reader.peek()? {
            Kind::Number => Metric::Number(reader.number()?),
            Kind::Bool => Metric::Boolean(reader.bool()?),
            kind => Metric::LeftOut(match kind {
                Kind::String => ignored::Kind::Text,
                Kind::Array => ignored::Kind::List,
                Kind::Object => ignored::Kind::Object,
                Kind::Null => ignored::Kind::Null,
                Kind::Number | Kind::Bool => ignored::Kind::Other,
            }),
        };
        match places.get(&name) {
            Some(&place) => {
                let (_, known): &mut (String, Metric<'_>) = &mut gathered[place];
                *known = metric;
            }
            None => {
                places.insert(name.clone(), gathered.len());
                gathered.push((name, metric));
            }
        }
    }
    let start = lines.line("telemetry").integer("seq", seq);
    gathered.iter().fold(start, |line, (name, metric)| add(line, name, metric)).at(time_ns)
}

fn add<'a>(line: Line<'a>, name: &str, metric: &Metric<'_>) -> Line<'a> {
    match metric {
        Metric::Number(number) => line.number(name, number),
        Metric::Boolean(value) => line.boolean(name, *value),
        Metric::LeftOut(kind) => {
            ignored::record(name, *kind);
            line
        }
    }
}
