//! Parked messages, among all that the spool holds.

use std::time::Duration;

use crate::ids::{FrameId, NO_DATABASE};
use crate::index::Index;
use crate::index::database::FetchRequest;
use crate::index::stream::Stream;
use crate::limits;
use crate::parked::ParkedStatus;
use tidegate_core::ids::{DatabaseName, TenantId};

impl Index {
    fn parked_streams(&self) -> impl Iterator<Item = (u32, &Stream)> {
        let of = self.databases.get(&DatabaseName::new(NO_DATABASE)).map_or(&[][..], |of| &of.streams);
        of.iter().map(|&stream| (stream, &self.streams[stream as usize]))
    }

    /// True if a parked message can be unparked.
    pub fn has_parked(&self) -> bool {
        self.parked_streams().any(|(_, stream)| stream.waits())
    }

    /// The parked messages of each tenant. `now`: of the age clock.
    pub fn parked(&self, now: Duration) -> Vec<(TenantId, ParkedStatus)> {
        let parked = self.parked_streams().filter(|(_, stream)| stream.bytes > 0).map(|(_, stream)| {
            let messages = stream.frames.iter().map(|frame| u64::from(frame.open.count_ones())).sum();
            let oldest = stream.frames.iter().find(|frame| frame.open != 0);
            let status = ParkedStatus::new(messages, stream.bytes, oldest.map(|frame| frame.kept_s), now);
            (stream.tenant.clone(), status)
        });
        parked.collect()
    }

    /// Bytes of a tenant's frames of parked messages.
    pub fn parked_bytes(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.parked_streams().map(|(_, stream)| (&stream.tenant, stream.bytes))
    }

    /// Every frame of parked messages.
    pub fn parked_frames(&self) -> Vec<FetchRequest> {
        let of_stream = |(number, stream): (u32, &Stream)| {
            let frames = stream.open_frames().map(move |(seq, frame)| FetchRequest {
                id: FrameId { stream: number, seq },
                place: frame.place(),
                messages: frame.open,
                lines: 0,
                kept_s: frame.kept_s,
                returns: stream.returns,
                is_last: false,
            });
            frames.collect::<Vec<_>>()
        };
        self.parked_streams().flat_map(of_stream).collect()
    }

    /// True if messages may be parked of a tenant that is not authenticated.
    pub fn accepts_unauthenticated(&self, tenant: &TenantId) -> bool {
        self.find_stream(tenant.as_str(), NO_DATABASE).is_some()
            || self.parked_streams().count() < limits::PARKED_STRANGERS_MAX
    }

    /// The parked messages of a frame that nobody has in hand, for one that cannot be read. `None`: it has
    /// none parked.
    pub fn unread_parked(&self, id: FrameId) -> Option<u32> {
        let stream = &self.streams[id.stream as usize];
        let frame = stream.frame(id.seq).filter(|_| stream.is_parked())?;
        Some((frame.open & !frame.queued).count_ones())
    }
}
