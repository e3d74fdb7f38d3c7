//! Birth certificates: the names, aliases and types that a node or a device has announced.
//!
//! In the state they are one row of bytes. A table is the device's name (empty for the node), the count of its
//! entries, and the entries in the order of their names: the count of bytes that the name shares with the name before,
//! the count and text of the others, the alias plus 1 (0: none), and the type. All numbers are varints.

use crate::datatype::DataType;

/// One announced metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub alias: Option<u64>,
    pub datatype: DataType,
}

/// The birth certificate of the node or of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Birth {
    /// The device; empty for the node.
    pub device: String,
    /// In the order of names.
    entries: Vec<Entry>,
    /// Aliases with the places of their entries, in order.
    aliases: Vec<(u64, usize)>,
}

impl Birth {
    /// Takes the last entry of a name that stands twice, and of an alias too.
    pub fn new(device: &str, mut entries: Vec<Entry>) -> Self {
        entries.reverse();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        let mut aliases: Vec<_> =
            entries.iter().enumerate().filter_map(|(place, entry)| Some((entry.alias?, place))).collect();
        aliases.sort_unstable();
        Self { device: device.to_owned(), entries, aliases }
    }

    pub fn by_name(&self, name: &str) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        Some(&self.entries[place])
    }

    pub fn by_alias(&self, alias: u64) -> Option<&Entry> {
        let place = self.aliases.binary_search_by_key(&alias, |(alias, _)| *alias).ok()?;
        Some(&self.entries[self.aliases[place].1])
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_text(&self.device, out);
        write_number(self.entries.len() as u64, out);
        let mut before: &[u8] = &[];
        for entry in &self.entries {
            let name = entry.name.as_bytes();
            let shared = name.iter().zip(before).take_while(|(a, b)| a == b).count();
            write_number(shared as u64, out);
            write_number((name.len() - shared) as u64, out);
            out.extend_from_slice(&name[shared..]);
            // An alias of u64::MAX has no room for the 1: it is kept as none, and then found by name alone.
            write_number(entry.alias.map_or(0, |alias| alias.wrapping_add(1)), out);
            out.push(entry.datatype.number());
            before = name;
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let device = String::from_utf8(read_bytes(bytes)?.to_vec()).ok()?;
        let count = read_number(bytes)?;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let shared = usize::try_from(read_number(bytes)?).ok()?;
            let before = entries.last().map_or(&[][..], |entry| entry.name.as_bytes());
            let mut name = before.get(..shared)?.to_vec();
            name.extend_from_slice(read_bytes(bytes)?);
            let name = String::from_utf8(name).ok()?;
            let alias = read_number(bytes)?.checked_sub(1);
            let (datatype, rest) = bytes.split_first()?;
            *bytes = rest;
            entries.push(Entry { name, alias, datatype: DataType::of((*datatype).into())? });
        }
        Some(Self::new(&device, entries))
    }
}

/// Writes births as they stand in the state.
pub fn write_all(births: &[Birth]) -> Vec<u8> {
    let mut out = Vec::new();
    births.iter().for_each(|birth| birth.write(&mut out));
    out
}

/// Reads what `write_all` has written. None: it is something else.
pub fn read_all(mut bytes: &[u8]) -> Option<Vec<Birth>> {
    let mut births = Vec::new();
    while !bytes.is_empty() {
        births.push(Birth::read(&mut bytes)?);
    }
    Some(births)
}

pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

pub fn write_text(text: &str, out: &mut Vec<u8>) {
    write_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

pub fn read_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, alias: Option<u64>, datatype: u32) -> Entry {
        Entry { name: name.into(), alias, datatype: DataType::of(datatype).unwrap() }
    }

    #[test]
    fn births_come_back_from_their_bytes() {
        let node =
            Birth::new("", vec![entry("b", Some(0), 3), entry("a/ü", None, 12), entry("a/x", Some(300), 10)]);
        let device = Birth::new("dev", Vec::new());
        let bytes = write_all(&[node.clone(), device.clone()]);
        assert_eq!(read_all(&bytes).unwrap(), [node.clone(), device]);
        assert_eq!(node.by_alias(300).unwrap().name, "a/x");
        assert_eq!(node.by_name("b").unwrap().alias, Some(0));
        assert_eq!((node.by_alias(1), node.by_name("c")), (None, None));
        for length in 0..bytes.len() {
            let read = read_all(&bytes[..length]);
            assert!(read.is_none_or(|births| births.len() < 2), "{length}");
        }
    }

    #[test]
    fn names_with_a_common_beginning_take_few_bytes() {
        let names =
            (0..1_000).map(|n| entry(&format!("Line 1/Motor {n:04}/Temperature"), Some(n), 10)).collect();
        assert!(write_all(&[Birth::new("", names)]).len() < 24_000);
    }

    #[test]
    fn of_an_alias_or_a_name_that_stands_twice_the_last_counts() {
        let birth = Birth::new("", vec![entry("a", Some(1), 3), entry("a", Some(2), 10)]);
        assert_eq!(birth.by_name("a").unwrap().datatype.name(), "Double");
        assert_eq!(birth.by_alias(1), None);
    }
}
