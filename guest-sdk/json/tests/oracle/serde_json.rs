//! The verdict and the values of `serde_json`, beside those of the reader.

use serde_json::Value;
use tidegate_json::{Error, Kind, NotI64, Reader, TAPE_ENTRIES_MAX, TapeValue, TapeWriter};

/// The verdict of `serde_json`, numbers too large for a float aside: those are replaced by a 0, if they
/// keep to the grammar, and the text is judged again.
pub fn oracle(text: &[u8]) -> Option<(Value, bool)> {
    let mut text = text.to_vec();
    let mut replaced = false;
    loop {
        match serde_json::from_slice::<Value>(&text) {
            Ok(value) => return Some((value, replaced)),
            Err(error) if error.to_string().starts_with("number out of range") => {
                let line_at: usize =
                    text.split_inclusive(|&byte| byte == b'\n').take(error.line() - 1).map(<[u8]>::len).sum();
                let at = (line_at + error.column()).min(text.len());
                let of_number = |byte: &u8| b"0123456789+-.eE".contains(byte);
                let start = at - text[..at].iter().rev().take_while(|b| of_number(b)).count();
                let end = at + text[at..].iter().take_while(|b| of_number(b)).count();
                if !in_grammar(&text[start..end]) {
                    return None;
                }
                text.splice(start..end, *b"0");
                replaced = true;
            }
            Err(_) => return None,
        }
    }
}

/// RFC 8259 section 6, written once more and plainly.
fn in_grammar(number: &[u8]) -> bool {
    let number = std::str::from_utf8(number).unwrap();
    let number = number.strip_prefix('-').unwrap_or(number);
    let (rest, exponent) = match number.split_once(['e', 'E']) {
        Some((rest, exponent)) => (rest, Some(exponent)),
        None => (number, None),
    };
    let (integer, fraction) = match rest.split_once('.') {
        Some((integer, fraction)) => (integer, Some(fraction)),
        None => (rest, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(integer)
        && (integer == "0" || !integer.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

/// Reads everything, by the typed methods.
fn read(reader: &mut Reader<'_>) -> Result<Value, Error> {
    Ok(match reader.peek()? {
        Kind::Null => {
            reader.null()?;
            Value::Null
        }
        Kind::Bool => Value::Bool(reader.bool()?),
        Kind::String => Value::String(reader.string()?.decode().into_owned()),
        Kind::Number => {
            let number = reader.number()?;
            if let Ok(value) = number.as_i64() {
                assert!(number.is_integer());
                // serde_json takes -0 for the float.
                if number.text() == "-0" { Value::from(-0.0) } else { Value::from(value) }
            } else if let Some(value) = number.as_u64() {
                assert_eq!(number.as_i64(), Err(NotI64::OutOfRange));
                Value::from(value)
            } else {
                number.as_f64().map_or(Value::from(0), Value::from)
            }
        }
        Kind::Array => {
            let mut elements = Vec::new();
            reader.array()?;
            while reader.next_element()? {
                elements.push(read(reader)?);
            }
            Value::Array(elements)
        }
        Kind::Object => {
            let mut members = serde_json::Map::new();
            reader.object()?;
            while let Some(key) = reader.next_key()? {
                let key_text = key.decode().into_owned();
                assert!(key.is(&key_text));
                members.insert(key_text, read(reader)?);
            }
            Value::Object(members)
        }
    })
}

/// Reads everything, from the tape.
fn read_tape(value: TapeValue<'_>) -> Value {
    match value.kind() {
        Kind::Null => Value::Null,
        Kind::Bool => Value::Bool(value.bool().unwrap()),
        Kind::String => Value::String(value.string().unwrap().decode().into_owned()),
        Kind::Number => {
            let number = value.number().unwrap();
            if let Some((text, is_integer)) = value.verbatim_number() {
                assert_eq!((text, is_integer), (number.text(), number.is_integer()));
                assert!(!is_integer || number.as_i64().unwrap().to_string() == text);
            }
            let mut reader = Reader::new(number.text().as_bytes());
            read(&mut reader).expect("it was read before")
        }
        Kind::Array => Value::Array(value.elements().unwrap().map(read_tape).collect()),
        Kind::Object => {
            let mut members = serde_json::Map::new();
            for (key, value) in value.members().unwrap() {
                members.insert(key.decode().into_owned(), read_tape(value));
            }
            Value::Object(members)
        }
    }
}

/// The number of values in a text of which no key stands twice.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(elements) => elements.iter().map(count).sum::<usize>(),
        Value::Object(members) => members.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Compares the tape of a text with what the reader says of it.
fn compare_tape(text: &[u8], ours: &Result<Value, Error>) {
    let mut writer = TapeWriter::default();
    // What stood there before must leave nothing behind.
    assert!(writer.write(br#"{"a":[1,{"b":2}]}"#).unwrap());
    let written = writer.write(text);
    let shown = || format!("{:?}", String::from_utf8_lossy(text));
    assert_eq!(written.as_ref().err(), ours.as_ref().err(), "{}", shown());
    // SAFETY: this text was read last.
    let tape = unsafe { writer.tape(text) };
    assert_eq!(tape.is_some(), written == Ok(true), "{}", shown());
    match (tape, ours) {
        (Some(tape), Ok(ours)) => assert_eq!(read_tape(tape.value()), *ours, "{}", shown()),
        (None, Ok(ours)) => {
            let is_large = text.len() > 255 || count(ours) > TAPE_ENTRIES_MAX;
            assert!(is_large, "{} has no tape", shown());
        }
        (tape, Err(_)) => assert!(tape.is_none(), "{}", shown()),
    }
}

/// The same value. A float may differ in its last digit: `serde_json` rounds it only roughly (the
/// exact value is compared with the standard library's below).
fn same(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let mut members = a.iter().zip(b);
            a.len() == b.len() && members.all(|((k, a), (l, b))| k == l && same(a, b))
        }
        // Rounded roughly, a number just below the greatest float is beyond it.
        (Value::Number(a), Value::Number(b)) if a.as_u64() == Some(0) && b.is_f64() => {
            b.as_f64().is_some_and(|b| b.abs() > 1.797e308)
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            let near = (a - b).abs() <= a.abs().max(b.abs()) * 1e-14 + f64::MIN_POSITIVE;
            near && a.is_sign_negative() == b.is_sign_negative()
        }
        (a, b) => a == b,
    }
}

/// Compares the verdicts (reading and skipping) and the values.
pub fn compare(text: &[u8]) {
    let oracle = oracle(text);
    let mut reader = Reader::new(text);
    let ours = read(&mut reader).and_then(|value| reader.end().map(|()| value));
    let skipped = Reader::new(text).end();
    let shown = || format!("{:?}", String::from_utf8_lossy(text));
    compare_tape(text, &ours);
    assert_eq!(skipped.is_ok(), ours.is_ok(), "{} {skipped:?} {ours:?}", shown());
    match (oracle, ours) {
        (None, Err(_)) => {}
        (Some((value, _)), Ok(ours)) => {
            assert!(same(&value, &ours), "{}: {value} {ours}", shown());
        }
        (oracle, ours) => panic!("{}: serde_json {oracle:?}, ours {ours:?}", shown()),
    }
}
