//! The SUBSCRIBE and UNSUBSCRIBE packets that a session needs, so that it holds our filters and no others.
//!
//! The wanted filters are subscribed to before an old one is given up: a message in between is then
//! delivered twice rather than not at all.

use std::io;

use rumqttc::v5::mqttbytes::v5::{SubscribeReasonCode, UnsubAckReason};

use crate::broker::session_file::SessionFile;
use crate::broker::settings::TopicFilter;
use crate::mqtt::control::encode;

/// The effect of a SUBACK or UNSUBACK on the subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// The filters are granted, each at a QoS.
    Granted(Vec<u8>),
    /// The filter at this index is not granted.
    Refused { index: usize, reason: SubscribeReasonCode },
    /// An old filter is gone.
    Dropped,
    /// An old filter is still there.
    Kept(UnsubAckReason),
    /// An answer to nothing that we asked.
    Unasked,
}

/// The subscriptions of one connection.
#[derive(Debug)]
pub struct Subscription<'a> {
    file: &'a mut SessionFile,
    wanted: &'a [TopicFilter],
    /// The packets are of MQTT 5.
    v5: bool,
    last_packet_id: u16,
    subscribing: Option<u16>,
    unsubscribing: Vec<(u16, String)>,
}

impl<'a> Subscription<'a> {
    /// Begins after a CONNACK: a session that the broker has lost holds nothing.
    ///
    /// # Errors
    /// The session file cannot be written.
    pub fn begin(
        file: &'a mut SessionFile,
        wanted: &'a [TopicFilter],
        session_present: bool,
        v5: bool,
    ) -> io::Result<Self> {
        if !session_present {
            file.set(Vec::new(), false)?;
        }
        Ok(Self { file, wanted, v5, last_packet_id: 0, subscribing: None, unsubscribing: Vec::new() })
    }

