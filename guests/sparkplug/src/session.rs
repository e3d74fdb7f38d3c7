//! The session of an edge node, as a host sees it: births, data and deaths in the order of their sequence numbers
//! (section 6 of the specification).

use std::borrow::Cow;

use tidegate_guest::{Message, Refusal};

use crate::birth::{Birth, Entry};
use crate::datatype::DataType;
use crate::node_state::{Cache, Node, set_rebirth};
use crate::payload::{Budget, Metric, Payload};
use crate::topic::{Kind, Topic};
use crate::value::{Fault, Value, typed};

/// The outcome of a message that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// A command, or a death of nobody who lives.
    Ignored,
    NodeDead,
    DeviceDead,
}

/// A metric with its name and its value.
#[derive(Debug)]
pub struct Resolved<'a> {
    pub name: Cow<'a, str>,
    pub datatype: DataType,
    pub value: Value<'a>,
    /// Milliseconds; None: the time of receipt.
    pub timestamp: Option<u64>,
    pub is_historical: bool,
    pub is_transient: bool,
}

/// A metric that is left out.
#[derive(Debug)]
pub struct Dropped {
    pub index: usize,
    pub reason: &'static str,
    /// Its name, or its alias in words.
    pub name: String,
}

/// The metrics of a message, and the reason for which a rebirth is wanted.
#[derive(Debug)]
pub struct Verdict<'a> {
    pub status: Status,
    pub rebirth: Option<String>,
    pub metrics: Vec<Resolved<'a>>,
    pub dropped: Vec<Dropped>,
}

impl Verdict<'_> {
    fn empty(status: Status) -> Self {
        Self { status, rebirth: None, metrics: Vec::new(), dropped: Vec::new() }
    }
}

/// Takes a message into the session of its node, and gives the verdict to a function.
///
/// # Errors
/// The message is refused, by its content, by the state or by the function.
pub fn take(
    message: &Message<'_>,
    topic: &Topic<'_>,
    cache: &mut Cache,
    then: &mut dyn FnMut(Verdict<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if topic.kind == Kind::Command {
        return then(Verdict::empty(Status::Ignored));
    }
    let mut budget = Budget::default();
    let payload = Payload::read(message.payload, &mut budget)?;
    let mut session = Session { message, topic, cache, budget, payload: &payload };
    match (topic.kind, topic.device) {
        (Kind::Birth, None) => session.node_birth(then),
        (Kind::Death, None) => session.node_death(then),
        (Kind::Birth, Some(device)) => session.device_birth(device, then),
        (Kind::Death, Some(device)) => session.device_death(device, then),
        (Kind::Data | Kind::Command, _) => session.data(then),
    }
}

struct Session<'s> {
    message: &'s Message<'s>,
    topic: &'s Topic<'s>,
    cache: &'s mut Cache,
    budget: Budget,
    payload: &'s Payload<'s>,
}

