//! Arbitrary bytes, births of many metrics, and the options of a route.

use proptest::prelude::*;
use sparkplug::Sparkplug;
use tidegate_guest::testing::{Context, route};
use tidegate_guest::{Decoder, Refusal, Route};

/// A node of a test: one partition, and one decoder or a new one each time.
struct Node {
    context: Context,
    route: Route,
}

impl Node {
    fn new(options: &[(&str, &str)]) -> Self {
        Self { context: Context::default(), route: route(options) }
    }

    fn send(&mut self, topic: &str, payload: &[u8]) -> Result<String, Refusal> {
        let mut decoder = Sparkplug::configure(&self.route).map_err(|why| Refusal::new("CONFIGURE", why))?;
        topic.clone_into(&mut self.context.topic);
        self.context.decode_one(payload, &mut |message, lines| decoder.decode(message, lines))
    }
}

const NBIRTH: &str = "spBv1.0/plant/NBIRTH/edge1";
const NDATA: &str = "spBv1.0/plant/NDATA/edge1";
const NDEATH: &str = "spBv1.0/plant/NDEATH/edge1";

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// A metric without its value.
fn metric(name: &str, alias: Option<u64>, datatype: Option<u64>, timestamp: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if !name.is_empty() {
        bytes(1, name.as_bytes(), &mut out);
    }
    if let Some(alias) = alias {
        number(2, alias, &mut out);
    }
    number(3, timestamp, &mut out);
    if let Some(datatype) = datatype {
        number(4, datatype, &mut out);
    }
    out
}

fn double(mut metric: Vec<u8>, value: f64) -> Vec<u8> {
    varint(13 << 3 | 1, &mut metric);
    metric.extend(value.to_le_bytes());
    metric
}

fn long(mut metric: Vec<u8>, value: u64) -> Vec<u8> {
    number(11, value, &mut metric);
    metric
}

fn payload(seq: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    metrics.iter().for_each(|metric| bytes(2, metric, &mut out));
    number(3, seq, &mut out);
    out
}

fn birth(seq: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    payload(seq, &[&[long(metric("bdSeq", None, Some(4), 1), 0)], metrics].concat())
}

/// Sets a flag: 5 is_historical, 6 is_transient.
fn flagged(mut metric: Vec<u8>, field: u64) -> Vec<u8> {
    number(field, 1, &mut metric);
    metric
}

#[test]
fn each_option_changes_what_it_says() {
    let metrics = [
        flagged(long(metric("old", None, Some(8), 1), 7), 5),
        flagged(long(metric("short", None, Some(3), 1), 8), 6),
        {
            let mut array = metric("list", None, Some(22), 1);
            bytes(16, &[1, 255], &mut array);
            array
        },
        {
            let mut raw = metric("raw", None, Some(17), 1);
            bytes(16, &[1, 2, 3], &mut raw);
            raw
        },
    ];
    let line = |options: &[(&str, &str)]| Node::new(options).send(NBIRTH, &birth(0, &metrics)).unwrap();
    let start = "sparkplug,group=plant,edge=edge1";
    assert_eq!(line(&[]), format!("{start} old=7u,short=8i,list_0=1i,list_1=-1i 1000000\n"));
    assert_eq!(
        line(&[("uint64", "integer"), ("transient", "skip"), ("arrays", "json"), ("bytes", "base64")]),
        format!("{start} old=7i,list=\"[1,-1]\",raw=\"AQID\" 1000000\n")
    );
    assert_eq!(
        line(&[("historical", "tag"), ("control", "write"), ("measurement", "m"), ("uint64", "float")]),
        "m,group=plant,edge=edge1 bdSeq=0i,short=8i,list_0=1i,list_1=-1i 1000000\n\
         m,group=plant,edge=edge1,historical=true old=7.0 1000000\n"
    );
    assert!(!line(&[("historical", "skip")]).contains("old"));
    let refusal = Node::new(&[("bytes", "hex")]).send(NBIRTH, &[]).unwrap_err();
    assert!(refusal.detail.contains("skip or base64"), "{refusal}");
    let refusal = Node::new(&[("prefix_levels", "x")]).send(NBIRTH, &[]).unwrap_err();
    assert!(refusal.detail.contains("0 to 16"), "{refusal}");
    let mut behind = Node::new(&[("prefix_levels", "1")]);
    assert!(behind.send(&format!("acme/{NBIRTH}"), &birth(0, &[])).is_ok());
    assert_eq!(behind.send(NBIRTH, &birth(0, &[])).unwrap_err().code, "BAD_TOPIC");
}

#[test]
fn a_name_that_comes_again_at_the_same_time_makes_a_further_line_and_reserved_names_are_changed() {
    let mut node = Node::new(&[]);
    let metrics = ["time", "device", "x", "x"].map(|name| long(metric(name, None, Some(3), 1), 5));
    assert_eq!(
        node.send(NBIRTH, &birth(0, &metrics)).unwrap(),
        "sparkplug,group=plant,edge=edge1 time_=5i,device_=5i,x=5i 1000000\nsparkplug,group=plant,edge=edge1 x=5i 1000000\n"
    );
}

