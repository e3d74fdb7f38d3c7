//! The walk through an object: its leaves under their joined keys.

use std::ops::Range;

use tidegate_guest::{Lines, Refusal};

use crate::leaf::{Container, Leaf};
use crate::limits::{DEPTH_MAX, FIELDS_MAX, KEY_BYTES_MAX, LINES_MAX};
use crate::rules::ObjectRules;
use crate::write::Leaves;

/// Keys of the outermost object that say who sends, and are the gateway's to read: a token is no
/// measurement.
const CREDENTIALS: [&str; 4] = ["tenant_id", "device_id", "site_id", "provision_token"];

/// Buffers for walks, one message after the other.
#[derive(Debug, Default)]
pub struct Objects {
    keys: String,
    path: String,
    frames: Vec<Frame>,
}

/// A container that the walk is in.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Container,
    /// Length of the path of the container itself.
    path_len: usize,
    /// Elements so far, of an array.
    elements: usize,
    /// True if each element makes a line.
    is_exploded: bool,
    /// The group in which it stands.
    group: usize,
}

/// Leaves that are one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The group around it.
    pub parent: Option<usize>,
}

/// A leaf under its joined key.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub key: Range<usize>,
    pub leaf: Leaf<'a>,
    pub group: usize,
}

impl Objects {
    /// Begins the walk through an object.
    pub fn walk<'o, 'a>(&'o mut self, rules: &'o ObjectRules) -> Walk<'o, 'a> {
        self.keys.clear();
        self.path.clear();
        self.frames.clear();
        Walk {
            rules,
            buffers: self,
            leaves: Vec::new(),
            groups: vec![Group { parent: None }],
            group: 0,
            time_ns: None,
            is_left_out: false,
        }
    }
}

/// A walk through one object. The caller calls `begin` and `end` in pairs, and in an object `key` before each value.
#[derive(Debug)]
pub struct Walk<'o, 'a> {
    rules: &'o ObjectRules,
    buffers: &'o mut Objects,
    leaves: Vec<Found<'a>>,
    groups: Vec<Group>,
    group: usize,
    /// The time of lines that find none in the object.
    time_ns: Option<i64>,
    /// True while the key is a credential.
    is_left_out: bool,
}

impl<'a> Walk<'_, 'a> {
    /// The key of the next value of an object.
    pub fn key(&mut self, key: &str) {
        if self.buffers.frames.len() == 1 {
            self.is_left_out = CREDENTIALS.contains(&key);
        }
        self.buffers.path.truncate(self.buffers.frames.last().map_or(0, |frame| frame.path_len));
        self.join(key);
    }

    fn join(&mut self, key: &str) {
        let path = &mut self.buffers.path;
        if !path.is_empty() {
            path.push('_');
        }
        path.push_str(key);
    }

    /// Counts an element of an array, and names it.
    fn element(&mut self) -> Result<(), Refusal> {
        let Some(frame) = self.buffers.frames.last_mut() else { return Ok(()) };
        if frame.kind == Container::Object {
            return Ok(());
        }
        let index = frame.elements;
        frame.elements += 1;
        let frame = *frame;
        self.buffers.path.truncate(frame.path_len);
        if frame.is_exploded {
            if self.groups.len() > LINES_MAX {
                let detail =
                    format!("{} has more than {LINES_MAX} elements, each of which is a line", self.path());
                return Err(Refusal::new("TOO_MANY_LINES", detail));
            }
            self.group = self.groups.len();
            self.groups.push(Group { parent: Some(frame.group) });
        } else {
            self.join(&index.to_string());
        }
        Ok(())
    }

    /// Begins a container as the next value.
    ///
    /// # Errors
    /// `TOO_DEEP`, `TOO_MANY_LINES`.
    pub fn begin(&mut self, kind: Container) -> Result<(), Refusal> {
        self.element()?;
        if self.buffers.frames.len() > DEPTH_MAX {
            let detail = format!("{} is nested more than {DEPTH_MAX} levels deep", self.path());
            return Err(Refusal::new("TOO_DEEP", detail));
        }
        let path = &self.buffers.path;
        let is_exploded = kind == Container::Array && self.rules.explode.iter().any(|name| name == path);
        let path_len = path.len();
        self.buffers.frames.push(Frame { kind, path_len, elements: 0, is_exploded, group: self.group });
        Ok(())
    }

    /// Ends the container that was begun last.
    pub fn end(&mut self) {
        if let Some(frame) = self.buffers.frames.pop() {
            self.group = frame.group;
        }
        if self.buffers.frames.len() <= 1 {
            self.is_left_out = false;
        }
    }

    /// A value that is no container.
    ///
    /// # Errors
    /// `TOO_MANY_FIELDS`, `TOO_MANY_LINES`.
    pub fn leaf(&mut self, leaf: Leaf<'a>) -> Result<(), Refusal> {
        self.element()?;
        let has_no_value = match &leaf {
            Leaf::Null => true,
            Leaf::Float(value) => !value.is_finite(),
            _ => false,
        };
        if has_no_value || self.is_left_out {
            return Ok(());
        }
        let Objects { keys, path, .. } = &mut *self.buffers;
        let start = keys.len();
        if self.leaves.len() == FIELDS_MAX || start + path.len() > KEY_BYTES_MAX {
            return Err(Refusal::new(
                "TOO_MANY_FIELDS",
                format!(
                    "more than {FIELDS_MAX} values, or more than {KEY_BYTES_MAX} bytes of joined keys: \
                     send fewer in one message"
                ),
            ));
        }
        keys.push_str(path);
        self.leaves.push(Found { key: start..keys.len(), leaf, group: self.group });
        Ok(())
    }

    /// The time of all lines that find none in the object.
    pub fn set_time(&mut self, time_ns: Option<i64>) {
        self.time_ns = time_ns;
    }

    /// The joined key of the present value, shortened, for a text about it.
    fn path(&self) -> &str {
        let path = &self.buffers.path;
        let mut end = path.len().min(128);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        &path[..end]
    }

    /// Writes the lines.
    ///
    /// # Errors
    /// A value that fits no field or time, two values under one name.
    pub fn finish(self, lines: &mut Lines) -> Result<(), Refusal> {
        let leaves = Leaves {
            keys: &self.buffers.keys,
            found: &self.leaves,
            groups: &self.groups,
            time_ns: self.time_ns,
        };
        leaves.write(self.rules, lines)
    }
}
