//! A chart with a line for each series.

use super::canvas::{Anchor, Canvas, WIDTH};
use crate::scale::thousands;

#[derive(Clone, Copy, Debug)]
pub enum Scale {
    Linear,
    Logarithmic,
}

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// The chart's texts and figures; an axis has the name of its unit.
pub struct Lines<'a> {
    pub title: &'a str,
    pub x: (&'a str, Scale),
    pub y: (&'a str, Scale),
    pub series: Vec<Series>,
    pub command: &'a str,
}

const HEIGHT: f64 = 458.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 60.0;
const TOP: f64 = 108.0;
const BOTTOM: f64 = HEIGHT - 80.0;

/// One axis: values from its beginning to its end, in pixels.
struct Axis {
    scale: Scale,
    values: (f64, f64),
    pixels: (f64, f64),
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let map = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
        };
        let (from, to) = (map(self.values.0), map(self.values.1));
        let share = if to > from { (map(value) - from) / (to - from) } else { 0.5 };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}

/// Values of an axis between which all values lie: 1, 2 and 5 times powers of ten.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let mut ticks = Vec::new();
    let first = least.max(1e-6).log10().floor() as i32;
    for power in first..=most.max(1e-6).log10().ceil() as i32 {
        ticks.extend([1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    }
    let from = ticks.iter().rposition(|tick| *tick <= least).unwrap_or(0);
    let to = ticks.iter().position(|tick| *tick >= most).unwrap_or(ticks.len() - 1);
    ticks[from..=to.max(from)].to_vec()
}

fn shown(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { thousands(value) } else { format!("{value:.1}") }
}

impl Lines<'_> {
    fn values(&self, of: impl Fn(&(f64, f64)) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.series.iter().flat_map(|series| &series.points).map(of).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    }

    pub fn svg(&self) -> String {
        let mut canvas = Canvas::new(HEIGHT, self.title, self.command);
        let (xs, ys) = (self.values(|point| point.0), self.values(|point| point.1));
        if let (Some(least), Some(most), [first, .., last] | [first @ last]) =
            (ys.first(), ys.last(), &xs[..])
        {
            let steps = ticks(*least, *most);
            let values = (steps[0], steps[steps.len() - 1]);
            let y = Axis { scale: self.y.1, values, pixels: (BOTTOM, TOP) };
            let x = Axis { scale: self.x.1, values: (*first, *last), pixels: (LEFT + 20.0, RIGHT - 20.0) };
            self.draw(&mut canvas, &x, &y, &steps, &xs);
        }
        canvas.svg()
    }

    fn draw(&self, canvas: &mut Canvas, x: &Axis, y: &Axis, steps: &[f64], xs: &[f64]) {
        for step in steps {
            let at = y.place(*step);
            canvas.grid((LEFT, at), (RIGHT, at));
            canvas.text((LEFT - 8.0, at + 4.0), Anchor::End, "tick", &shown(*step));
        }
        let mut free = f64::MIN;
        for value in xs {
            let at = x.place(*value);
            canvas.grid((at, BOTTOM), (at, BOTTOM + 5.0));
            // A number that would stand in the one before is left out.
            if at - free >= 0.0 {
                canvas.text((at, BOTTOM + 20.0), Anchor::Middle, "tick", &shown(*value));
                free = at + 52.0;
            }
        }
        canvas.text(((LEFT + RIGHT) / 2.0, BOTTOM + 42.0), Anchor::Middle, "unit", self.x.0);
        canvas.text((20.0, TOP - 12.0), Anchor::Start, "unit", self.y.0);
        let mut legend = (20.0, 52.0);
        let mut ends = Vec::new();
        for (number, series) in self.series.iter().enumerate() {
            let points: Vec<_> = series.points.iter().map(|(a, b)| (x.place(*a), y.place(*b))).collect();
            canvas.series(number, &points);
            let width = 60.0 + 7.0 * series.name.chars().count() as f64;
            if legend.0 + width > WIDTH {
                legend = (20.0, legend.1 + 20.0);
            }
            canvas.series(number, &[legend, (legend.0 + 28.0, legend.1)]);
            canvas.text((legend.0 + 36.0, legend.1 + 4.0), Anchor::Start, "legend", &series.name);
            legend.0 += width;
            ends.extend(points.last().zip(series.points.last()).map(|(end, (_, value))| (*end, *value)));
        }
        // Values of lines that end at the same place stand below each other, the highest first.
        ends.sort_by(|a, b| a.0.1.total_cmp(&b.0.1));
        let mut free = f64::MIN;
        for ((right, at), value) in ends {
            let at = (at + 4.0).max(free);
            canvas.text((right + 8.0, at), Anchor::Start, "value", &shown_value(value));
            free = at + 13.0;
        }
    }
}

/// The value at the end of a line.
fn shown_value(value: f64) -> String {
    if value >= 100.0 { thousands(value) } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_enclose_the_values() {
        assert_eq!(ticks(4.2, 310.0), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(ticks(3.0, 3.0), [2.0, 5.0]);
        assert_eq!(ticks(5.0, 5.0), [5.0]);
    }

    #[test]
    fn an_axis_maps_its_ends_and_powers_evenly() {
        let axis = Axis { scale: Scale::Logarithmic, values: (10.0, 1_000.0), pixels: (0.0, 200.0) };
        assert_eq!([10.0, 100.0, 1_000.0].map(|value| axis.place(value).round()), [0.0, 100.0, 200.0]);
        let axis = Axis { scale: Scale::Linear, values: (0.0, 4.0), pixels: (100.0, 0.0) };
        assert_eq!(axis.place(1.0), 75.0);
    }
}
