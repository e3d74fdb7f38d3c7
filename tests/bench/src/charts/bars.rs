//! A chart with a bar for each of several things.

use super::canvas::{Anchor, Canvas, WIDTH};

pub struct Bar {
    pub name: String,
    pub value: f64,
    pub note: String,
}

pub struct Bars<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub bars: Vec<Bar>,
    pub command: &'a str,
}

const TOP: f64 = 72.0;
/// From one bar to the next: a line of text, and the bar.
const STEP: f64 = 48.0;
const LEFT: f64 = 20.0;
/// Room behind the longest bar for its note.
const NOTE: f64 = 210.0;

impl Bars<'_> {
    pub fn svg(&self) -> String {
        let height = TOP + STEP * self.bars.len() as f64 + 40.0;
        let mut canvas = Canvas::new(height, self.title, self.command);
        canvas.text((LEFT, 52.0), Anchor::Start, "unit", self.unit);
        let most = self.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for (number, bar) in self.bars.iter().enumerate() {
            let top = TOP + STEP * number as f64;
            let width = (WIDTH - LEFT - NOTE) * bar.value / most;
            canvas.text((LEFT, top + 12.0), Anchor::Start, "legend", &bar.name);
            canvas.bar(usize::from(number > 0), (LEFT, top + 18.0), (width, 18.0));
            canvas.text((LEFT + width + 8.0, top + 32.0), Anchor::Start, "value", &bar.note);
        }
        canvas.svg()
    }
}
