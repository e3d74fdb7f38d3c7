//! The databases: the frames that wait for each, the turns of the tenants, and the output of each.
//!
//! A tenant with an output of its own has databases apart from those of the same name at the common one.
//! The writer sees the difference; on the disk there are names alone.

use std::collections::HashSet;

use crate::ids::{FrameId, NO_DATABASE};
use crate::index::Index;
use crate::index::database::FetchRequest;
use crate::index::stream::Stream;
use crate::settings::MemoryLimits;
use tidegate_core::ids::{DatabaseName, TenantId};

impl Index {
    /// A tenant's database where the tenant's output is now.
    pub fn at_output(&self, tenant: &TenantId, database: &DatabaseName) -> DatabaseName {
        // Parked messages go to no output.
        let has_own = database.as_str() != NO_DATABASE
            && self.table.as_ref().is_some_and(|table| table.output(tenant).is_some());
        database.at_output_of(has_own.then_some(tenant))
    }

    /// Moves streams to where their tenants' outputs are now.
    pub fn move_to_outputs(&mut self) {
        for number in 0..self.streams.len() {
            let (tenant, database) = (&self.streams[number].tenant, &self.streams[number].database);
            let there = self.at_output(tenant, database);
            if there == *database {
                continue;
            }
            let memory_bytes = self.streams[number].memory_bytes;
            let from = &mut self.databases[self.streams[number].database_number];
            from.streams.retain(|stream| *stream != number as u32);
            from.memory_bytes -= memory_bytes;
            let database_number = self.databases.number(&there);
            let to = &mut self.databases[database_number];
            to.streams.push(number as u32);
            to.memory_bytes += memory_bytes;
            let stream = &mut self.streams[number];
            stream.database = there;
            stream.database_number = database_number;
            stream.moved = true;
            if stream.waits() {
                self.unannounced.insert(stream.database.clone());
            }
        }
    }

    /// Databases with waiting frames that were not announced to the writer.
    pub fn take_unannounced(&mut self) -> HashSet<DatabaseName> {
        std::mem::take(&mut self.unannounced)
    }

    /// Chooses what the writer gets next of a database, up to `bytes_max` and what may be hot, and
    /// notes that it has it. Tenants that share the database take turns. True: more waits.
    pub fn fetch(
        &mut self,
        database: &DatabaseName,
        bytes_max: u64,
        limits: &MemoryLimits,
    ) -> (Vec<FetchRequest>, bool) {
        self.fetch_of(database, bytes_max, limits, |_| true)
    }

    /// The same as `fetch`, of some of the tenants.
    pub fn fetch_of(
        &mut self,
        database: &DatabaseName,
        bytes_max: u64,
        limits: &MemoryLimits,
        of_tenant: impl Fn(&TenantId) -> bool,
    ) -> (Vec<FetchRequest>, bool) {
        let least = limits.least(self.databases.len());
        let Some(of) = self.databases.get_mut(database) else { return (Vec::new(), false) };
        let mut wanted = Vec::new();
        let mut bytes = 0;
        let mut idle = 0;
        while idle < of.streams.len() && bytes < bytes_max {
            let number = of.streams[of.turn % of.streams.len()];
            let stream = &mut self.streams[number as usize];
            stream.skip();
            if !stream.waits() || stream.is_cursor_barred() || !of_tenant(&stream.tenant) {
                of.turn += 1;
                idle += 1;
                continue;
            }
            idle = 0;
            let seq = stream.cursor;
            let len = u64::from(stream.frame(seq).expect("the cursor stands at an open frame").len);
            let mut queued_now = 0;
            let room = of.memory_bytes < least
                || (self.memory_bytes + len <= limits.backlog_bytes_max()
                    && of.memory_bytes + len <= limits.bytes_max / 2);
            if !room {
                return (wanted, true);
            }
            let queued = stream.frame(seq).is_some_and(|frame| frame.queued != 0);
            // Of what it has of the frame it may hold an excerpt only.
            let apart =
                |stream: &mut Stream| stream.notes.as_mut()?.apart.remove(&seq).map(|(_, bytes)| bytes);
            let counted = if queued { apart(stream) } else { Some(0) };
            if let Some(counted) = counted {
                queued_now = len - counted;
                of.memory_bytes += queued_now;
                self.memory_bytes += queued_now;
            }
            let frame = stream.frame_mut(seq).expect("it was just read");
            let messages = frame.open & !frame.queued;
            frame.queued = frame.open;
            let place = frame.place();
            let (lines, kept_s) = (frame.lines, frame.kept_s);
            stream.memory_bytes += queued_now;
            bytes += len;
            stream.skip();
            let (returns, is_last) = (stream.returns, !stream.waits());
            let id = FrameId { stream: number, seq };
            wanted.push(FetchRequest { id, place, messages, lines, kept_s, returns, is_last });
            if of.streams.len() > 1 && bytes % (64 << 10) < len {
                of.turn += 1;
            }
        }
        let more = of.streams.iter().any(|&stream| self.streams[stream as usize].waits());
        (wanted, more)
    }

    /// Lines of a database in open frames.
    pub fn database_lines(&self, database: &DatabaseName) -> u64 {
        let streams = self.databases.get(database).map(|of| &of.streams[..]).unwrap_or_default();
        streams.iter().map(|&stream| self.streams[stream as usize].lines).sum()
    }

    /// Databases of which something waits to be fetched.
    pub fn waiting(&self) -> Vec<DatabaseName> {
        let waiting = self
            .databases
            .iter()
            .filter(|(name, _)| name.as_str() != NO_DATABASE)
            .filter(|(_, of)| of.streams.iter().any(|&stream| self.streams[stream as usize].waits()));
        waiting.map(|(name, _)| name.clone()).collect()
    }
}
