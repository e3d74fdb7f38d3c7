//! One database's way to its output: what waits, what is under way, and when the next try is.
//! Pure: time and randomness are passed in. One request at a time, so a device's lines are
//! written in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::domain::limits;

use super::backoff::{Backoff, Waits};
use super::batcher::{Backlog, BatchLimits, Due};
use super::load::Load;
use super::verdict::{Fault, Scope, Verdict};
use super::work::{Outlet, Progress, Strikes, Work};

/// What to do next.
#[derive(Debug)]
pub enum Step {
    Idle,
    /// Nothing before this moment, unless lines come or are pressed for.
    Wait(Instant),
    Send(Shipment),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// Each line ended by a newline.
    pub body: Bytes,
    pub lines: u32,
    pub plain: bool,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    Retry { words: String, wait: Duration },
    Pause { scope: Scope, fault: Fault, words: String, wait: Duration },
}

/// What an answer brought about.
#[derive(Debug, Default)]
pub struct Applied {
    pub progress: Progress,
    pub trouble: Option<Trouble>,
    /// Lines that meet a ceiling of the server and wait apart from the others.
    pub limited: u64,
}

#[derive(Default)]
pub struct Lane {
    pub backlog: Backlog,
    work: Option<Work>,
    /// Work that met a ceiling of the server, and when it is tried again.
    parked: VecDeque<(Instant, Work)>,
    not_before: Option<Instant>,
    backoff: Backoff,
    catch_up: bool,
    strikes: Strikes,
    /// Connections that broke in a row under a large body.
    broken: u32,
}

impl Lane {
    pub fn push(&mut self, load: Arc<Load>) {
        self.backlog.push(load);
    }

    /// Whether a request could be made of the backlog at once, if one were looked for.
    pub fn is_ready(&self, now: Instant, limits: &BatchLimits) -> bool {
        self.work.is_none() && self.not_before.is_none() && self.backlog.due(now, limits) == Due::Now
    }

    /// `at_once`: waits of the backlog and of failed tries count for nothing, once.
    pub fn step(&mut self, now: Instant, limits: &BatchLimits, at_once: bool) -> Step {
        if let Some(not_before) = self.not_before
            && now < not_before
            && !at_once
        {
            return Step::Wait(not_before);
        }
        self.not_before = None;
        if self.work.is_none() && self.parked.front().is_some_and(|(due, _)| now >= *due || at_once) {
            self.work = self.parked.pop_front().map(|(_, work)| work);
        }
        if self.work.is_none() {
            let due =
                if at_once && !self.backlog.is_empty() { Due::Now } else { self.backlog.due(now, limits) };
            let parked = self.parked.front().map(|(due, _)| *due);
            match (due, parked) {
                (Due::Never, None) => return Step::Idle,
                (Due::Never, Some(parked)) => return Step::Wait(parked),
                (Due::At(due), parked) => return Step::Wait(parked.map_or(due, |parked| due.min(parked))),
                (Due::Now, _) => {
                    self.work = Some(Work::new(self.backlog.take(now, limits, self.catch_up)));
                    self.catch_up = false;
                }
            }
        }
        let work = self.work.as_mut().expect("just made");
        let (body, lines) = work.body();
        Step::Send(Shipment { body, lines, plain: work.plain })
    }

    /// The answer to the last shipment.
    ///
    /// # Panics
    /// When nothing was shipped.
    pub fn apply(
        &mut self,
        now: Instant,
        verdict: Verdict,
        answer: &[u8],
        outlet: &Outlet,
        waits: &Waits,
        random: u32,
    ) -> Applied {
        let work = self.work.as_mut().expect("an answer is to a shipment");
        let mut applied = Applied::default();
        let mut retry = None;
        match verdict {
            Verdict::Accepted => applied.progress = work.accept(outlet, &mut self.strikes),
            Verdict::Partial { refused, limited } => {
                let (progress, parked) = work.accept_partly(refused, limited, outlet, &mut self.strikes);
                applied.progress = progress;
                if let Some(parked) = parked {
                    applied.limited = parked.lines_left();
                    self.parked.push_back((now + waits.pause(random), parked));
                }
            }
            Verdict::ResendWithout(fault) => applied.progress = work.resend_without(fault, outlet),
            Verdict::Bisect { explained, words } => {
                applied.progress = work.bisect(explained, words, answer, outlet, &mut self.strikes);
            }
            Verdict::Split { words } => applied.progress = work.split(words, outlet),
            Verdict::SendPlain { words } if work.plain => {
                applied.progress = work.bisect(false, words, answer, outlet, &mut self.strikes);
            }
            Verdict::SendPlain { .. } => work.plain = true,
            Verdict::Retry { after, words } => {
                let wait = self.backoff.fail(waits, after, random);
                retry = Some(Trouble::Retry { words, wait });
            }
            Verdict::Pause { scope, fault, words } => {
                self.backoff.fail(waits, None, random);
                retry = Some(Trouble::Pause { scope, fault, words, wait: waits.pause(random) });
            }
        }
        if let Some(words) = applied.progress.request_at_fault.take() {
            let (scope, fault) = (Scope::Database, Fault::BadRequest);
            retry = Some(Trouble::Pause { scope, fault, words, wait: waits.pause(random) });
        }
        if self.work.as_ref().is_some_and(Work::is_done) {
            self.work = None;
        }
        match &retry {
            Some(Trouble::Retry { wait, .. } | Trouble::Pause { wait, .. }) => {
                self.not_before = Some(now + *wait);
                self.catch_up = true;
            }
            None => self.backoff.succeed(),
        }
        self.broken = 0;
        applied.trouble = retry;
        applied
    }

    /// No answer came. `broken`: the connection ended while the body was sent.
    pub fn fail(
        &mut self,
        now: Instant,
        broken: bool,
        words: String,
        outlet: &Outlet,
        waits: &Waits,
        random: u32,
    ) -> Applied {
        let large = self.work.as_mut().is_some_and(|work| work.body().0.len() > limits::SUSPECT_BODY_BYTES);
        let count = if broken && large { self.broken + 1 } else { 0 };
        let verdict = match count {
            2.. => Verdict::Split { words },
            _ => Verdict::Retry { after: None, words },
        };
        let applied = self.apply(now, verdict, &[], outlet, waits, random);
        self.broken = if count < 2 { count } else { 0 };
        applied
    }

    /// Holds the next try back, without counting a failure.
    pub fn hold(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    pub fn next_try(&self) -> Option<Instant> {
        self.not_before
    }

    /// Lines that wait or are under way.
    pub fn lines_left(&self) -> u64 {
        let works = self.work.iter().chain(self.parked.iter().map(|(_, work)| work));
        self.backlog.lines() + works.map(Work::lines_left).sum::<u64>()
    }

    /// Bytes of lines that wait or are under way.
    pub fn bytes_left(&self) -> u64 {
        let works = self.work.iter().chain(self.parked.iter().map(|(_, work)| work));
        let segments = works.flat_map(Work::segments);
        self.backlog.bytes() as u64 + segments.map(|segment| segment.bytes.len() as u64).sum::<u64>()
    }

    /// When the line came that waits longest.
    pub fn oldest(&self) -> Option<Instant> {
        let works = self.work.iter().chain(self.parked.iter().map(|(_, work)| work));
        let segments = works.flat_map(Work::segments).map(|segment| segment.load.arrived);
        segments.chain(self.backlog.oldest()).min()
    }
}

#[cfg(test)]
mod tests;
