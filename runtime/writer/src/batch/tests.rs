//! A batch against databases that refuse some lines, each in the manner of one product.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use proptest::prelude::*;

use crate::backlog::{Backlog, BatchLimits};
use crate::batch::bisect::RangeRefusal;
use crate::batch::{Batch, RefusedSink, RepeatedRefusals};
use crate::delayed_lines::{DelayReason, DelayedLine};
use crate::pending_lines::{PendingLines, RefusedLinesSink};
use crate::settings::ServerKind;
use crate::testing::{pending_lines, unlimited};
use crate::verdict::{EndpointResponse, LineRefusal, Verdict, verdict};
use tidegate_core::ids::DatabaseName;
use tidegate_core::refused_lines::RefusedLines;

#[derive(Default)]
struct Recorded {
    written: u64,
    refused_durable: u64,
    settled: Vec<usize>,
    refused: BTreeSet<String>,
    answers: Vec<String>,
}

/// The way in which a database tells that lines are bad.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    V3Partial,
    V3Object,
    V1Quoted,
    V2Quoted,
    /// Bad lines are not recorded; the good ones are written all the same.
    V1Unnamed,
    Html,
    TooLarge,
}

const MANNERS: [Manner; 7] = [
    Manner::V3Partial,
    Manner::V3Object,
    Manner::V1Quoted,
    Manner::V2Quoted,
    Manner::V1Unnamed,
    Manner::Html,
    Manner::TooLarge,
];

fn answer(manner: Manner, body: &[u8]) -> (ServerKind, EndpointResponse) {
    let text = std::str::from_utf8(body).unwrap();
    let bad: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| line.starts_with("bad")).collect();
    let answered = |status, body: String| EndpointResponse {
        status,
        retry_after: None,
        location: None,
        body: body.into_bytes(),
    };
    if bad.is_empty() {
        return (ServerKind::InfluxDb3, answered(204, String::new()));
    }
    let error =
        |(place, _): &(usize, &str)| serde_json::json!({"error_message": "why", "line_number": place + 1});
    let quoted = || {
        bad.iter().map(|(_, line)| format!("unable to parse '{line}': why")).collect::<Vec<_>>().join("\n")
    };
    let of_json = |status, json: serde_json::Value| answered(status, json.to_string());
    match manner {
        Manner::V3Partial => {
            let data: Vec<_> = bad.iter().map(error).collect();
            (ServerKind::InfluxDb3, of_json(400, serde_json::json!({"error": "partial write", "data": data})))
        }
        Manner::V3Object => (
            ServerKind::InfluxDb3,
            of_json(400, serde_json::json!({"error": "parsing", "data": error(&bad[0])})),
        ),
        Manner::V1Quoted => {
            let words = format!("partial write: {} dropped=0", quoted());
            (ServerKind::InfluxDb1, of_json(400, serde_json::json!({"error": words})))
        }
        Manner::V2Quoted => {
            (ServerKind::InfluxDb2, of_json(400, serde_json::json!({"code": "invalid", "message": quoted()})))
        }
        Manner::V1Unnamed => {
            let words = "partial write: field type conflict dropped=1";
            (ServerKind::InfluxDb1, of_json(400, serde_json::json!({"error": words})))
        }
        Manner::Html => {
            (ServerKind::InfluxDb3, answered(400, format!("<html>request {}</html>", body.len())))
        }
        Manner::TooLarge => (ServerKind::InfluxDb3, answered(413, "too large".into())),
    }
}

fn refusal<'a>(explained: bool, words: &str, answer: &'a [u8]) -> RangeRefusal<'a> {
    RangeRefusal { words: words.into(), answer, explained, server_error: false, now: Instant::now() }
}

fn believe_next(line: &mut DelayedLine) {
    if let DelayReason::Suspect(suspicion) = &mut line.reason {
        suspicion.is_last_try = true;
    }
}

struct Run {
    recorded: Recorded,
    requests: usize,
    paused: bool,
}

/// A batch of all lines, of which it takes at most so many.
fn batch_of(all: &[Arc<PendingLines>], lines: u32, now: Instant) -> Batch {
    let mut backlog = Backlog::default();
    all.iter().for_each(|pending| backlog.push(pending));
    let limits = BatchLimits {
        lines,
        interval: Duration::from_secs(1),
        early: Duration::ZERO,
        lines_max: lines,
        bytes_max: usize::MAX,
    };
    Batch::new(backlog.take(now, &limits, true).0)
}

