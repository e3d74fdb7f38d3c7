//! The state of the live view: the last answers, the page, what is selected, and what keys do.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;

use crate::cli::top::answers::Answers;
use crate::cli::top::decoders::{self, DecoderFigures};
use crate::cli::top::figures::{COLUMNS, counts, shown};

/// Rows that a page key moves by.
const PAGE_ROWS: u16 = 10;

/// Own samples of an open tenant: an hour of one a second.
const SAMPLES_MAX: usize = 3_600;

/// A page of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Tenants,
    Decoders,
    /// One tenant.
    Tenant,
}

/// The part of the history that charts show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    TenMinutes,
    Hour,
}

impl Window {
    pub fn seconds(self) -> f64 {
        match self {
            Self::TenMinutes => 600.0,
            Self::Hour => 3_600.0,
        }
    }
}

/// The consequence of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Nothing,
    Quit,
    /// Another tenant is open, or none.
    Look,
}

/// A tenant with the figures of its columns.
pub type TenantRow = (String, [u64; COLUMNS.len()]);

/// One moment of an open tenant.
#[derive(Clone, Copy, Debug)]
pub struct TenantMoment {
    pub at_s: f64,
    pub messages_per_s: f64,
    pub refused_per_s: f64,
    pub written_per_s: f64,
}

/// The live view.
pub struct TopView {
    pub answers: Answers,
    pub tenants: Vec<TenantRow>,
    pub decoders: Vec<DecoderFigures>,
    /// The reason why there are no newer answers.
    pub fault: Option<String>,
    pub page: Page,
    /// The page to go back to.
    back: Page,
    opened: Option<String>,
    /// The column by which tenants are sorted.
    pub sort: usize,
    pub window: Window,
    pub is_paused: bool,
    pub moments: VecDeque<TenantMoment>,
    pub tenants_table: TableState,
    pub decoders_table: TableState,
    pub devices_table: TableState,
}

impl TopView {
    /// A view of the first answers; there are no rates yet.
    pub fn new(answers: Answers) -> Self {
        let mut view = Self {
            tenants: Vec::new(),
            decoders: Vec::new(),
            fault: None,
            page: Page::Tenants,
            back: Page::Tenants,
            opened: None,
            sort: 0,
            window: Window::TenMinutes,
            is_paused: false,
            moments: VecDeque::new(),
            tenants_table: TableState::default().with_selected(0),
            decoders_table: TableState::default().with_selected(0),
            devices_table: TableState::default().with_selected(0),
            answers: answers.clone(),
        };
        view.show(answers, Duration::from_secs(1));
        view
    }

    /// The tenant that is open.
    pub fn opened(&self) -> Option<&str> {
        self.opened.as_deref()
    }

    /// Takes answers, or the fault in their place.
    pub fn update(&mut self, answers: anyhow::Result<Answers>) {
        match answers {
            Ok(_) if self.is_paused => {}
            Ok(answers) => {
                self.fault = None;
                let took = answers.at.saturating_duration_since(self.answers.at);
                self.show(answers, took.max(Duration::from_millis(1)));
            }
            Err(error) => self.fault = Some(format!("{error:#}")),
        }
    }

    fn show(&mut self, answers: Answers, took: Duration) {
        let before = counts(&self.answers.books, &self.answers.budgets);
        let decoded = decoders::messages(&self.answers.guests);
        let now = counts(&answers.books, &answers.budgets);
        let selected = self.selected_tenant().map(str::to_owned);
        self.tenants =
            shown(&before, &now, took).into_iter().map(|(name, row)| (name.clone(), row)).collect();
        self.decoders = decoders::figures(&answers.guests, &decoded, took);
        self.answers = answers;
        self.sort_tenants(selected.as_deref());
        if let Some(name) = self.opened() {
            let row = self.tenants.iter().find(|(tenant, _)| tenant == name).map(|(_, row)| *row);
            let [received, refused, written, ..] = row.unwrap_or_default().map(|number| number as f64);
            self.moments.push_back(TenantMoment {
                at_s: self.answers.now_s(),
                messages_per_s: received,
                refused_per_s: refused,
                written_per_s: written,
            });
            if self.moments.len() > SAMPLES_MAX {
                self.moments.pop_front();
            }
        }
    }

    /// Sorts tenants by the column; the one that is selected stays so.
    fn sort_tenants(&mut self, selected: Option<&str>) {
        let sort = self.sort;
        self.tenants.sort_by(|a, b| b.1[sort].cmp(&a.1[sort]).then_with(|| a.0.cmp(&b.0)));
        // The first row is selected by nobody: it is the busiest one, whichever that is.
        if let (Some(name), Some(1..)) = (selected, self.tenants_table.selected()) {
            let place = self.tenants.iter().position(|(tenant, _)| tenant == name);
            self.tenants_table.select(Some(place.unwrap_or(0)));
        }
    }

    fn selected_tenant(&self) -> Option<&str> {
        self.tenants.get(self.tenants_table.selected()?).map(|(name, _)| name.as_str())
    }

    /// The decoder that is selected.
    pub fn selected_decoder(&self) -> Option<&DecoderFigures> {
        self.decoders.get(self.decoders_table.selected()?)
    }

