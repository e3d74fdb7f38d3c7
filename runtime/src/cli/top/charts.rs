//! Charts of the history: messages, PUBACK latency and backlog of the gateway, and messages of one tenant.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType};
use serde_json::Value;

use crate::cli::spool::duration;
use crate::cli::top::view::{TopView, Window};

/// Columns below which a chart says nothing.
const CHART_COLUMNS_MIN: u16 = 30;

/// The shortest time that a chart shows, in seconds.
const SPAN_S_MIN: f64 = 60.0;

/// One line of a chart.
struct Series {
    name: &'static str,
    colour: Color,
    /// Seconds before now, below zero, and values.
    points: Vec<(f64, f64)>,
}

impl Series {
    /// A column of a history; what is `null` is left out.
    fn of_column(history: &Value, key: &str, now_s: f64, (name, colour): (&'static str, Color)) -> Self {
        let column = |key: &str| history[key].as_array().into_iter().flatten();
        let points = column("at_s")
            .zip(column(key))
            .filter_map(|(at_s, value)| Some((at_s.as_f64()? - now_s, value.as_f64()?)))
            .collect();
        Self { name, colour, points }
    }

    fn last(&self) -> Option<f64> {
        self.points.last().map(|(_, value)| *value)
    }
}

/// Draws the charts of the gateway, as many as there is room for.
pub(super) fn draw_gateway(frame: &mut Frame<'_>, area: Rect, view: &TopView) {
    let (history, now_s) = (&view.answers.history, view.answers.now_s());
    let series = |key: &str, name, colour| Series::of_column(history, key, now_s, (name, colour));
    let messages = vec![
        series("messages_per_s", "received", Color::Cyan),
        series("refused_per_s", "refused", Color::Red),
        series("written_per_s", "written", Color::Green),
    ];
    let latency = vec![series("ack_p50_ms", "p50", Color::Green), series("ack_p99_ms", "p99", Color::Yellow)];
    let backlog = vec![series("backlog_lines", "lines", Color::Magenta)];
    let age_s = series("backlog_age_s", "age", Color::Reset).last().unwrap_or_default();
    let age = Span::from(format!(", oldest {} ", duration((age_s * 1_000.0) as u64)));
    let titles = [
        title(" messages/s: ", &messages, " "),
        title(" ms to PUBACK: ", &latency, " "),
        title(" backlog: ", &backlog, "") + age,
    ];
    let fitting = usize::from(area.width / CHART_COLUMNS_MIN).clamp(1, titles.len());
    let areas = Layout::horizontal(vec![Constraint::Fill(1); fitting]).split(area);
    let charts = titles.into_iter().zip([messages, latency, backlog]);
    for (area, (title, series)) in areas.iter().zip(charts) {
        draw(frame, *area, title, &series, view.window);
    }
}

/// Draws the chart of the tenant that is open: its history, and behind it what was seen since it is open.
pub(super) fn draw_tenant(frame: &mut Frame<'_>, area: Rect, view: &TopView) {
    let now_s = view.answers.now_s();
    let nothing = Value::Null;
    let history = view.answers.tenant.as_ref().map_or(&nothing, |tenant| &tenant.history);
    let seen_from = view.moments.front().map_or(0.0, |moment| moment.at_s - now_s);
    let mut all = [
        Series::of_column(history, "messages_per_s", now_s, ("received", Color::Cyan)),
        Series::of_column(history, "written_per_s", now_s, ("written", Color::Green)),
        Series::of_column(history, "refused_per_s", now_s, ("refused", Color::Red)),
    ];
    for series in &mut all {
        series.points.retain(|(at, _)| *at < seen_from);
    }
    for moment in &view.moments {
        let values = [moment.messages_per_s, moment.written_per_s, moment.refused_per_s];
        for (series, value) in all.iter_mut().zip(values) {
            series.points.push((moment.at_s - now_s, value));
        }
    }
    let title = title(" per second: ", &all, " ");
    draw(frame, area, title, &all, view.window);
}

/// The last value of each line, in its colour: a legend too.
fn title(begin: &'static str, all: &[Series], end: &'static str) -> Line<'static> {
    let mut spans = vec![Span::from(begin)];
    for series in all {
        let last = series.last().map_or_else(|| "-".to_owned(), short);
        let comma = if spans.len() > 1 { ", " } else { "" };
        spans.push(Span::from(comma));
        spans.push(Span::from(format!("{last} {}", series.name)).fg(series.colour));
    }
    spans.push(Span::from(end));
    Line::from(spans)
}

fn draw(frame: &mut Frame<'_>, area: Rect, title: Line<'static>, all: &[Series], window: Window) {
    // As long as there are samples, so that a gateway that has just started has a chart.
    let oldest = all.iter().filter_map(|series| series.points.first()).map(|(at, _)| *at).fold(0.0, f64::min);
    let begin = oldest.clamp(-window.seconds(), -SPAN_S_MIN);
    let in_window = |(at, value): &(f64, f64)| (*at >= begin).then_some(*value);
    let most = all.iter().flat_map(|series| series.points.iter().filter_map(in_window)).fold(0.0, f64::max);
    // Something above the highest point; a chart of nothing has a scale too.
    let top = (most * 1.1).max(1.0);
    let datasets = all.iter().map(|series| {
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(series.colour))
            .data(&series.points)
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::bordered().title(title))
        .x_axis(
            Axis::default()
                .bounds([begin, 0.0])
                .labels([format!("-{}", duration((-begin * 1_000.0) as u64)), "now".into()]),
        )
        .y_axis(Axis::default().bounds([0.0, top]).labels([Line::from("0"), Line::from(short(top))]))
        .legend_position(None);
    frame.render_widget(chart, area);
}

/// A number in few characters.
pub(super) fn short(number: f64) -> String {
    match number {
        0.0 => "0".into(),
        number if number < 10.0 && number.fract() > 0.0 => format!("{number:.1}"),
        number if number < 10_000.0 => format!("{number:.0}"),
        number if number < 10_000_000.0 => format!("{:.0}k", number / 1e3),
        number => format!("{:.0}M", number / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_column_becomes_points_before_now_without_its_gaps() {
        let history = json!({"at_s": [90, 95, 100], "ack_p99_ms": [1.5, null, 3.0]});
        let series = Series::of_column(&history, "ack_p99_ms", 100.0, ("p99", Color::Reset));
        assert_eq!((series.points.as_slice(), series.last()), (&[(-10.0, 1.5), (0.0, 3.0)][..], Some(3.0)));
        assert_eq!(Series::of_column(&Value::Null, "x", 1.0, ("x", Color::Reset)).last(), None);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 8.0, 12.6, 9_999.0, 12_345.0, 2e7].map(short);
        assert_eq!(shown, ["0", "0.2", "8", "13", "9999", "12k", "20M"]);
    }
}
