//! The screen of the live view: head, charts, tables, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};
use serde_json::Value;

use crate::cli::spool::{bytes, duration};
use crate::cli::top::view::{Page, TopView};
use crate::cli::top::{charts, tables};
use crate::core::detail::printable;
use crate::core::route_key::file_name;

/// Rows of the screen from which charts have room beside a table, and the rows that they take.
const CHARTS_FROM_ROWS: u16 = 18;

const CHART_ROWS: u16 = 9;

/// Draws the page.
pub fn draw(frame: &mut Frame<'_>, view: &mut TopView) {
    let notice = notice(view);
    let [head, said, charts, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::from(notice.is_some())),
        Constraint::Length(if frame.area().height >= CHARTS_FROM_ROWS { CHART_ROWS } else { 0 }),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(head_line(view), head);
    if let Some(notice) = notice {
        frame.render_widget(notice, said);
    }
    if charts.height > 0 {
        match view.page {
            Page::Tenant => charts::draw_tenant(frame, charts, view),
            Page::Tenants | Page::Decoders => charts::draw_gateway(frame, charts, view),
        }
    }
    match view.page {
        Page::Tenants => tables::draw_tenants(frame, body, view),
        Page::Decoders => draw_decoders(frame, body, view),
        Page::Tenant => draw_tenant(frame, body, view),
    }
    frame.render_widget(key_line(view), keys);
}

/// The gateway in one line.
fn head_line(view: &TopView) -> Line<'static> {
    let overview = &view.answers.overview;
    let text = |key: &str| printable(overview[key].as_str().unwrap_or_default());
    let number = |key: &str| view.tenants.iter().map(|(_, row)| row[column(key)]).sum::<u64>();
    let is_ready = overview["ready"] == true;
    let mut spans = vec![
        Span::from(format!("Tidegate {} ", text("version"))).bold(),
        match is_ready {
            true => Span::from("ready").fg(Color::Green),
            false => Span::from("NOT READY").fg(Color::Red).bold(),
        },
        Span::from(format!(
            ", up {}; {} messages/s, {} lines wait; ",
            duration(overview["uptime_s"].as_u64().unwrap_or(0) * 1_000),
            number("received/s"),
            number("pending"),
        )),
        match view.answers.books["balanced"] == true {
            true => Span::from("the books balance"),
            false => Span::from("THE BOOKS DO NOT BALANCE").fg(Color::Red).bold(),
        },
    ];
    if let Some(memory) = view.answers.budgets["gateway"]["memory"]["used"].as_u64() {
        spans.push(Span::from(format!("; memory {}", bytes(memory))));
    }
    if view.is_paused {
        spans.push(Span::from("  paused").fg(Color::Yellow).bold());
    }
    Line::from(spans)
}

fn column(name: &str) -> usize {
    let columns = &crate::cli::top::figures::COLUMNS;
    columns.iter().position(|(_, _, heading)| *heading == name).unwrap_or_default()
}

/// The worst problem, if there is one.
fn notice(view: &TopView) -> Option<Line<'static>> {
    if let Some(fault) = &view.fault {
        return Some(Line::from(printable(fault)).fg(Color::Red).bold());
    }
    let problems = view.answers.overview["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let first = problems.first()?;
    let text = |key: &str| printable(first[key].as_str().unwrap_or_default());
    let more = match problems.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let line = Line::from(format!("{} {}: {}{more}", text("severity"), text("part"), text("what")));
    let colour = match first["severity"].as_str() {
        Some("error") => Color::Red,
        Some("warning") => Color::Yellow,
        _ => Color::Reset,
    };
    Some(line.fg(colour))
}

fn key_line(view: &TopView) -> Line<'static> {
    let shared = [("w", "window"), ("p", "pause"), ("q", "quit")];
    let own: &[(&str, &str)] = match view.page {
        Page::Tenants => &[("↑↓", "select"), ("Enter", "open"), ("Tab", "decoders"), ("s", "sort")],
        Page::Decoders => &[("↑↓", "select"), ("Enter", "open its tenant"), ("Tab", "tenants")],
        Page::Tenant => &[("↑↓", "devices"), ("Esc", "back")],
    };
    let keys = own.iter().chain(&shared).flat_map(|(key, does)| {
        [Span::styled(format!(" {key} "), Style::new().reversed()), Span::from(format!(" {does}  "))]
    });
    Line::from(keys.collect::<Vec<_>>())
}