    /// Does what a key says.
    pub fn press(&mut self, key: &KeyEvent) -> Command {
        if key.kind == KeyEventKind::Release {
            return Command::Nothing;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Command::Quit,
            KeyCode::Char('q') => return Command::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.page == Page::Tenant => {
                self.page = self.back;
                self.opened = None;
                return Command::Look;
            }
            KeyCode::Enter | KeyCode::Right => return self.open(),
            KeyCode::Tab | KeyCode::BackTab => {
                self.page = match self.page {
                    Page::Tenants => Page::Decoders,
                    Page::Decoders => Page::Tenants,
                    Page::Tenant => Page::Tenant,
                };
            }
            KeyCode::Up | KeyCode::Char('k') => self.table().select_previous(),
            KeyCode::Down | KeyCode::Char('j') => self.table().select_next(),
            KeyCode::PageUp => self.table().scroll_up_by(PAGE_ROWS),
            KeyCode::PageDown => self.table().scroll_down_by(PAGE_ROWS),
            KeyCode::Home => self.table().select_first(),
            KeyCode::End => self.table().select_last(),
            KeyCode::Char('s') => {
                self.sort = (self.sort + 1) % COLUMNS.len();
                self.sort_tenants(None);
            }
            KeyCode::Char('w') => {
                self.window = match self.window {
                    Window::TenMinutes => Window::Hour,
                    Window::Hour => Window::TenMinutes,
                };
            }
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            _ => {}
        }
        Command::Nothing
    }

    /// The table of the page.
    fn table(&mut self) -> &mut TableState {
        match self.page {
            Page::Tenants => &mut self.tenants_table,
            Page::Decoders => &mut self.decoders_table,
            Page::Tenant => &mut self.devices_table,
        }
    }

    /// Opens the tenant of the row that is selected.
    fn open(&mut self) -> Command {
        let name = match self.page {
            Page::Tenants => self.selected_tenant().map(str::to_owned),
            Page::Decoders => {
                let folder = self.selected_decoder().map(|decoder| decoder.tenant.as_str());
                folder.and_then(crate::core::route_key::name_of)
            }
            Page::Tenant => None,
        };
        let Some(name) = name else { return Command::Nothing };
        self.back = self.page;
        self.page = Page::Tenant;
        self.moments.clear();
        self.devices_table = TableState::default().with_selected(0);
        self.opened = Some(name);
        Command::Look
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::Instant;

    fn answers(at: Instant, received: [u64; 2]) -> Answers {
        let books = |received: u64| json!({"messages": {"received": received, "quarantined": 1}});
        Answers {
            at,
            books: json!({"tenants": {"acme": books(received[0]), "globex": books(received[1])}}),
            spool: Value::Null,
            budgets: Value::Null,
            overview: json!({"now_ms": 1_000}),
            guests: json!({"guests": [{"tenant": "globex", "type": "t", "messages": 1},
                {"tenant": "_default", "type": "t", "messages": 1}]}),
            history: Value::Null,
            tenant: None,
        }
    }

    fn press(view: &mut TopView, code: KeyCode) -> Command {
        view.press(&KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn names(view: &TopView) -> Vec<&str> {
        view.tenants.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn rates_are_between_two_answers_and_a_pause_or_a_fault_keeps_the_last() {
        let began = Instant::now();
        let mut view = TopView::new(answers(began, [10, 10]));
        assert_eq!(view.tenants[0].1[0], 0, "one answer has no rate");
        view.update(Ok(answers(began + Duration::from_secs(2), [14, 210])));
        assert_eq!((names(&view), view.tenants[0].1[0]), (vec!["globex", "acme"], 100));
        view.update(Err(anyhow::anyhow!("nobody answers")));
        assert_eq!((view.fault.as_deref(), view.tenants[0].1[0]), (Some("nobody answers"), 100));
        press(&mut view, KeyCode::Char('p'));
        view.update(Ok(answers(began + Duration::from_secs(4), [1_014, 210])));
        assert_eq!(names(&view), ["globex", "acme"]);
        press(&mut view, KeyCode::Char('p'));
        view.update(Ok(answers(began + Duration::from_secs(6), [1_014, 210])));
        assert_eq!(
            (names(&view), view.tenants[0].1[0], view.fault.as_deref()),
            (vec!["acme", "globex"], 250, None)
        );
    }

    #[test]
    fn keys_open_a_tenant_and_go_back() {
        let mut view = TopView::new(answers(Instant::now(), [2, 1]));
        assert_eq!(press(&mut view, KeyCode::Down), Command::Nothing);
        assert_eq!(press(&mut view, KeyCode::Enter), Command::Look);
        assert_eq!((view.page, view.opened()), (Page::Tenant, Some("globex")));
        assert_eq!(press(&mut view, KeyCode::Esc), Command::Look);
        assert_eq!((view.page, view.opened()), (Page::Tenants, None));
        press(&mut view, KeyCode::Tab);
        // Decoders of all tenants belong to none.
        assert_eq!((view.page, press(&mut view, KeyCode::Enter)), (Page::Decoders, Command::Nothing));
        press(&mut view, KeyCode::Down);
        assert_eq!(press(&mut view, KeyCode::Enter), Command::Look);
        assert_eq!(view.opened(), Some("globex"));
        press(&mut view, KeyCode::Backspace);
        assert_eq!((view.page, press(&mut view, KeyCode::Char('q'))), (Page::Decoders, Command::Quit));
    }

    #[test]
    fn the_tenant_that_is_selected_stays_so_when_the_order_changes() {
        let began = Instant::now();
        let mut view = TopView::new(answers(began, [0, 0]));
        press(&mut view, KeyCode::Down);
        assert_eq!(view.selected_tenant(), Some("globex"));
        view.update(Ok(answers(began + Duration::from_secs(1), [0, 50])));
        assert_eq!((names(&view), view.selected_tenant()), (vec!["globex", "acme"], Some("globex")));
    }
}
