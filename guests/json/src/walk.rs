//! The leaves of a JSON object, under their joined keys.

use std::borrow::Cow;

use tidegate_guest::Refusal;
use tidegate_guest::json::{Kind, Number, Reader, TapeMembers, TapeValue};

/// A value that can be a field.
#[derive(Debug)]
pub enum Leaf<'a> {
    Boolean(bool),
    Number(Number<'a>),
    Text(Cow<'a, str>),
}

impl Leaf<'_> {
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Leaf::Boolean(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Leaf::Number(number) => Cow::Borrowed(number.text()),
            Leaf::Text(text) => Cow::Borrowed(text),
        }
    }
}

/// Keys of the outermost object that say who sends, and are the gateway's to read: a token is no
/// measurement.
const CREDENTIALS: [&str; 4] = ["tenant_id", "device_id", "site_id", "provision_token"];

/// Leaves deeper than this are refused: 64 levels fit the stack whatever they hold.
const DEPTH_MAX: usize = 64;

/// Values of one payload. InfluxDB 3 takes 500 columns of a table, the older ones advise against a
/// thousand; so many are decoded in a fraction of a call's CPU time.
pub const FIELDS_MAX: usize = 4_096;

/// Bytes of all joined keys together: what a payload of the usual ceiling can spell out without nesting.
/// A long key above many short ones would be written out again for each of them.
const KEY_BYTES_MAX: usize = 256 << 10;

fn not_an_object(kind: Kind) -> Refusal {
    Refusal::new("NOT_AN_OBJECT", format!("the payload is {}: expected an object", kind.name()))
}

/// The walk so far.
#[derive(Default)]
pub struct Walk<'a> {
    pub leaves: Vec<(String, Leaf<'a>)>,
    /// The joined key of the current place.
    path: String,
    depth: usize,
    /// Bytes of the joined keys of all leaves.
    key_bytes: usize,
}

impl<'a> Walk<'a> {
    /// Walks the object that the reader stands before.
    pub fn object(&mut self, reader: &mut Reader<'a>) -> Result<(), Refusal> {
        match reader.peek()? {
            Kind::Object => self.members(reader),
            kind => Err(not_an_object(kind)),
        }
    }

    /// The same with the tape of the payload.
    pub fn tape_object(&mut self, value: TapeValue<'a>) -> Result<(), Refusal> {
        let members = value.members().ok_or_else(|| not_an_object(value.kind()))?;
        self.tape_members(members)
    }

    fn tape_members(&mut self, members: TapeMembers<'a>) -> Result<(), Refusal> {
        for (key, value) in members {
            let key = key.decode();
            if self.depth == 0 && CREDENTIALS.contains(&key.as_ref()) {
                continue;
            }
            self.under(&key, |walk| walk.tape_value(value))?;
        }
        Ok(())
    }

    fn tape_value(&mut self, value: TapeValue<'a>) -> Result<(), Refusal> {
        if let Some(members) = value.members() {
            return self.tape_members(members);
        }
        if let Some(elements) = value.elements() {
            for (index, element) in elements.enumerate() {
                self.under(&index.to_string(), |walk| walk.tape_value(element))?;
            }
            return Ok(());
        }
        let leaf = match (value.bool(), value.number(), value.string()) {
            (Some(value), ..) => Leaf::Boolean(value),
            (_, Some(number), _) => Leaf::Number(number),
            (_, _, Some(text)) => Leaf::Text(text.decode()),
            (None, None, None) => return Ok(()),
        };
        self.leaf(leaf)
    }

    fn members(&mut self, reader: &mut Reader<'a>) -> Result<(), Refusal> {
        reader.object()?;
        while let Some(key) = reader.next_key()? {
            let key = key.decode();
            if self.depth == 0 && CREDENTIALS.contains(&key.as_ref()) {
                continue;
            }
            self.under(&key, |walk| walk.value(reader))?;
        }
        Ok(())
    }

    fn under(
        &mut self,
        key: &str,
        act: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let before = self.path.len();
        if before > 0 {
            self.path.push('_');
        }
        self.path.push_str(key);
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Refusal::new(
                "TOO_DEEP",
                format!("{} is nested more than {DEPTH_MAX} levels deep", self.path),
            ));
        }
        act(self)?;
        self.depth -= 1;
        self.path.truncate(before);
        Ok(())
    }

    fn value(&mut self, reader: &mut Reader<'a>) -> Result<(), Refusal> {
        let leaf = match reader.peek()? {
            Kind::Object => return self.members(reader),
            Kind::Array => {
                reader.array()?;
                let mut index = 0;
                while reader.next_element()? {
                    let key = index.to_string();
                    self.under(&key, |walk| walk.value(reader))?;
                    index += 1;
                }
                return Ok(());
            }
            Kind::Null => return Ok(reader.null()?),
            Kind::Bool => Leaf::Boolean(reader.bool()?),
            Kind::Number => Leaf::Number(reader.number()?),
            Kind::String => Leaf::Text(reader.string()?.decode()),
        };
        self.leaf(leaf)
    }

    fn leaf(&mut self, leaf: Leaf<'a>) -> Result<(), Refusal> {
        self.key_bytes += self.path.len();
        if self.leaves.len() == FIELDS_MAX || self.key_bytes > KEY_BYTES_MAX {
            return Err(Refusal::new(
                "TOO_MANY_FIELDS",
                format!(
                    "more than {FIELDS_MAX} values, or more than {KEY_BYTES_MAX} bytes of joined keys: \
                     send fewer in one message"
                ),
            ));
        }
        self.leaves.push((self.path.clone(), leaf));
        Ok(())
    }
}