/// The decoders, and below them why the selected one does not serve.
fn draw_decoders(frame: &mut Frame<'_>, area: Rect, view: &mut TopView) {
    let error = view.selected_decoder().and_then(|decoder| decoder.error.clone());
    let rows = if error.is_some() && area.height > 12 { 5 } else { 0 };
    let [table, below] = Layout::vertical([Constraint::Min(3), Constraint::Length(rows)]).areas(area);
    tables::draw_decoders(frame, table, view);
    if let (Some(error), 1..) = (error, rows) {
        let text = Paragraph::new(printable(&error)).wrap(Wrap { trim: true });
        frame.render_widget(text.block(Block::bordered().title(" why its file does not serve ")), below);
    }
}

/// The tenant that is open.
fn draw_tenant(frame: &mut Frame<'_>, area: Rect, view: &mut TopView) {
    let Some(name) = view.opened().map(str::to_owned) else { return };
    let [accounts, right] = Layout::horizontal([Constraint::Length(36), Constraint::Fill(1)]).areas(area);
    let text = Paragraph::new(account_lines(view, &name));
    frame.render_widget(
        text.block(Block::bordered().title(format!(" tenant {} ", printable(&name)))),
        accounts,
    );
    let folder = file_name(&name);
    let decoders = view.decoders.iter().filter(|decoder| decoder.tenant == folder).count() as u16;
    let [devices, own_decoders, databases] = Layout::vertical([
        Constraint::Min(4),
        Constraint::Length(decoders.min(5) + 3),
        Constraint::Length(4),
    ])
    .areas(right);
    tables::draw_devices(frame, devices, view);
    tables::draw_decoders_of(frame, own_decoders, view, &folder);
    tables::draw_databases_of(frame, databases, view, &name);
}

/// The books and budgets of a tenant.
fn account_lines(view: &TopView, name: &str) -> Vec<Line<'static>> {
    let books = &view.answers.books["tenants"][name];
    let mut lines = Vec::new();
    for section in ["messages", "lines", "quarantine"] {
        lines.push(Line::from(section).bold());
        for (key, value) in books[section].as_object().into_iter().flatten() {
            let value = value.to_string();
            lines.push(Line::from(format!("  {:<16}{value:>14}", key.replace('_', " "))));
        }
    }
    let nothing = Value::Null;
    let detail = view.answers.tenant.as_ref().filter(|tenant| tenant.name == name);
    let detail = detail.map_or(&nothing, |tenant| &tenant.detail);
    for resource in ["memory", "disk"] {
        let of = |value: &Value| bytes(value.as_u64().unwrap_or(0));
        let budget = &detail[resource];
        lines.push(
            Line::from(format!("{resource}: {} of {}", of(&budget["used"]), of(&budget["max"]))).bold(),
        );
        for (kind, used) in budget["kinds"].as_object().into_iter().flatten() {
            if used["used"].as_u64().unwrap_or(0) > 0 {
                lines.push(Line::from(format!("  {:<16}{:>14}", printable(kind), of(&used["used"]))));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::answers::Answers;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use serde_json::json;

    #[test]
    fn no_size_and_no_name_breaks_the_screen() {
        let hostile = "\u{1b}[2J\u{202e}".repeat(20);
        let answers = Answers {
            at: std::time::Instant::now(),
            books: json!({"balanced": false, "tenants": {hostile.clone(): {"messages": {"received": u64::MAX}}}}),
            spool: json!({"databases": [{"tenant": hostile, "database": hostile, "last_answer": hostile}]}),
            budgets: Value::Null,
            overview: json!({"now_ms": -1, "problems": [{"what": hostile}]}),
            guests: json!({"guests": [{"tenant": hostile, "type": hostile, "error": hostile}]}),
            history: json!({"at_s": [1, 2], "messages_per_s": [1e300, null], "ack_p99_ms": [0]}),
            tenant: None,
        };
        for (columns, rows) in [(1, 1), (20, 3), (40, 10), (80, 24), (200, 60)] {
            let mut view = TopView::new(answers.clone());
            let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
            for code in
                [KeyCode::Null, KeyCode::Tab, KeyCode::Down, KeyCode::Tab, KeyCode::Enter, KeyCode::End]
            {
                view.press(&KeyEvent::new(code, KeyModifiers::NONE));
                terminal.draw(|frame| draw(frame, &mut view)).unwrap();
            }
            assert_eq!(view.page, Page::Tenant);
            let shown = terminal.backend().to_string();
            assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
        }
    }
}
