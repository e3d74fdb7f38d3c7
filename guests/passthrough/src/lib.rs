//! A payload that is line protocol already. Blank lines, comments and carriage returns are dropped;
//! everything else goes to the gateway's line check as it is.

use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};

pub struct Passthrough;

impl Decoder for Passthrough {
    fn configure(route: &Route) -> Result<Self, String> {
        route.allow_options(&[])?;
        Ok(Self)
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        // Whole, because a newline may stand inside a quoted text: where a line ends is the line
        // check's to say, and it drops what is no line.
        let text = message.text()?.trim_end_matches(['\r', '\n', ' ']);
        if !text.is_empty() {
            lines.raw(text.as_bytes());
        }
        Ok(())
    }
}

tidegate_guest::export!(Passthrough);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures() {
        tidegate_guest::testing::fixtures::<Passthrough>(
            &Route::default(),
            concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"),
        );
    }
}
