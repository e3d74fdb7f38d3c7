//! The state of one edge node, which is one partition: a small header that changes with each message, and the births,
//! which change seldom and lie in pieces, because a value of the state has at most 1,024 bytes.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidegate_guest::{Refusal, State};

use crate::birth::{Birth, read_all, read_bytes, read_number, write_all, write_number, write_text};
use crate::topic::Topic;

const HEADER: &str = "node";

/// The reason for which a rebirth is wanted, for an operator who looks at the state.
const REBIRTH: &str = "rebirth";

/// A partition has at most 32 keys: two are above.
const PIECES_MAX: usize = 30;

const PIECE_BYTES: usize = 1_024;

/// Births of this many nodes, and bytes of them, are kept in memory between messages.
const CACHED_NODES_MAX: usize = 256;
const CACHED_BYTES_MAX: usize = 1 << 20;

/// The births of a node, and their bytes in the state.
#[derive(Debug)]
pub struct Births {
    bytes: Vec<u8>,
    pub all: Vec<Birth>,
}

/// A node that was born.
#[derive(Clone, Debug)]
pub struct Node {
    /// The sequence number of its last message.
    pub seq: u8,
    pub bd_seq: u64,
    pub births: Rc<Births>,
}

/// Births by the hash of their bytes. The bytes in the state are the truth: what is here only saves reading them.
#[derive(Debug, Default)]
pub struct Cache {
    births: BTreeMap<u64, Rc<Births>>,
    bytes: usize,
}

impl Cache {
    fn add(&mut self, hash: u64, births: &Rc<Births>) {
        if self.births.len() >= CACHED_NODES_MAX || self.bytes + births.bytes.len() > CACHED_BYTES_MAX {
            self.births.clear();
            self.bytes = 0;
        }
        if self.births.insert(hash, Rc::clone(births)).is_none() {
            self.bytes += births.bytes.len();
        }
    }
}

impl Node {
    pub fn new(seq: u8, bd_seq: u64, births: Vec<Birth>) -> Self {
        Self { seq, bd_seq, births: Rc::new(Births { bytes: write_all(&births), all: births }) }
    }

    /// The birth of the node, or of a device.
    pub fn birth(&self, device: Option<&str>) -> Option<&Birth> {
        let device = device.unwrap_or_default();
        self.births.all.iter().find(|birth| birth.device == device)
    }

    /// The same node with another birth of a device, or without it.
    pub fn with(&self, device: &str, birth: Option<Birth>) -> Self {
        let others = self.births.all.iter().filter(|other| other.device != device);
        Self::new(self.seq, self.bd_seq, others.cloned().chain(birth).collect())
    }

    /// The node of the partition of a message. None: it was not born, or has died.
    ///
    /// # Errors
    /// The partition belongs to another group or edge node.
    pub fn load(state: &State<'_>, topic: &Topic<'_>, cache: &mut Cache) -> Result<Option<Self>, Refusal> {
        let Some(header) = state.get(HEADER) else { return Ok(None) };
        let Some(header) = Header::read(&header) else { return Ok(None) };
        if header.group != topic.group || header.edge != topic.edge {
            let detail = format!(
                "the state of this message belongs to edge node {:?} of group {:?}, not to {:?} of {:?}: set [state] \
                 partition in the route file so that each group and edge node has its own",
                header.edge, header.group, topic.edge, topic.group
            );
            return Err(Refusal::new("PARTITION", detail));
        }
        let births = match cache.births.get(&header.hash) {
            Some(births) if births.bytes.len() == header.length => Rc::clone(births),
            _ => {
                let mut bytes = Vec::with_capacity(header.length.min(PIECES_MAX * PIECE_BYTES));
                for piece in 0..header.length.div_ceil(PIECE_BYTES).min(PIECES_MAX) {
                    bytes.extend(state.get(&piece_key(piece)).unwrap_or_default());
                }
                if bytes.len() != header.length || hash(&bytes) != header.hash {
                    return Ok(None);
                }
                let Some(all) = read_all(&bytes) else { return Ok(None) };
                let births = Rc::new(Births { bytes, all });
                cache.add(header.hash, &births);
                births
            }
        };
        Ok(Some(Self { seq: header.seq, bd_seq: header.bd_seq, births }))
    }

