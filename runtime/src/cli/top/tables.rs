//! Tables of the live view: tenants, decoders, and the databases and devices of one tenant.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Row, Table, TableState};
use serde_json::Value;

use crate::cli::spool::{bytes, duration};
use crate::cli::top::charts::short;
use crate::cli::top::decoders::DecoderFigures;
use crate::cli::top::figures::COLUMNS;
use crate::cli::top::view::TopView;
use crate::core::detail::printable;

/// Columns that a table of tenants has where not all fit: the first of them.
const NUMBER_COLUMNS: u16 = 12;

fn left(text: &str) -> Cell<'static> {
    Cell::from(printable(text))
}

fn right(text: impl ToString) -> Cell<'static> {
    Cell::from(Line::from(text.to_string()).right_aligned())
}

fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    (title, head): (&str, Row<'static>),
    (rows, widths): (Vec<Row<'static>>, Vec<Constraint>),
    state: &mut TableState,
) {
    let table = Table::new(rows, widths)
        .header(head.bold())
        .row_highlight_style(Style::new().reversed())
        .block(Block::bordered().title(format!(" {title} ")));
    frame.render_stateful_widget(table, area, state);
}

/// Draws all tenants, sorted by the column that is marked.
pub(super) fn draw_tenants(frame: &mut Frame<'_>, area: Rect, view: &mut TopView) {
    let fitting = usize::from(area.width.saturating_sub(18) / (NUMBER_COLUMNS + 1)).clamp(1, COLUMNS.len());
    let heading = |column: usize| {
        let name = COLUMNS[column].2;
        right(if column == view.sort { format!("{name}▼") } else { name.to_owned() })
    };
    let head = Row::new(std::iter::once(left("tenant")).chain((0..fitting).map(heading)));
    let rows = view.tenants.iter().map(|(name, numbers)| {
        let cells = numbers.iter().take(fitting).map(right);
        let row = Row::new(std::iter::once(left(name)).chain(cells));
        if numbers[1] > 0 { row.fg(Color::Red) } else { row }
    });
    let mut widths = vec![Constraint::Min(14)];
    widths.extend(vec![Constraint::Length(NUMBER_COLUMNS); fitting]);
    let title = format!("tenants: {}", view.tenants.len());
    let rows = rows.collect();
    draw(frame, area, (&title, head), (rows, widths), &mut view.tenants_table);
}

/// The head of decoders, and the widths of their columns.
fn decoder_columns() -> (Row<'static>, Vec<Constraint>) {
    let head = Row::new([
        left("tenant"),
        left("type"),
        left("state"),
        right("messages/s"),
        right("CPU µs"),
        right("failures"),
        left("decoder"),
    ]);
    let widths = [14, 14, 8, 10, 9, 9].map(Constraint::Length);
    (head, widths.into_iter().chain([Constraint::Fill(1)]).collect())
}

fn decoder_row(decoder: &DecoderFigures) -> Row<'static> {
    let row = Row::new([
        left(&decoder.tenant),
        left(&decoder.message_type),
        left(&decoder.state),
        right(decoder.messages_per_s),
        right(decoder.cpu_us.map_or_else(|| "-".into(), short)),
        right(decoder.failures),
        left(&decoder.guest),
    ]);
    if decoder.error.is_some() { row.fg(Color::Red) } else { row }
}

/// Draws all decoders.
pub(super) fn draw_decoders(frame: &mut Frame<'_>, area: Rect, view: &mut TopView) {
    let (head, widths) = decoder_columns();
    let rows = view.decoders.iter().map(decoder_row).collect();
    let title = format!("decoders: {}", view.decoders.len());
    draw(frame, area, (&title, head), (rows, widths), &mut view.decoders_table);
}

/// Draws the decoders of the folder of a tenant.
pub(super) fn draw_decoders_of(frame: &mut Frame<'_>, area: Rect, view: &TopView, folder: &str) {
    let (head, widths) = decoder_columns();
    let own = view.decoders.iter().filter(|decoder| decoder.tenant == folder);
    let rows: Vec<Row<'static>> = own.map(decoder_row).collect();
    let title = match rows.len() {
        0 => "no decoders of its own".to_owned(),
        many => format!("decoders of its own: {many}"),
    };
    draw(frame, area, (&title, head), (rows, widths), &mut TableState::default());
}

/// Draws the databases with lines of a tenant.
pub(super) fn draw_databases_of(frame: &mut Frame<'_>, area: Rect, view: &TopView, tenant: &str) {
    let all = view.answers.spool["databases"].as_array().into_iter().flatten();
    let own = all.filter(|database| database["tenant"] == tenant);
    let head =
        Row::new([left("database"), right("lines"), right("bytes"), right("oldest"), left("last answer")]);
    let rows = own.map(|database| {
        let number = |key: &str| database[key].as_u64().unwrap_or(0);
        let text = |key: &str| database[key].as_str().unwrap_or_default();
        let row = Row::new([
            left(text("database")),
            right(number("lines")),
            right(bytes(number("bytes"))),
            right(duration(number("oldest_age_ms"))),
            left(text("last_answer")),
        ]);
        if matches!(text("state"), "" | "well") { row } else { row.fg(Color::Red) }
    });
    let rows: Vec<Row<'static>> = rows.collect();
    let title = if rows.is_empty() { "no lines wait for a database" } else { "its databases" };
    let widths = vec![
        Constraint::Length(26),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    draw(frame, area, (title, head), (rows, widths), &mut TableState::default());
}

/// Draws the devices of the tenant that is open, those that were seen last first.
pub(super) fn draw_devices(frame: &mut Frame<'_>, area: Rect, view: &mut TopView) {
    let nothing = Value::Null;
    let answer = view.answers.tenant.as_ref().map_or(&nothing, |tenant| &tenant.devices);
    let now_ms = view.answers.now_s() * 1_000.0;
    let head =
        Row::new([left("device"), left("site"), right("last seen"), right("messages"), right("in a minute")]);
    let rows: Vec<Row<'static>> = answer["devices"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|device| {
            let text = |key: &str| device[key].as_str().unwrap_or_default();
            let seen = device["last_seen_ms"].as_f64().map(|seen_ms| {
                let age = Duration::from_secs_f64((now_ms - seen_ms).max(0.0) / 1_000.0);
                format!("{} ago", duration(age.as_millis() as u64))
            });
            let row = Row::new([
                left(text("device")),
                left(text("site")),
                right(seen.unwrap_or_else(|| "-".into())),
                right(&device["messages"]),
                right(&device["messages_last_minute"]),
            ]);
            if device["active"] == false { row.fg(Color::Red) } else { row }
        })
        .collect();
    let more = answer["more"].as_u64().unwrap_or(0);
    let title = match more {
        0 => format!("devices: {}", rows.len()),
        more => format!("devices: {}, and {more} more", rows.len()),
    };
    let widths = vec![
        Constraint::Min(16),
        Constraint::Length(14),
        Constraint::Length(14),
        Constraint::Length(10),
        Constraint::Length(12),
    ];
    draw(frame, area, (&title, head), (rows, widths), &mut view.devices_table);
}