/// Writes messages of these lines to a database of this manner, until all is done or it pauses.
fn run(messages: &[Vec<String>], manner: Manner) -> Run {
    let recorded = Arc::new(Mutex::new(Recorded::default()));
    let now = Instant::now();
    let (mut all, mut receipts) = (Vec::new(), Vec::new());
    for messages in messages.chunks(50) {
        let (pending, receipt) =
            pending_lines(&messages.iter().map(|lines| (0, lines.clone())).collect::<Vec<_>>(), now);
        all.push(pending);
        receipts.push(receipt);
    }
    let mut batch = batch_of(&all, 100_000, now);
    let sink: RefusedLinesSink = {
        let recorded = recorded.clone();
        Arc::new(move |refused: RefusedLines| {
            for line in &refused.lines {
                let mut recorded = recorded.lock();
                assert!(
                    recorded.refused.insert(String::from_utf8(line.line.clone()).unwrap()),
                    "refused twice"
                );
                recorded.answers.push(line.answer.clone());
            }
            (refused.on_durable)();
        })
    };
    let database = DatabaseName::new("db");
    let refused_sink = RefusedSink { sink: &sink, database: &database };
    let mut repeats = RepeatedRefusals::default();
    let (mut requests, mut paused) = (0, false);
    loop {
        if batch.is_done() && !paused {
            // What was refused alone is tried once more, later.
            let mut delayed = batch.take_delayed(&unlimited(), &mut repeats);
            delayed.iter_mut().for_each(believe_next);
            if !delayed.is_empty() {
                batch = Batch::of_delayed(delayed);
                continue;
            }
        }
        if batch.is_done() || paused {
            break;
        }
        requests += 1;
        assert!(requests < 10_000, "it never ends");
        let before = batch.lines_left();
        let (body, lines) = batch.body();
        assert_eq!(batch.body().0, body, "a retry sends the same bytes");
        let (kind, answer) = answer(manner, &body);
        let progress = match verdict(kind, &answer, lines) {
            Verdict::Accepted => batch.accept(&refused_sink, &mut repeats),
            Verdict::Partial { refused, limited } => {
                batch.accept_partly(refused, limited, &refused_sink, &mut repeats).0
            }
            Verdict::ResendWithout(fault) => batch.resend_without(fault, &refused_sink),
            Verdict::Bisect { explained, words } => {
                batch.bisect(refusal(explained, &words, &answer.body), &refused_sink, &mut repeats)
            }
            Verdict::Split { words } => batch.split(words, &refused_sink),
            other => panic!("{other:?}"),
        };
        assert_eq!(before, batch.lines_left() + progress.written + progress.refused);
        paused = progress.request_at_fault.is_some();
    }
    drop(batch);
    drop(sink);
    let mut recorded = Arc::into_inner(recorded).map(Mutex::into_inner).unwrap_or_default();
    for (place, receipt) in receipts.iter().enumerate() {
        let receipt = receipt.lock();
        recorded.written += receipt.written;
        recorded.refused_durable += receipt.refused;
        recorded.settled.extend(receipt.settled.iter().map(|message| place * 50 + message));
    }
    Run { recorded, requests, paused }
}

fn lines(bad: impl Fn(usize) -> bool, count: usize) -> Vec<Vec<String>> {
    (0..count).map(|n| vec![format!("{},n={n} f=1 {n}", if bad(n) { "bad" } else { "good" })]).collect()
}

#[test]
fn one_bad_line_in_five_hundred_costs_itself_and_few_requests() {
    for (manner, requests) in [
        (Manner::V3Partial, 1),
        (Manner::V3Object, 2),
        (Manner::V1Quoted, 2),
        (Manner::V2Quoted, 2),
        (Manner::V1Unnamed, 20),
        (Manner::Html, 25),
        (Manner::TooLarge, 20),
    ] {
        let run = run(&lines(|n| n == 123, 500), manner);
        assert_eq!(run.recorded.refused, BTreeSet::from(["bad,n=123 f=1 123".to_owned()]), "{manner:?}");
        assert_eq!((run.recorded.written, run.recorded.refused_durable), (499, 1), "{manner:?}");
        assert!(run.requests <= requests, "{manner:?}: {}", run.requests);
    }
}