#[test]
fn a_birth_of_a_thousand_metrics_fits_the_state_and_a_death_empties_it() {
    let mut node = Node::new(&[]);
    let name = |n: u64| format!("Line {}/Motor {:03}/Temperature", n % 3, n);
    let metrics: Vec<_> =
        (0..1_000).map(|n| double(metric(&name(n), Some(n), Some(10), 1), n as f64)).collect();
    let lines = node.send(NBIRTH, &birth(0, &metrics)).unwrap();
    assert_eq!(lines.matches('=').count(), 1_002);
    let line = node.send(NDATA, &payload(1, &[double(metric("", Some(700), None, 2), 0.5)])).unwrap();
    assert_eq!(line, "sparkplug,group=plant,edge=edge1 Line\\ 1/Motor\\ 700/Temperature=0.5 2000000\n");
    assert!(node.context.state.borrow().len() <= 32);
    // Another node of the same partition is refused before it can mix with this one.
    let refusal = node.send("spBv1.0/other/NDATA/edge1", &payload(2, &[])).unwrap_err();
    assert_eq!(refusal.code, "PARTITION");
    let smaller = birth(0, &metrics[..10]);
    node.send(NBIRTH, &smaller).unwrap();
    assert_eq!(node.context.state.borrow().len(), 2);
    node.send(NDEATH, &payload(0, &[long(metric("bdSeq", None, Some(4), 1), 0)])).unwrap();
    assert!(node.context.state.borrow().is_empty());
    let many: Vec<_> = (0..9_000).map(|n| metric(&format!("{n:x}-{n}"), Some(n), Some(10), 1)).collect();
    let refusal = node.send(NBIRTH, &birth(0, &many)).unwrap_err();
    assert!(refusal.to_string().starts_with("BIRTH_TOO_LARGE: "), "{refusal}");
    let more: Vec<_> = (0..20_000).map(|_| vec![]).collect();
    assert_eq!(node.send(NBIRTH, &birth(0, &more)).unwrap_err().code, "TOO_MANY_VALUES");
}

#[test]
fn a_gap_is_kept_until_the_next_birth() {
    let mut node = Node::new(&[]);
    node.send(NBIRTH, &birth(0, &[])).unwrap();
    node.send(NDATA, &payload(5, &[])).unwrap();
    let rebirth = |node: &Node| node.context.state.borrow().get("rebirth").cloned();
    assert_eq!(rebirth(&node).unwrap(), b"seq_gap: want 1 got 5");
    node.send(NBIRTH, &birth(0, &[])).unwrap();
    assert_eq!(rebirth(&node), None);
}

#[test]
fn a_message_makes_a_bounded_number_of_lines() {
    let times =
        |count: u64| -> Vec<_> { (0..count).map(|time| long(metric("x", None, Some(3), time), 1)).collect() };
    let send = |count| Node::new(&[]).send(NBIRTH, &birth(0, &times(count)));
    assert_eq!(send(1_000).unwrap().lines().count(), 1_000);
    assert_eq!(send(1_001).unwrap_err().code, "TOO_MANY_LINES");
}

#[test]
fn a_refusal_says_where_and_what_would_be_right() {
    let refused = |payload: &[u8]| Node::new(&[]).send(NBIRTH, payload).unwrap_err().to_string();
    assert!(
        refused(&[0x12, 0x05, 0x0a])
            .starts_with("BAD_PAYLOAD: at byte 0: field 2 has 5 bytes, and 1 are left")
    );
    assert!(
        refused(&[0x12, 0x03, 0x0a, 0x01, 0xff])
            .starts_with("BAD_PAYLOAD: at byte 2: a metric's name is not UTF-8")
    );
    assert!(refused(&payload(0, &[])).starts_with("BAD_BIRTH: "));
    assert!(refused(&birth(300, &[])).starts_with("BAD_SEQ: the payload's seq is 300: expected 0 to 255"));
    let refusal = Node::new(&[]).send(NDATA, &payload(0, &[])).unwrap_err().to_string();
    assert!(refusal.starts_with("NO_BIRTH: the edge node \"edge1\" has no birth certificate"), "{refusal}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_lines_or_a_refusal(
        kind in prop::sample::select(vec!["NBIRTH", "NDATA", "NDEATH"]),
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        at in any::<prop::sample::Index>(),
    ) {
        let mut node = Node::new(&[]);
        let born = birth(0, &[double(metric("x", Some(1), Some(10), 1), 1.0)]);
        node.send(NBIRTH, &born).unwrap();
        let topic = format!("spBv1.0/plant/{kind}/edge1");
        let _ = node.send(&topic, &bytes);
        // In the place of a part of a good payload.
        let at = at.index(born.len());
        let _ = node.send(&topic, &[&born[..at], &bytes, &born[at..]].concat());
        let _ = node.send(&topic, &born[..at]);
    }

    /// State that something else has written is no birth.
    #[test]
    fn arbitrary_state_is_no_birth(header in prop::collection::vec(any::<u8>(), 0..60), piece in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut node = Node::new(&[]);
        node.context.state.borrow_mut().extend([("node".into(), header), ("births-00".into(), piece)]);
        let _ = node.send(NDATA, &payload(0, &[]));
    }

    #[test]
    fn values_come_back_by_their_aliases(values in prop::collection::vec(any::<i64>(), 1..40)) {
        let mut node = Node::new(&[]);
        let announced: Vec<_> =
            (0..values.len() as u64).map(|n| metric(&format!("m{n}"), Some(n * 1_000), Some(4), 1)).collect();
        node.send(NBIRTH, &birth(0, &announced)).unwrap();
        let sent: Vec<_> =
            values.iter().zip(0..).map(|(value, n)| long(metric("", Some(n * 1_000), None, 2), *value as u64)).collect();
        let line = node.send(NDATA, &payload(1, &sent)).unwrap();
        let fields: Vec<_> = values.iter().enumerate().map(|(n, value)| format!("m{n}={value}i")).collect();
        prop_assert_eq!(line, format!("sparkplug,group=plant,edge=edge1 {} 2000000\n", fields.join(",")));
    }
}
