//! A mapping at work: a payload becomes lines.

use tidegate_guest::{Lines, Refusal};
use tidegate_objects::Container;

use crate::bytes::Bytes;
use crate::document::{Document, ROOT};
use crate::format::Format;
use crate::limits::RECORDS_MAX;
use crate::line_rule::Around;
use crate::mapping::{Mapping, PayloadBytes};
use crate::observer::{NoObserver, Observer, Role};
use crate::records::{Count, Records, RecordsPlace};
use crate::source::{Found, Part};
use crate::{cbor, csv, json, msgpack};

impl Mapping {
    /// Writes the lines of a payload.
    ///
    /// # Errors
    /// A value that is not there or is none of its type: names its key, and its place.
    pub fn decode(&self, payload: &[u8], received_ns: i64, lines: &mut Lines) -> Result<(), Refusal> {
        self.decode_with(payload, received_ns, lines, &mut NoObserver)
    }

    /// The same while somebody looks on.
    ///
    /// # Errors
    /// The errors of `decode`.
    pub fn decode_with<O: Observer>(
        &self,
        payload: &[u8],
        received_ns: i64,
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        match self.format {
            Format::Bytes => self.bytes(payload, received_ns, lines, observer),
            Format::Json => self.document(&json::read(payload)?, received_ns, lines, observer),
            Format::Cbor => self.document(&cbor::read(payload)?, received_ns, lines, observer),
            Format::Msgpack => self.document(&msgpack::read(payload)?, received_ns, lines, observer),
            Format::Csv => self.rows(payload, received_ns, lines, observer),
        }
    }

    fn bytes<O: Observer>(
        &self,
        payload: &[u8],
        received_ns: i64,
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        if let Some(PayloadBytes { least, most }) = self.payload_bytes {
            let bytes = payload.len();
            if bytes < least || most.is_some_and(|most| bytes > most) {
                let expected = match most {
                    Some(most) if most == least => least.to_string(),
                    Some(most) => format!("{least} to {most}"),
                    None => format!("at least {least}"),
                };
                let detail = format!("the payload has {bytes} bytes: expected {expected}");
                return Err(Refusal::new("BAD_LENGTH", detail));
            }
        }
        observer.line(None);
        let mut part = Part::Bytes(Bytes::new(payload, 0..payload.len()));
        let context = (&Around::default(), received_ns);
        let around = self.line.write_bytes(&mut part, context, self.records.is_some(), lines, observer)?;
        match &self.records {
            Some(records) => records.bytes(payload, &mut part, (&around, received_ns), lines, observer),
            None => Ok(()),
        }
    }

    fn document<O: Observer>(
        &self,
        document: &Document<'_>,
        received_ns: i64,
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        let is_whole = self.line.fields.is_none() && self.records.is_none();
        if is_whole && document.container(ROOT) != Some(Container::Object) {
            let found = document.kind_name(ROOT);
            return Err(Refusal::new("NOT_AN_OBJECT", format!("the payload is {found}: expected an object")));
        }
        observer.line(None);
        let mut part = Part::Document { document, at: ROOT };
        let writes = self.line.fields.is_some() || is_whole;
        let context = (&Around::default(), received_ns);
        let around = self.line.write_object(&mut part, context, writes, lines, observer)?;
        let Some(Records { place: RecordsPlace::Pointer(pointer), line }) = &self.records else {
            return Ok(());
        };
        let Some(array) = document.find(ROOT, pointer) else { return Ok(()) };
        if document.container(array) != Some(Container::Array) {
            let detail =
                format!("records.at: {} is {}: expected an array", pointer.text, document.kind_name(array));
            return Err(Refusal::new("BAD_RECORDS", detail));
        }
        for (index, at) in document.children(array).enumerate() {
            if index == RECORDS_MAX {
                return Err(too_many());
            }
            observer.line(Some(index));
            let mut part = Part::Document { document, at };
            line.write_object(&mut part, (&around, received_ns), true, lines, observer)?;
        }
        Ok(())
    }

    fn rows<O: Observer>(
        &self,
        payload: &[u8],
        received_ns: i64,
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        let text = std::str::from_utf8(payload).map_err(|error| {
            Refusal::new("NOT_UTF8", format!("byte {} of the payload is not UTF-8", error.valid_up_to()))
        })?;
        let table = csv::read(text, self.delimiter, self.header.as_deref())?;
        for (index, row) in table.rows.iter().enumerate() {
            observer.line(Some(index));
            let mut part = Part::Row { header: &table.header, row };
            self.line.write_object(&mut part, (&Around::default(), received_ns), true, lines, observer)?;
        }
        Ok(())
    }
}

fn too_many() -> Refusal {
    let detail = format!("more than {RECORDS_MAX} records: send fewer in one message");
    Refusal::new("TOO_MANY_RECORDS", detail)
}

impl Records {
    fn bytes<O: Observer>(
        &self,
        payload: &[u8],
        message: &mut Part<'_, '_>,
        context: (&Around, i64),
        lines: &mut Lines,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        let RecordsPlace::Bytes { at, size, count } = &self.place else { return Ok(()) };
        let farthest = if let Part::Bytes(bytes) = &*message { bytes.farthest } else { 0 };
        let count = match count {
            Count::Rest => None,
            Count::Fixed(count) => Some(*count),
            Count::Value(rule) => match rule.value(Role::Field, message, observer)? {
                Found::Leaf(leaf) => {
                    Some(leaf.as_i64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
                }
                _ => Some(0),
            },
        };
        if count.is_some_and(|count| count > RECORDS_MAX) {
            return Err(too_many());
        }
        let mut start = at.unwrap_or(farthest);
        let mut index = 0;
        while count.map_or(start < payload.len(), |count| index < count) {
            if index == RECORDS_MAX {
                return Err(too_many());
            }
            let end = match size {
                Some(size) => start + size,
                None => payload.len().max(start),
            };
            if end > payload.len() {
                let detail = format!(
                    "record {index} is bytes {start} to {}: the payload has {} bytes",
                    end - 1,
                    payload.len()
                );
                return Err(Refusal::new("TOO_SHORT", detail));
            }
            observer.line(Some(index));
            let mut part = Part::Bytes(Bytes::new(payload, start..end));
            let written = self.line.write_bytes(&mut part, context, false, lines, observer);
            written.map_err(|refusal| {
                Refusal::new(refusal.code, format!("record {index}: {}", refusal.detail))
            })?;
            let behind = match (&part, size) {
                (_, Some(_)) => end,
                (Part::Bytes(bytes), None) => bytes.farthest,
                _ => start,
            };
            if behind == start {
                let detail = format!("record {index} at byte {start} has no byte: expected records.size");
                return Err(Refusal::new("BAD_RECORDS", detail));
            }
            start = behind;
            index += 1;
        }
        Ok(())
    }
}
