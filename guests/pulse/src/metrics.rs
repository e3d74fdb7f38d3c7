//! The line of a telemetry message.

use tidegate_guest::json::{Kind, Number, Reader};
use tidegate_guest::{Line, Lines, Refusal};

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

/// What Python takes for false.
fn is_falsy(value: &str) -> bool {
    let zero = |text: &str| text.parse::<f64>().is_ok_and(|number| number == 0.0);
    let empty_array = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    matches!(value, "null" | "false" | "\"\"") || zero(value) || empty_array.is_some_and(|inside| inside.trim().is_empty())
}

enum Metric<'a> {
    Number(Number<'a>),
    Boolean(bool),
    LeftOut,
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
            _ => Metric::LeftOut,
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
        Metric::LeftOut => line,
    }
}