#[test]
fn a_request_that_is_refused_whatever_its_lines_pauses_and_costs_no_line() {
    let run = run(&lines(|_| true, 500), Manner::Html);
    assert!(run.paused);
    assert_eq!((run.requests, run.recorded.refused.len(), run.recorded.written), (4, 0, 0));
}

#[test]
fn one_or_two_lines_refused_without_a_word_are_refused_but_never_a_third() {
    for (count, paused) in [(1, false), (2, false), (3, true)] {
        let run = run(&lines(|_| true, count), Manner::Html);
        assert_eq!((run.paused, run.recorded.refused.len()), (paused, if paused { 0 } else { count }));
    }
}

#[test]
fn strikes_remember_across_batches_until_something_is_accepted() {
    let mut repeats = RepeatedRefusals::default();
    repeats.add("bad request 17");
    repeats.add("bad request 18");
    assert_eq!(repeats.same("bad request 19"), 2);
    assert_eq!(repeats.same("another"), 0);
    repeats.clear();
    assert_eq!(repeats.same("bad request 19"), 0);
}

#[test]
fn the_words_about_a_quoted_line_are_its_own() {
    let run = run(&lines(|n| n % 2 == 0, 6), Manner::V2Quoted);
    assert_eq!(run.recorded.answers, ["why", "why", "why"]);
}

#[test]
fn a_suspect_is_settled_however_the_rest_of_its_batch_ends() {
    for partial in [true, false] {
        let (pending, recorded) =
            pending_lines(&[(0, vec!["a f=1 1".into()]), (0, vec!["b f=1 2".into()])], Instant::now());
        let mut batch = batch_of(&[pending], 2, Instant::now());
        let sink: RefusedLinesSink = Arc::new(|refused: RefusedLines| (refused.on_durable)());
        let database = DatabaseName::new("db");
        let refused_sink = RefusedSink { sink: &sink, database: &database };
        let mut repeats = RepeatedRefusals::default();
        batch.bisect(refusal(false, "no", b""), &refused_sink, &mut repeats);
        batch.bisect(refusal(false, "no", b""), &refused_sink, &mut repeats);
        assert_eq!(batch.lines_left(), 2);
        let fault = LineRefusal { line: 0, words: "why".into() };
        let progress = match partial {
            true => batch.accept_partly(vec![fault], Vec::new(), &refused_sink, &mut repeats).0,
            false => batch.resend_without(fault, &refused_sink),
        };
        assert_eq!((progress.refused, batch.lines_left()), (1, 1));
        assert!(batch.is_done());
        let mut delayed = batch.take_delayed(&unlimited(), &mut repeats);
        delayed.iter_mut().for_each(believe_next);
        let mut batch = Batch::of_delayed(delayed);
        assert_eq!(&batch.body().0[..], b"a f=1 1\n");
        let progress = batch.bisect(refusal(false, "no", b""), &refused_sink, &mut repeats);
        assert_eq!((progress.refused, batch.is_done()), (1, true));
        let recorded = recorded.lock();
        assert_eq!((recorded.refused, recorded.settled.len()), (2, 2));
    }
}

#[test]
fn what_is_tried_first_has_none_of_its_device_in_front_of_it() {
    // Of two devices: the last lines of one must not be written before its first.
    let messages: Vec<_> = (0..9).map(|n| (u32::from(n > 6), vec![format!("bad f=1 {n}")])).collect();
    for (messages, probes) in [
        (messages, ["bad f=1 0", "bad f=1 1", "bad f=1 2"]),
        (
            (0..9).map(|n| (n / 3, vec![format!("bad f=1 {n}")])).collect(),
            ["bad f=1 0", "bad f=1 3", "bad f=1 6"],
        ),
    ] {
        let (pending, _) = pending_lines(&messages, Instant::now());
        let mut batch = batch_of(&[pending], 9, Instant::now());
        let sink: RefusedLinesSink = Arc::new(|_| {});
        let refused_sink = RefusedSink { sink: &sink, database: &DatabaseName::new("db") };
        let mut repeats = RepeatedRefusals::default();
        batch.bisect(refusal(false, "no", b""), &refused_sink, &mut repeats);
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(String::from_utf8(batch.body().0.to_vec()).unwrap().trim_end().to_owned());
            batch.accept(&refused_sink, &mut repeats);
        }
        assert_eq!(sent, probes);
    }
}

