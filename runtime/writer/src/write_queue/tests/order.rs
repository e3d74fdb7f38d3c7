//! A write queue and a model of the spool, in random interleavings: the order of each device's lines.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::{Harness, LIMITS};
use crate::pending_lines::PendingLines;
use crate::testing::unlimited;
use crate::verdict::{LineRefusal, Verdict};
use crate::write_queue::WriteRequest;
use tidegate_core::books::Account;
use tidegate_core::durable::{
    Durable, DurableMessage, FrameLines, FrameName, MessageSet, Receipts, StreamPosition,
};
use tidegate_core::refused_lines::RefusedLine;
use tidegate_core::synced::Synced;

/// One frame of a model of the spool.
struct ModelFrame {
    /// Lines that are not settled, as places of the frame.
    open: Vec<usize>,
    /// The open lines that the writer has.
    queued: Vec<usize>,
    /// The device and the time of each line; its value is its rank among all lines.
    lines: Vec<(u32, i64, u64)>,
}

/// A spool of one stream, as far as the order of delivery goes.
#[derive(Default)]
struct ModelSpool {
    frames: Vec<ModelFrame>,
    returns: u32,
    values: u64,
}

#[derive(Clone)]
struct ModelReceipt {
    spool: Arc<Mutex<ModelSpool>>,
    frame: usize,
}

