//! Exceptions of scripts, as texts for the person who wrote them.

use std::fmt;

use crate::limits::FRAMES_MAX;
use crate::value::Value;

/// The name under which the engine knows the route's script.
pub const SCRIPT: &std::ffi::CStr = c"codec.js";

/// The name of our own scripts there.
const OURS: &str = "tidegate";

/// An exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    /// The places in the script, the innermost first.
    pub frames: Vec<Frame>,
}

/// A place in the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The file, where the script has several; empty: its only one.
    pub file: String,
    /// Empty for the script itself, outside of functions.
    pub function: String,
    pub line: u32,
    pub column: u32,
}

impl Fault {
    /// The text of an exception, and its places in the script.
    pub fn new(exception: &Value<'_>) -> Self {
        // Of a text that cannot be made, the exception was taken too.
        let text = |value: &Value<'_>| value.to_text().ok();
        let message = text(exception).unwrap_or_else(|| "an exception without a text".to_owned());
        let stack = match exception.is_error() {
            true => exception.property("stack").ok().and_then(|stack| text(&stack)),
            false => None,
        };
        let frames = stack.iter().flat_map(|stack| stack.lines()).filter_map(Frame::parse).collect();
        Self { message, frames }
    }
}

impl Frame {
    /// Reads `    at decodeUplink (codec.js:12:9)` or `    at lib/a.js:12:9`.
    fn parse(line: &str) -> Option<Self> {
        let place = line.trim().strip_prefix("at ")?;
        let (function, place) = match place.strip_suffix(')').and_then(|place| place.rsplit_once(" (")) {
            Some((function, place)) => (function, place),
            None => ("", place),
        };
        let number = |text: &str| text.parse::<u32>().ok();
        let (before, last) = place.rsplit_once(':')?;
        let (file, line, column) = match before.rsplit_once(':') {
            Some((file, line)) if number(line).is_some() => (file, number(line)?, number(last)?),
            _ => (before, number(last)?, 1),
        };
        if file == OURS {
            return None;
        }
        let function = if function.starts_with('<') { "" } else { function };
        let file = if Some(file) == SCRIPT.to_str().ok() { "" } else { file };
        Some(Self { file: file.to_owned(), function: function.to_owned(), line, column })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (place, frame) in self.frames.iter().take(FRAMES_MAX).enumerate() {
            f.write_str(if place == 0 { ", at " } else { ", called at " })?;
            if !frame.file.is_empty() {
                write!(f, "{}, ", frame.file)?;
            }
            write!(f, "line {}, column {}", frame.line, frame.column)?;
            if !frame.function.is_empty() {
                write!(f, " in {}", frame.function)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_script_are_read_and_others_are_left_out() {
        let frame = |text| Frame::parse(text).map(|frame| (frame.function, frame.line, frame.column));
        assert_eq!(frame("    at decodeUplink (codec.js:12:9)"), Some(("decodeUplink".into(), 12, 9)));
        assert_eq!(frame("    at <eval> (codec.js:1:7)"), Some((String::new(), 1, 7)));
        assert_eq!(frame("    at codec.js:3:5"), Some((String::new(), 3, 5)));
        assert_eq!(frame("    at a (b) (codec.js:3)"), Some(("a (b)".into(), 3, 1)));
        let of_file = Frame::parse("    at read (lib/a.js:2:3)").unwrap();
        assert_eq!((of_file.file.as_str(), of_file.function.as_str(), of_file.line), ("lib/a.js", "read", 2));
        assert_eq!(frame("    at map (native)"), None);
        assert_eq!(frame("    at log (tidegate:1:2)"), None);
        assert_eq!(frame("codec.js:3:5"), None);
    }
}