type Then<'f> = &'f mut dyn FnMut(Verdict<'_>) -> Result<(), Refusal>;

impl<'s> Session<'s> {
    fn node_birth(&mut self, then: Then<'_>) -> Result<(), Refusal> {
        let seq = self.seq()?;
        let Some(bd_seq) = self.payload.metrics.iter().find_map(bd_seq) else {
            let detail = "the birth certificate of the node has no metric bdSeq with a number: expected it, because the \
                          death certificate names it";
            return Err(Refusal::new("BAD_BIRTH", detail));
        };
        let before = Node::load(&self.message.state(), self.topic, self.cache)?;
        let mut dropped = Vec::new();
        let (birth, metrics) = self.born("", &mut dropped)?;
        let node = Node::new(seq, bd_seq, vec![birth]);
        node.store(&self.message.state(), self.topic, before.as_ref(), self.cache)?;
        set_rebirth(&self.message.state(), None)?;
        then(Verdict { status: Status::Ok, rebirth: None, metrics, dropped })
    }

    fn node_death(&mut self, then: Then<'_>) -> Result<(), Refusal> {
        let Some(bd_seq) = self.payload.metrics.iter().find_map(bd_seq) else {
            let detail = "the death certificate of the node has no metric bdSeq with a number: expected that of its \
                          birth certificate";
            return Err(Refusal::new("BAD_DEATH", detail));
        };
        match Node::load(&self.message.state(), self.topic, self.cache)? {
            Some(node) if node.bd_seq == bd_seq => {
                node.forget(&self.message.state())?;
                then(Verdict::empty(Status::NodeDead))
            }
            _ => then(Verdict::empty(Status::Ignored)),
        }
    }

    fn device_birth(&mut self, device: &str, then: Then<'_>) -> Result<(), Refusal> {
        let seq = self.seq()?;
        let before = self.node()?;
        let rebirth = gap(&before, seq);
        let mut dropped = Vec::new();
        let (birth, metrics) = self.born(device, &mut dropped)?;
        let mut node = before.with(device, Some(birth));
        node.seq = seq;
        self.keep(&node, &before, rebirth.as_deref())?;
        then(Verdict { status: Status::Ok, rebirth, metrics, dropped })
    }

    fn device_death(&mut self, device: &str, then: Then<'_>) -> Result<(), Refusal> {
        let seq = self.seq()?;
        let Some(before) = Node::load(&self.message.state(), self.topic, self.cache)? else {
            return then(Verdict::empty(Status::Ignored));
        };
        let rebirth = gap(&before, seq);
        let is_known = before.birth(Some(device)).is_some();
        let mut node = if is_known { before.with(device, None) } else { before.clone() };
        node.seq = seq;
        self.keep(&node, &before, rebirth.as_deref())?;
        let status = if is_known { Status::DeviceDead } else { Status::Ignored };
        then(Verdict { rebirth, ..Verdict::empty(status) })
    }

    fn data(&mut self, then: Then<'_>) -> Result<(), Refusal> {
        let seq = self.seq()?;
        let before = self.node()?;
        let Some(birth) = before.birth(self.topic.device) else { return Err(self.no_birth()) };
        let mut rebirth = gap(&before, seq);
        let mut dropped = Vec::new();
        let mut metrics = Vec::with_capacity(self.payload.metrics.len());
        for (index, metric) in self.payload.metrics.iter().enumerate() {
            let (name, entry) = match (metric.name.filter(|name| !name.is_empty()), metric.alias) {
                (Some(name), _) => (name, birth.by_name(name)),
                (None, Some(alias)) => match birth.by_alias(alias) {
                    Some(entry) => (entry.name.as_str(), Some(entry)),
                    None => {
                        let name = format!("alias {alias}");
                        rebirth.get_or_insert_with(|| format!("unknown {name}"));
                        dropped.push(Dropped { index, reason: "unknown_alias", name });
                        continue;
                    }
                },
                (None, None) => {
                    let name = format!("metric {index}");
                    dropped.push(Dropped { index, reason: "no_name_no_alias", name });
                    continue;
                }
            };
            let announced = entry.map(|entry| entry.datatype);
            let datatype = match metric.datatype {
                None | Some(0) => announced,
                Some(number) => DataType::of(number),
            };
            if entry.is_none() {
                rebirth.get_or_insert_with(|| format!("metric {name:.200?} is not in the birth certificate"));
            }
            let reason = match (metric.datatype, datatype) {
                (_, Some(datatype)) => {
                    let type_of = |name: &str| Some(birth.by_name(name)?.datatype);
                    match typed(name, datatype, metric, 0, &type_of, &mut self.budget) {
                        Ok(value) => {
                            metrics.push(resolved(
                                Cow::Borrowed(name),
                                datatype,
                                value,
                                metric,
                                self.payload,
                            ));
                            continue;
                        }
                        Err(Fault::Left(reason)) => reason,
                        Err(Fault::Refused(refusal)) => return Err(refusal),
                    }
                }
                (None | Some(0), None) => "not_in_birth",
                (Some(_), None) => "unknown_datatype",
            };
            dropped.push(Dropped { index, reason, name: name.to_owned() });
        }
        let node = Node { seq, ..before.clone() };
        self.keep(&node, &before, rebirth.as_deref())?;
        then(Verdict { status: Status::Ok, rebirth, metrics, dropped })
    }

    /// The birth certificate of the message, and its metrics.
    fn born(
        &mut self,
        device: &str,
        dropped: &mut Vec<Dropped>,
    ) -> Result<(Birth, Vec<Resolved<'s>>), Refusal> {
        let payload = self.payload;
        let mut entries = Vec::with_capacity(payload.metrics.len());
        let mut metrics = Vec::with_capacity(payload.metrics.len());
        for (index, metric) in payload.metrics.iter().enumerate() {
            let Some(name) = metric.name.filter(|name| !name.is_empty()) else {
                let name = format!("metric {index}");
                dropped.push(Dropped { index, reason: "no_name_in_birth", name });
                continue;
            };
            let datatype = match metric.datatype {
                None | Some(0) => Err("no_datatype_in_birth"),
                Some(number) => DataType::of(number).ok_or("unknown_datatype"),
            };
            let reason = match datatype {
                Err(reason) => reason,
                Ok(datatype) => {
                    entries.push(Entry { name: name.to_owned(), alias: metric.alias, datatype });
                    match typed(name, datatype, metric, 0, &|_| None, &mut self.budget) {
                        Ok(value) => {
                            announce_members(name, &value, &mut entries);
                            metrics.push(resolved(Cow::Borrowed(name), datatype, value, metric, payload));
                            continue;
                        }
                        Err(Fault::Left(reason)) => reason,
                        Err(Fault::Refused(refusal)) => return Err(refusal),
                    }
                }
            };
            dropped.push(Dropped { index, reason, name: name.to_owned() });
        }
        Ok((Birth::new(device, entries), metrics))
    }

    /// Keeps the node, and the reason for which a rebirth is wanted.
    fn keep(&mut self, node: &Node, before: &Node, rebirth: Option<&str>) -> Result<(), Refusal> {
        let state = self.message.state();
        node.store(&state, self.topic, Some(before), self.cache)?;
        match rebirth {
            Some(reason) => set_rebirth(&state, Some(reason)),
            None => Ok(()),
        }
    }

    fn seq(&self) -> Result<u8, Refusal> {
        let fault = match self.payload.seq {
            None => "is missing".to_owned(),
            Some(seq) => match u8::try_from(seq) {
                Ok(seq) => return Ok(seq),
                Err(_) => format!("is {seq}"),
            },
        };
        Err(Refusal::new("BAD_SEQ", format!("the payload's seq {fault}: expected 0 to 255")))
    }

    fn node(&mut self) -> Result<Node, Refusal> {
        Node::load(&self.message.state(), self.topic, self.cache)?.ok_or_else(|| self.no_birth())
    }

    fn no_birth(&self) -> Refusal {
        let of = match self.topic.device {
            Some(device) => format!("device {device:?} of edge node {:?}", self.topic.edge),
            None => format!("edge node {:?}", self.topic.edge),
        };
        let detail = format!(
            "the {of} has no birth certificate here since its last death: expected NBIRTH, and DBIRTH of a device, \
             before; write true to \"Node Control/Rebirth\" of the node"
        );
        Refusal::new("NO_BIRTH", detail)
    }
}

/// The types of a template's members, for data that do not say them.
fn announce_members(name: &str, value: &Value<'_>, entries: &mut Vec<Entry>) {
    let Value::Template(template) = value else { return };
    for member in &template.members {
        let name = format!("{name}/{}", member.name);
        announce_members(&name, &member.value, entries);
        entries.push(Entry { name, alias: None, datatype: member.datatype });
    }
}

fn resolved<'a>(
    name: Cow<'a, str>,
    datatype: DataType,
    value: Value<'a>,
    metric: &Metric<'a>,
    payload: &Payload<'a>,
) -> Resolved<'a> {
    Resolved {
        name,
        datatype,
        value,
        timestamp: metric.timestamp.or(payload.timestamp),
        is_historical: metric.is_historical,
        is_transient: metric.is_transient,
    }
}

/// The number of a session at the broker, which birth and death have in common.
fn bd_seq(metric: &Metric<'_>) -> Option<u64> {
    match (metric.name, metric.value) {
        (Some("bdSeq"), Some(crate::payload::Sent::Long(number))) => Some(number),
        (Some("bdSeq"), Some(crate::payload::Sent::Int(number))) => Some(number.into()),
        _ => None,
    }
}

/// The gap in the sequence numbers before a message.
fn gap(node: &Node, seq: u8) -> Option<String> {
    let want = node.seq.wrapping_add(1);
    (seq != want).then(|| format!("seq_gap: want {want} got {seq}"))
}