    /// Keeps this node in place of the one before.
    ///
    /// # Errors
    /// The births are larger than a partition.
    pub fn store(
        &self,
        state: &State<'_>,
        topic: &Topic<'_>,
        before: Option<&Self>,
        cache: &mut Cache,
    ) -> Result<(), Refusal> {
        let bytes = &self.births.bytes;
        let is_same = before.is_some_and(|before| Rc::ptr_eq(&before.births, &self.births));
        if !is_same {
            if bytes.len() > PIECES_MAX * PIECE_BYTES {
                let detail = format!(
                    "the names, aliases and types of edge node {:?} and its devices take {} bytes of state: at most {} \
                     are there; expected fewer metrics or shorter names",
                    topic.edge,
                    bytes.len(),
                    PIECES_MAX * PIECE_BYTES
                );
                return Err(Refusal::new("BIRTH_TOO_LARGE", detail));
            }
            let old = before.map_or(&[][..], |before| &before.births.bytes);
            let mut old = old.chunks(PIECE_BYTES);
            let mut pieces = 0;
            for (place, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                if old.next() != Some(piece) {
                    state.set(&piece_key(place), piece)?;
                }
                pieces = place + 1;
            }
            for (behind, _) in old.enumerate() {
                state.remove(&piece_key(pieces + behind))?;
            }
        }
        let hash = hash(bytes);
        cache.add(hash, &self.births);
        let header = Header {
            seq: self.seq,
            bd_seq: self.bd_seq,
            length: bytes.len(),
            hash,
            group: topic.group.to_owned(),
            edge: topic.edge.to_owned(),
        };
        Ok(state.set(HEADER, &header.write())?)
    }

    /// Forgets the node: it has died.
    ///
    /// # Errors
    /// A fault of the state.
    pub fn forget(&self, state: &State<'_>) -> Result<(), Refusal> {
        for piece in 0..self.births.bytes.len().div_ceil(PIECE_BYTES) {
            state.remove(&piece_key(piece))?;
        }
        state.remove(REBIRTH)?;
        Ok(state.remove(HEADER)?)
    }
}

/// Keeps the reason for which a rebirth is wanted; None: it came.
///
/// # Errors
/// A fault of the state.
pub fn set_rebirth(state: &State<'_>, reason: Option<&str>) -> Result<(), Refusal> {
    match reason {
        Some(reason) => Ok(state.set(REBIRTH, &reason.as_bytes()[..reason.len().min(PIECE_BYTES)])?),
        None => Ok(state.remove(REBIRTH)?),
    }
}

fn piece_key(piece: usize) -> String {
    format!("births-{piece:02}")
}

#[derive(Debug)]
struct Header {
    seq: u8,
    bd_seq: u64,
    /// Bytes of the births, and their hash.
    length: usize,
    hash: u64,
    group: String,
    edge: String,
}

/// The form of the header; another number is another form.
const FORM: u8 = 1;

impl Header {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![FORM, self.seq];
        write_number(self.bd_seq, &mut out);
        write_number(self.length as u64, &mut out);
        out.extend_from_slice(&self.hash.to_le_bytes());
        write_text(&self.group, &mut out);
        write_text(&self.edge, &mut out);
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[FORM, seq], mut rest) = bytes.split_first_chunk::<2>()? else { return None };
        let bd_seq = read_number(&mut rest)?;
        let length = usize::try_from(read_number(&mut rest)?).ok()?;
        let (hash, mut rest) = rest.split_first_chunk::<8>()?;
        let group = String::from_utf8(read_bytes(&mut rest)?.to_vec()).ok()?;
        let edge = String::from_utf8(read_bytes(&mut rest)?.to_vec()).ok()?;
        Some(Self { seq, bd_seq, length, hash: u64::from_le_bytes(*hash), group, edge })
    }
}

/// FNV-1a of 64 bits. It decides only whether memory may stand for the state of the same tenant.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