#[test]
fn a_line_that_is_refused_once_and_taken_later_is_written() {
    let (pending, recorded) =
        pending_lines(&[(0, vec!["a f=1 1".into()]), (0, vec!["b f=1 2".into()])], Instant::now());
    let mut batch = batch_of(&[pending], 2, Instant::now());
    let sink: RefusedLinesSink = Arc::new(|refused: RefusedLines| (refused.on_durable)());
    let refused_sink = RefusedSink { sink: &sink, database: &DatabaseName::new("db") };
    let mut repeats = RepeatedRefusals::default();
    // A broken answer, three times in a row.
    for _ in 0..3 {
        let progress = batch.bisect(refusal(false, "{\"error\"", b""), &refused_sink, &mut repeats);
        assert_eq!((progress.refused, progress.request_at_fault), (0, None));
    }
    let mut delayed = batch.take_delayed(&unlimited(), &mut repeats);
    delayed.iter_mut().for_each(believe_next);
    let mut batch = Batch::of_delayed(delayed);
    assert_eq!(&batch.body().0[..], b"a f=1 1\nb f=1 2\n");
    batch.accept(&refused_sink, &mut repeats);
    let recorded = recorded.lock();
    assert_eq!((recorded.written, recorded.refused, recorded.settled.len()), (2, 0, 2));
}

#[test]
fn a_later_value_of_a_delayed_line_s_point_waits_with_it() {
    for partial in [true, false] {
        let line = |n: u32| (0, vec![format!("m v={n} 7")]);
        let other = (1, vec!["m v=9 7".to_owned()]);
        let (pending, recorded) = pending_lines(&[line(1), line(2), other], Instant::now());
        let mut batch = batch_of(&[pending], 3, Instant::now());
        let sink: RefusedLinesSink = Arc::new(|refused: RefusedLines| (refused.on_durable)());
        let refused_sink = RefusedSink { sink: &sink, database: &DatabaseName::new("db") };
        let mut repeats = RepeatedRefusals::default();
        if partial {
            let limited = vec![LineRefusal { line: 0, words: "limit".into() }];
            batch.accept_partly(Vec::new(), limited, &refused_sink, &mut repeats);
        } else {
            batch.bisect(refusal(false, "no", b""), &refused_sink, &mut repeats);
            batch.bisect(refusal(false, "no", b""), &refused_sink, &mut repeats);
            assert_eq!(&batch.body().0[..], b"m v=9 7\n", "the later value is not sent before");
            batch.accept(&refused_sink, &mut repeats);
        }
        assert!(batch.is_done());
        assert_eq!(recorded.lock().settled, [2]);
        let mut delayed = Batch::of_delayed(batch.take_delayed(&unlimited(), &mut repeats));
        assert_eq!(&delayed.body().0[..], b"m v=1 7\nm v=2 7\n");
    }
}

proptest! {
    /// Each line ends once, good ones written and bad ones refused; each message is settled once.
    #[test]
    fn every_line_and_message_ends_once(
        messages in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 1..5), 1..20),
        manner in proptest::sample::select(MANNERS.to_vec()),
    ) {
        let mut n = 0;
        let messages: Vec<Vec<String>> = messages.iter().map(|lines| lines.iter().map(|&bad| {
            n += 1;
            format!("{},n={n} f=1 {n}", if bad { "bad" } else { "good" })
        }).collect()).collect();
        let all: Vec<&String> = messages.iter().flatten().collect();
        let bad: BTreeSet<String> = all.iter().filter(|line| line.starts_with("bad")).map(|line| (*line).clone()).collect();
        let run = run(&messages, manner);
        if run.paused {
            // Only where nothing was accepted may the request be blamed.
            prop_assert_eq!(manner, Manner::Html);
            prop_assert_eq!(run.recorded.written, 0);
            return Ok(());
        }
        prop_assert_eq!(run.recorded.written, (all.len() - bad.len()) as u64);
        prop_assert_eq!(&run.recorded.refused, &bad);
        let mut settled = run.recorded.settled.clone();
        settled.sort_unstable();
        prop_assert_eq!(settled, (0..messages.len()).collect::<Vec<_>>());
    }
}
