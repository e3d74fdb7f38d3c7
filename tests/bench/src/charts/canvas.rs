//! An SVG picture with colours for a light and a dark page.

use std::fmt::Write;

pub const WIDTH: f64 = 760.0;

/// Colours of series: on white, and on black.
const COLOURS: [(&str, &str); 6] = [
    ("#0a5cad", "#6cb6ff"),
    ("#b33f00", "#ffa657"),
    ("#1a7f37", "#7ee787"),
    ("#8250df", "#d2a8ff"),
    ("#9a0f4f", "#ff9bce"),
    ("#57606a", "#b1bac4"),
];

/// Dashes of series: they differ without colours too.
pub const DASHES: [&str; 6] = ["", "7 4", "2 3", "10 3 2 3", "4 2", "1 5"];

/// The side of a point on which a text stands.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that grows.
pub struct Canvas {
    body: String,
    height: f64,
}

impl Canvas {
    /// A picture with its title above and its command below.
    pub fn new(height: f64, title: &str, command: &str) -> Self {
        let mut canvas = Self { body: String::new(), height };
        canvas.text((20.0, 30.0), Anchor::Start, "title", title);
        canvas.text((20.0, height - 14.0), Anchor::Start, "command", command);
        canvas
    }

    /// A text; `class` names its style.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#
        );
    }

    pub fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" class="grid"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    /// The line of a series through its points, with a dot at each.
    pub fn series(&mut self, number: usize, points: &[(f64, f64)]) {
        let (colour, dash) = (number % COLOURS.len(), DASHES[number % DASHES.len()]);
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" class="line c{colour}" stroke-dasharray="{dash}"/>"#,
            path.join(" ")
        );
        for (x, y) in points {
            let _ =
                writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" class="fill c{colour}"/>"#);
        }
    }

    pub fn bar(&mut self, number: usize, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let colour = number % COLOURS.len();
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" class="fill c{colour}"/>"#
        );
    }

    /// The picture as a file. It has its own ground, so that a page of the other kind does not matter.
    pub fn svg(&self) -> String {
        let mut style = String::from(
            "text{font-family:system-ui,sans-serif;font-size:13px;fill:#1f2328}.title{font-size:17px;font-weight:600}\
             .command{font-family:ui-monospace,monospace;font-size:11px}.ground{fill:#fff;stroke:#d0d7de}\
             .grid{stroke:#d8dee4}.line{fill:none;stroke-width:2.2;stroke:var(--c)}.fill{fill:var(--c)}",
        );
        let mut dark =
            String::from("text{fill:#e6edf3}.ground{fill:#0d1117;stroke:#30363d}.grid{stroke:#30363d}");
        for (number, (light, on_dark)) in COLOURS.iter().enumerate() {
            let _ = write!(style, ".c{number}{{--c:{light}}}");
            let _ = write!(dark, ".c{number}{{--c:{on_dark}}}");
        }
        let (width, height) = (WIDTH, self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<style>{style}@media (prefers-color-scheme: dark){{{dark}}}</style>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" class=\"ground\"/>\n{}</svg>\n",
            width - 1.0,
            height - 1.0,
            self.body
        )
    }
}