impl Receipts for ModelReceipt {
    fn lines_written(&self, _: FrameName<'_>, _: u64) {}
    fn lines_refused(&self, _: FrameName<'_>, _: u64) {}
    fn settled(&self, _: FrameName<'_>, messages: MessageSet, _: u32) {
        let frame = &mut self.spool.lock().frames[self.frame];
        frame.open.retain(|place| messages & 1 << place == 0);
        frame.queued.retain(|place| messages & 1 << place == 0);
    }
    fn returned(&self, _: FrameName<'_>, messages: MessageSet) -> u32 {
        let mut spool = self.spool.lock();
        spool.returns += 1;
        spool.frames[self.frame].queued.retain(|place| messages & 1 << place == 0);
        spool.returns
    }
    fn set_apart(&self, _: FrameName<'_>, _: MessageSet, _: usize) {}
}

struct Model {
    harness: Harness,
    spool: Arc<Mutex<ModelSpool>>,
    fetched: Option<(Vec<Arc<PendingLines>>, bool)>,
    under_way: Vec<WriteRequest>,
    /// The value of each point in the database.
    points: HashMap<(u32, i64), u64>,
    /// The last value of each point that was not refused.
    expected: HashMap<(u32, i64), u64>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Model {
    fn new() -> Self {
        let mut harness = Harness::new();
        let refused = Arc::<Mutex<Vec<String>>>::default();
        let sink = refused.clone();
        harness.sink = Arc::new(move |lines| {
            let text = |line: &RefusedLine| String::from_utf8(line.line.clone()).unwrap();
            sink.lock().extend(lines.lines.iter().map(text));
            (lines.on_durable)();
        });
        Self {
            harness,
            spool: Arc::default(),
            fetched: None,
            under_way: Vec::new(),
            points: Default::default(),
            expected: Default::default(),
            refused,
        }
    }

    fn pending(&self, frame: usize, wanted: &[usize], is_last: bool) -> Arc<PendingLines> {
        let spool = self.spool.lock();
        let (mut lines, mut messages, mut set) = (Vec::new(), Vec::new(), 0);
        for (place, (device, time, value)) in spool.frames[frame].lines.iter().enumerate() {
            lines.extend_from_slice(format!("m,d={device} v={value} {time}\n").as_bytes());
            set |= if wanted.contains(&place) { 1 << place } else { 0 };
            messages.push(DurableMessage {
                topic: "t".into(),
                received_ns: 0,
                lines_end: lines.len() as u32,
                line_count: 1,
                affinity: *device,
            });
        }
        let position = StreamPosition { stream: 0, number: frame as u64, returns: spool.returns, is_last };
        let frame_lines = FrameLines {
            database: "db".into(),
            account: Arc::new(Account::new("acme".into())),
            guest: "g".into(),
            lines,
            messages,
            wanted: set,
            overtakes: false,
            arrived: self.harness.now,
        };
        let receipt = ModelReceipt { spool: self.spool.clone(), frame };
        let durable = Durable::new(position, frame_lines, Arc::new(receipt), &Synced::by_setting_never());
        Arc::new(PendingLines::new(durable, unlimited().charge(0)))
    }

    /// A frame becomes durable; the writer gets it at once if nothing of the stream waits in front of it.
    fn commit(&mut self, lines: Vec<(u32, i64)>, at_once: bool) {
        let (frame, waits) = {
            let mut spool = self.spool.lock();
            let waits = spool.frames.iter().any(|frame| frame.queued.len() < frame.open.len());
            let mut valued = Vec::new();
            for (device, time) in lines {
                spool.values += 1;
                valued.push((device, time, spool.values));
                self.expected.insert((device, time), spool.values);
            }
            let places: Vec<usize> = (0..valued.len()).collect();
            let queued = if at_once && !waits { places.clone() } else { Vec::new() };
            spool.frames.push(ModelFrame { open: places, queued, lines: valued });
            (spool.frames.len() - 1, waits)
        };
        if at_once && !waits {
            let wanted = self.spool.lock().frames[frame].queued.clone();
            let pending = self.pending(frame, &wanted, true);
            let _ = self.harness.queue.push(&pending);
        }
    }

    fn begin_fetch(&mut self, frames: usize) {
        if self.fetched.is_some() {
            return;
        }
        self.harness.queue.begin_fetch();
        let mut chosen = Vec::new();
        {
            let mut spool = self.spool.lock();
            for (place, frame) in spool.frames.iter_mut().enumerate() {
                let wanted: Vec<usize> =
                    frame.open.iter().copied().filter(|line| !frame.queued.contains(line)).collect();
                if !wanted.is_empty() && chosen.len() < frames {
                    frame.queued.extend(&wanted);
                    chosen.push((place, wanted));
                }
            }
        }
        let more = self.spool.lock().frames.iter().any(|frame| frame.queued.len() < frame.open.len());
        let last = chosen.len().saturating_sub(1);
        let pending = chosen
            .iter()
            .enumerate()
            .map(|(n, (frame, wanted))| self.pending(*frame, wanted, n == last && !more))
            .collect();
        self.fetched = Some((pending, more));
    }

    fn end_fetch(&mut self) {
        if let Some((fetched, more)) = self.fetched.take() {
            self.harness.queue.end_fetch(fetched, more);
        }
    }

    fn send(&mut self) {
        self.harness.queue.flush_now();
        if let Some(request) = self.harness.queue.next_request(self.harness.now, &LIMITS, false) {
            self.under_way.push(request);
        }
    }

    /// Answers a request as a server of some kind that writes what it takes.
    fn answer(&mut self, which: usize, manner: u8) {
        if self.under_way.is_empty() {
            return;
        }
        let request = self.under_way.remove(which % self.under_way.len());
        let text = String::from_utf8(request.body.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        let point = |line: &str| {
            let parts: Vec<&str> = line.split([',', ' ']).collect();
            let device = number(&parts[1][2..]) as u32;
            ((device, parts[3].parse::<i64>().unwrap()), number(&parts[2][2..]))
        };
        let write = |points: &mut HashMap<_, _>, line: &str| {
            let (key, value) = point(line);
            points.insert(key, value);
        };
        // Every fifth value is one that this server has no room for, or cannot take, for now.
        let odd = |line: &str| point(line).1 % 5 == 0;
        let verdict = match manner {
            0 => Verdict::Retry { after: None, words: "503".into() },
            1 if lines.iter().any(|line| odd(line)) => {
                Verdict::Bisect { explained: false, words: "400 no".into() }
            }
            2 if lines.iter().any(|line| odd(line)) => {
                let limited = (0..lines.len() as u32).filter(|&n| odd(lines[n as usize]));
                let limited = limited.map(|line| LineRefusal { line, words: "limit".into() }).collect();
                lines.iter().filter(|line| !odd(line)).for_each(|line| write(&mut self.points, line));
                Verdict::Partial { refused: Vec::new(), limited }
            }
            3 if lines.iter().any(|line| odd(line)) => Verdict::ServerError { words: "500 no".into() },
            4 if lines.len() > 3 => Verdict::Split { words: "413".into() },
            _ => {
                lines.iter().for_each(|line| write(&mut self.points, line));
                Verdict::Accepted
            }
        };
        self.harness.apply_to(request.id, verdict);
        if self.harness.queue.holds_over(500) {
            self.harness.queue.return_all_it_can();
        }
    }

    /// Ends all that is open, with a server that takes everything.
    fn settle(&mut self) {
        self.end_fetch();
        for _ in 0..10_000 {
            while !self.under_way.is_empty() {
                self.answer(0, 9);
            }
            self.harness.now += Duration::from_secs(70);
            self.begin_fetch(3);
            self.end_fetch();
            self.send();
            let is_open = self.spool.lock().frames.iter().any(|frame| !frame.open.is_empty());
            if !is_open && self.under_way.is_empty() {
                return;
            }
        }
        panic!("it never ends: {} lines", self.harness.queue.lines_left());
    }
}

proptest! {
    /// Whatever fetches, evictions, deliveries, failures, probes and ceilings come in between: the last value
    /// of each point is the last that came, if it was not refused.
    #[test]
    fn the_last_value_of_a_point_stays_the_last(
        steps in proptest::collection::vec((0_u8..10, 0_u32..3, 0_i64..3, 0_u8..6, any::<bool>()), 1..120),
    ) {
        let mut model = Model::new();
        for (step, device, time, manner, flag) in steps {
            match step {
                0..=2 => {
                    let lines = (0..=i64::from(manner)).map(|n| ((device + n as u32) % 3, (time + n) % 3));
                    model.commit(lines.collect(), flag);
                }
                3 => model.begin_fetch(usize::from(manner) + 1),
                4 => model.end_fetch(),
                5 | 6 => model.send(),
                7 | 8 => model.answer(device as usize, manner),
                _ if flag => model.harness.queue.evict(),
                _ => model.harness.pass(2),
            }
        }
        model.settle();
        let refused: HashSet<String> = model.refused.lock().iter().cloned().collect();
        for ((device, time), value) in &model.expected {
            let line = |value: u64| format!("m,d={device} v={value} {time}");
            if refused.contains(&line(*value)) {
                continue;
            }
            prop_assert_eq!(model.points.get(&(*device, *time)), Some(value), "device {} at {}", device, time);
        }
    }
}
