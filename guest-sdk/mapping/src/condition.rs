//! The condition of a value: `u8@0 == 1`, `u8@1 & 0x04`, `u8@2[3]`, `/kind == "door"`.

use tidegate_guest::Refusal;
use tidegate_objects::{Leaf, parse_text};

use crate::format::Format;
use crate::setting::whole;
use crate::source::{Found, Part, Source, first_word};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    /// Any of these bits is set.
    Bits,
    /// It is true, or not 0.
    Set,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Number(f64),
    Text(String),
}

/// The condition of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    source: Source,
    comparison: Comparison,
    operand: Operand,
}

impl Condition {
    /// # Errors
    /// The fault, and what would be right.
    pub fn parse(text: &str, format: Format) -> Result<Self, String> {
        let (source, rest) = first_word(text)?;
        let source = Source::parse(source, format)?;
        let (comparison, operand) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let operand = operand.trim();
        let comparison = match comparison {
            "" => Comparison::Set,
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::AtMost,
            ">" => Comparison::Greater,
            ">=" => Comparison::AtLeast,
            "&" => Comparison::Bits,
            other => {
                return Err(format!(
                    "{other:?} is no comparison: expected ==, !=, <, <=, >, >= or & with blanks"
                ));
            }
        };
        let operand = match (comparison, quoted(operand), number(operand)) {
            (Comparison::Set, ..) => Operand::Number(0.0),
            (Comparison::Equal | Comparison::NotEqual, Some(text), _) => Operand::Text(text.to_owned()),
            (_, None, Some(number)) => Operand::Number(number),
            _ => {
                return Err(format!("{operand:?} behind the comparison: expected a number, as in u8@0 == 1"));
            }
        };
        Ok(Self { source, comparison, operand })
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// True if it holds. A value that is missing fulfils none but `!=`.
    ///
    /// # Errors
    /// The payload is too short for it.
    #[inline]
    pub fn holds(&self, part: &mut Part<'_, '_>, key: &str) -> Result<bool, Refusal> {
        let cursor = if let Part::Bytes(bytes) = part { Some(bytes.cursor) } else { None };
        let found = self.source.find(part, key)?.0;
        // A look at a byte is no step.
        if let (Part::Bytes(bytes), Some(cursor)) = (part, cursor) {
            bytes.cursor = cursor;
        }
        let Found::Leaf(leaf) = found else { return Ok(self.comparison == Comparison::NotEqual) };
        Ok(self.compare(&leaf))
    }

    fn compare(&self, leaf: &Leaf<'_>) -> bool {
        let operand = match &self.operand {
            Operand::Text(text) => {
                let is_equal = matches!(leaf, Leaf::Text(found) if found == text);
                return is_equal == (self.comparison == Comparison::Equal);
            }
            Operand::Number(number) => *number,
        };
        let value = match leaf {
            Leaf::Boolean(value) => Some(f64::from(u8::from(*value))),
            Leaf::Text(text) => parse_text(text).and_then(|parsed| parsed.as_f64()),
            number => number.as_f64(),
        };
        let Some(value) = value else { return self.comparison == Comparison::NotEqual };
        match self.comparison {
            Comparison::Equal => value == operand,
            Comparison::NotEqual => value != operand,
            Comparison::Less => value < operand,
            Comparison::AtMost => value <= operand,
            Comparison::Greater => value > operand,
            Comparison::AtLeast => value >= operand,
            Comparison::Bits => value as i64 as u64 & operand as u64 != 0,
            Comparison::Set => value != 0.0,
        }
    }
}

fn quoted(text: &str) -> Option<&str> {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\''))
}

fn number(text: &str) -> Option<f64> {
    let whole = whole(text).map(|number| number as f64);
    whole.or_else(|| match parse_text(text)? {
        Leaf::Boolean(value) => Some(f64::from(u8::from(value))),
        number => number.as_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;

    #[test]
    fn a_condition_looks_at_a_byte() {
        let holds = |text: &str| {
            let condition = Condition::parse(text, Format::Bytes).unwrap();
            let payload = [1, 0x0c, 200];
            condition.holds(&mut Part::Bytes(Bytes::new(&payload, 0..3)), "if").unwrap()
        };
        for text in ["u8@0 == 1", "u8@0 != 2", "u8@1 & 0x04", "u8@2 >= 200", "i8@2 < 0", "u8@1[3]", "u8@0"] {
            assert!(holds(text), "{text}");
        }
        for text in ["u8@0 == 2", "u8@1 & 0x03", "u8@2 > 200", "u8@1[0]", "i8@2 >= 0"] {
            assert!(!holds(text), "{text}");
        }
        for (text, words) in [
            ("u8@0 = 1", "=="),
            ("u8@0 == x", "number"),
            ("u8@0 == ", "number"),
            ("u8@0 & \"x\"", "number"),
            ("8", "TYPE@OFFSET"),
        ] {
            let error = Condition::parse(text, Format::Bytes).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