    /// The filters that the session is to hold, with their `$share` if they are shared.
    pub fn wanted(&self) -> &'a [TopicFilter] {
        self.wanted
    }

    /// True if the session holds our filters.
    pub fn is_granted(&self) -> bool {
        let record = self.file.record();
        let holds = |wanted: &TopicFilter| {
            record.filters.contains(&wanted.filter)
                && record.unacknowledged.contains(&wanted.filter) == (wanted.qos == 0)
        };
        record.granted && self.wanted.iter().all(holds)
    }

    fn is_wanted(&self, filter: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.filter == filter)
    }

    fn packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        self.last_packet_id
    }

    /// Appends the SUBSCRIBE to our filters, or, once they are granted, an UNSUBSCRIBE from each other filter.
    ///
    /// # Errors
    /// The session file cannot be written; nothing is asked for then.
    pub fn encode_requests(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.is_granted() {
            let mut filters = self.file.record().filters.clone();
            let new = self.wanted.iter().filter(|wanted| !filters.contains(&wanted.filter));
            let new: Vec<String> = new.map(|wanted| wanted.filter.clone()).collect();
            filters.extend(new);
            let unacknowledged = self.wanted.iter().filter(|wanted| wanted.qos == 0);
            self.file.set_asked(filters, unacknowledged.map(|wanted| wanted.filter.clone()).collect())?;
            let id = self.packet_id();
            self.subscribing = Some(id);
            let filters = self.wanted.iter().map(|wanted| (wanted.filter.as_str(), wanted.qos));
            encode::subscribe(out, id, filters, self.v5);
            return Ok(());
        }
        let old: Vec<_> =
            self.file.record().filters.iter().filter(|filter| !self.is_wanted(filter)).cloned().collect();
        self.unsubscribing.clear();
        for filter in old {
            let id = self.packet_id();
            encode::unsubscribe(out, id, &filter, self.v5);
            self.unsubscribing.push((id, filter));
        }
        Ok(())
    }

    /// Takes a SUBACK.
    ///
    /// # Errors
    /// The session file cannot be written.
    pub fn suback(&mut self, packet_id: u16, codes: &[SubscribeReasonCode]) -> io::Result<SubscriptionEvent> {
        if self.subscribing != Some(packet_id) {
            return Ok(SubscriptionEvent::Unasked);
        }
        self.subscribing = None;
        let mut granted = Vec::with_capacity(self.wanted.len());
        for index in 0..self.wanted.len() {
            match codes.get(index).copied().unwrap_or(SubscribeReasonCode::Failure) {
                SubscribeReasonCode::Success(qos) => granted.push(qos as u8),
                reason => return Ok(SubscriptionEvent::Refused { index, reason }),
            }
        }
        self.file.set(self.file.record().filters.clone(), true)?;
        Ok(SubscriptionEvent::Granted(granted))
    }

    /// Takes an UNSUBACK; in MQTT 3.1.1 it gives no reasons.
    ///
    /// # Errors
    /// The session file cannot be written.
    pub fn unsuback(&mut self, packet_id: u16, reasons: &[UnsubAckReason]) -> io::Result<SubscriptionEvent> {
        let Some(position) = self.unsubscribing.iter().position(|(id, _)| *id == packet_id) else {
            return Ok(SubscriptionEvent::Unasked);
        };
        let (_, filter) = self.unsubscribing.swap_remove(position);
        match reasons.first() {
            None | Some(UnsubAckReason::Success | UnsubAckReason::NoSubscriptionExisted) => {}
            Some(&reason) => return Ok(SubscriptionEvent::Kept(reason)),
        }
        let filters = self.file.record().filters.iter().filter(|known| **known != filter).cloned().collect();
        self.file.set(filters, self.file.record().granted)?;
        Ok(SubscriptionEvent::Dropped)
    }

    /// Records that the session is alive.
    pub fn record_alive(&self) {
        self.file.record_alive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::session_file::SessionFile;
    use crate::broker::settings::TopicFilter;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{SubscribeReasonCode, UnsubAckReason};

    const GRANTED: SubscribeReasonCode = SubscribeReasonCode::Success(QoS::AtLeastOnce);

    fn filters<const N: usize>(filters: [&str; N]) -> [TopicFilter; N] {
        filters.map(|filter| TopicFilter { filter: filter.into(), qos: 1 })
    }

    fn open(folder: &tempfile::TempDir) -> SessionFile {
        SessionFile::open(folder.path(), "b:1883", "tidegate")
    }

    #[test]
    fn a_changed_filter_is_subscribed_to_before_the_old_one_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = open(&folder);
        let (old, new) = (filters(["old/#"]), filters(["new/#"]));
        let mut first = Subscription::begin(&mut file, &old, false, true).unwrap();
        let mut out = Vec::new();
        first.encode_requests(&mut out).unwrap();
        assert_eq!(out[0], 0x82);
        assert_eq!(first.suback(1, &[GRANTED]).unwrap(), SubscriptionEvent::Granted(vec![1]));

        // After a restart.
        let mut file = open(&folder);
        let mut second = Subscription::begin(&mut file, &new, true, true).unwrap();
        assert!(!second.is_granted());
        out.clear();
        second.encode_requests(&mut out).unwrap();
        assert_eq!((out[0], second.file.record().filters.len()), (0x82, 2));
        assert_eq!(second.suback(1, &[GRANTED]).unwrap(), SubscriptionEvent::Granted(vec![1]));
        out.clear();
        second.encode_requests(&mut out).unwrap();
        assert_eq!(out[0], 0xa2);
        assert!(out.ends_with(b"old/#"));
        assert_eq!(second.unsuback(2, &[UnsubAckReason::Success]).unwrap(), SubscriptionEvent::Dropped);
        assert_eq!(open(&folder).record().filters, ["new/#"]);
    }

    #[test]
    fn a_session_that_holds_the_filter_is_asked_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = open(&folder);
        file.set(vec!["a/#".into()], true).unwrap();
        let (mut out, wanted) = (Vec::new(), filters(["a/#"]));
        let mut present = Subscription::begin(&mut file, &wanted, true, true).unwrap();
        present.encode_requests(&mut out).unwrap();
        assert!(out.is_empty() && present.is_granted());
        let mut lost = Subscription::begin(&mut file, &wanted, false, true).unwrap();
        lost.encode_requests(&mut out).unwrap();
        assert_eq!(out[0], 0x82);
    }

    #[test]
    fn a_subscribe_that_was_never_answered_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = open(&folder);
        let wanted = filters(["a/#"]);
        Subscription::begin(&mut file, &wanted, false, true)
            .unwrap()
            .encode_requests(&mut Vec::new())
            .unwrap();
        let mut file = open(&folder);
        let mut out = Vec::new();
        Subscription::begin(&mut file, &wanted, true, true).unwrap().encode_requests(&mut out).unwrap();
        assert_eq!(out[0], 0x82);
    }

    #[test]
    fn a_refusal_grants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = open(&folder);
        let wanted = filters(["a/#"]);
        let mut subscription = Subscription::begin(&mut file, &wanted, false, true).unwrap();
        subscription.encode_requests(&mut Vec::new()).unwrap();
        assert_eq!(subscription.suback(9, &[GRANTED]).unwrap(), SubscriptionEvent::Unasked);
        assert_eq!(
            subscription.suback(1, &[SubscribeReasonCode::NotAuthorized]).unwrap(),
            SubscriptionEvent::Refused { index: 0, reason: SubscribeReasonCode::NotAuthorized }
        );
        assert!(!subscription.is_granted());
    }

    #[test]
    fn an_old_filter_that_the_broker_does_not_give_up_is_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = open(&folder);
        file.set(vec!["old/#".into(), "$share/gateways/new/#".into()], true).unwrap();
        let wanted = filters(["$share/gateways/new/#"]);
        let mut subscription = Subscription::begin(&mut file, &wanted, true, true).unwrap();
        assert!(subscription.is_granted());
        for (id, reason, answer) in [
            (1, UnsubAckReason::NotAuthorized, SubscriptionEvent::Kept(UnsubAckReason::NotAuthorized)),
            (2, UnsubAckReason::NoSubscriptionExisted, SubscriptionEvent::Dropped),
        ] {
            let mut out = Vec::new();
            subscription.encode_requests(&mut out).unwrap();
            assert_eq!(out[0], 0xa2);
            assert_eq!(subscription.unsuback(id, &[reason]).unwrap(), answer);
        }
        assert_eq!(open(&folder).record().filters, ["$share/gateways/new/#"]);
    }

    #[test]
    fn several_filters_are_asked_for_at_once_and_granted_when_all_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = filters(["a/#", "b/+"]);
        wanted[1].qos = 0;
        let mut file = open(&folder);
        file.set(vec!["b/+".into()], true).unwrap();
        let mut subscription = Subscription::begin(&mut file, &wanted, true, true).unwrap();
        assert!(!subscription.is_granted());
        let mut out = Vec::new();
        subscription.encode_requests(&mut out).unwrap();
        assert_eq!(out, [0x82, 15, 0, 1, 0, 0, 3, b'a', b'/', b'#', 1, 0, 3, b'b', b'/', b'+', 0]);
        let none = SubscribeReasonCode::Success(QoS::AtMostOnce);
        let refused = |index, reason| SubscriptionEvent::Refused { index, reason };
        let denied = SubscribeReasonCode::NotAuthorized;
        assert_eq!(subscription.suback(1, &[GRANTED, denied]).unwrap(), refused(1, denied));
        assert!(!subscription.is_granted());
        subscription.encode_requests(&mut out).unwrap();
        assert_eq!(subscription.suback(2, &[GRANTED]).unwrap(), refused(1, SubscribeReasonCode::Failure));
        subscription.encode_requests(&mut out).unwrap();
        assert_eq!(subscription.suback(3, &[GRANTED, none]).unwrap(), SubscriptionEvent::Granted(vec![1, 0]));
        assert!(subscription.is_granted());

        // After a restart nothing is asked for, but for another QoS.
        let mut file = open(&folder);
        assert!(Subscription::begin(&mut file, &wanted, true, true).unwrap().is_granted());
        wanted[1].qos = 1;
        assert!(!Subscription::begin(&mut file, &wanted, true, true).unwrap().is_granted());
        // One that is no longer wanted is given up.
        let one = [wanted[0].clone()];
        let mut fewer = Subscription::begin(&mut file, &one, true, true).unwrap();
        out.clear();
        fewer.encode_requests(&mut out).unwrap();
        assert!(out[0] == 0xa2 && out.ends_with(b"b/+"));
    }
}
