//! Which SUBSCRIBE and UNSUBSCRIBE a session needs, so that it holds our filter and no other.
//!
//! The wanted filter is subscribed to before an old one is given up: what lies between is then
//! delivered twice rather than not at all.

use std::io;

use super::session_file::SessionFile;
use crate::source::packet::{SUBSCRIBE_REFUSED, encode};

/// What a SUBACK or UNSUBACK made of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The filter is granted at this QoS.
    Granted(u8),
    Refused,
    /// An old filter is gone.
    Dropped,
    /// An answer to nothing that we asked.
    Unasked,
}

/// The subscription of one connection.
#[derive(Debug)]
pub struct Subscription<'a> {
    file: &'a mut SessionFile,
    wanted: &'a str,
    last_packet_id: u16,
    subscribing: Option<u16>,
    unsubscribing: Vec<(u16, String)>,
}

impl<'a> Subscription<'a> {
    /// Begins after a CONNACK: a session that the broker has lost holds nothing.
    ///
    /// # Errors
    /// When the session file cannot be written.
    pub fn begin(file: &'a mut SessionFile, wanted: &'a str, session_present: bool) -> io::Result<Self> {
        if !session_present {
            file.set(Vec::new(), false)?;
        }
        Ok(Self { file, wanted, last_packet_id: 0, subscribing: None, unsubscribing: Vec::new() })
    }

    /// Whether the session holds our filter.
    pub fn is_granted(&self) -> bool {
        self.file.held().granted && self.file.held().filters.iter().any(|held| held == self.wanted)
    }

    fn packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        self.last_packet_id
    }

    /// Asks for what is missing, and gives up what is too much once ours is granted.
    ///
    /// # Errors
    /// When the session file cannot be written; nothing is asked for then.
    pub fn ask(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.is_granted() {
            let mut filters = self.file.held().filters.clone();
            if !filters.iter().any(|held| held == self.wanted) {
                filters.push(self.wanted.to_owned());
            }
            self.file.set(filters, false)?;
            let id = self.packet_id();
            self.subscribing = Some(id);
            encode::subscribe(out, id, self.wanted);
            return Ok(());
        }
        let old: Vec<_> =
            self.file.held().filters.iter().filter(|held| *held != self.wanted).cloned().collect();
        self.unsubscribing.clear();
        for filter in old {
            let id = self.packet_id();
            encode::unsubscribe(out, id, &filter);
            self.unsubscribing.push((id, filter));
        }
        Ok(())
    }

    /// Takes a SUBACK.
    ///
    /// # Errors
    /// When the session file cannot be written.
    pub fn suback(&mut self, packet_id: u16, codes: &[u8]) -> io::Result<Answer> {
        if self.subscribing != Some(packet_id) {
            return Ok(Answer::Unasked);
        }
        self.subscribing = None;
        match codes {
            &[qos] if qos < SUBSCRIBE_REFUSED => {
                self.file.set(self.file.held().filters.clone(), true)?;
                Ok(Answer::Granted(qos))
            }
            _ => Ok(Answer::Refused),
        }
    }

    /// Takes an UNSUBACK.
    ///
    /// # Errors
    /// When the session file cannot be written.
    pub fn unsuback(&mut self, packet_id: u16) -> io::Result<Answer> {
        let Some(place) = self.unsubscribing.iter().position(|(id, _)| *id == packet_id) else {
            return Ok(Answer::Unasked);
        };
        let (_, filter) = self.unsubscribing.swap_remove(place);
        let filters = self.file.held().filters.iter().filter(|held| **held != filter).cloned().collect();
        self.file.set(filters, self.file.held().granted)?;
        Ok(Answer::Dropped)
    }

    /// Notes that the session is alive.
    pub fn touch(&self) {
        self.file.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> SessionFile {
        SessionFile::open(folder.path(), "b:1883", "tidegate")
    }

    #[test]
    fn a_changed_filter_is_subscribed_to_before_the_old_one_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = file(&folder);
        let mut first = Subscription::begin(&mut held, "old/#", false).unwrap();
        let mut out = Vec::new();
        first.ask(&mut out).unwrap();
        assert_eq!(out[0], 0x82);
        assert_eq!(first.suback(1, &[1]).unwrap(), Answer::Granted(1));

        // After a restart.
        let mut held = file(&folder);
        let mut second = Subscription::begin(&mut held, "new/#", true).unwrap();
        assert!(!second.is_granted());
        out.clear();
        second.ask(&mut out).unwrap();
        assert_eq!((out[0], second.file.held().filters.len()), (0x82, 2));
        assert_eq!(second.suback(1, &[1]).unwrap(), Answer::Granted(1));
        out.clear();
        second.ask(&mut out).unwrap();
        assert_eq!(out[0], 0xa2);
        assert!(out.ends_with(b"old/#"));
        assert_eq!(second.unsuback(2).unwrap(), Answer::Dropped);
        assert_eq!(file(&folder).held().filters, ["new/#"]);
    }

    #[test]
    fn a_session_that_holds_the_filter_is_asked_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = file(&folder);
        held.set(vec!["a/#".into()], true).unwrap();
        let mut out = Vec::new();
        let mut present = Subscription::begin(&mut held, "a/#", true).unwrap();
        present.ask(&mut out).unwrap();
        assert!(out.is_empty() && present.is_granted());
        let mut lost = Subscription::begin(&mut held, "a/#", false).unwrap();
        lost.ask(&mut out).unwrap();
        assert_eq!(out[0], 0x82);
    }

    #[test]
    fn a_subscribe_that_was_never_answered_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = file(&folder);
        Subscription::begin(&mut held, "a/#", false).unwrap().ask(&mut Vec::new()).unwrap();
        let mut held = file(&folder);
        let mut out = Vec::new();
        Subscription::begin(&mut held, "a/#", true).unwrap().ask(&mut out).unwrap();
        assert_eq!(out[0], 0x82);
    }

    #[test]
    fn a_refusal_grants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = file(&folder);
        let mut subscription = Subscription::begin(&mut held, "a/#", false).unwrap();
        subscription.ask(&mut Vec::new()).unwrap();
        assert_eq!(subscription.suback(9, &[1]).unwrap(), Answer::Unasked);
        assert_eq!(subscription.suback(1, &[0x80]).unwrap(), Answer::Refused);
        assert!(!subscription.is_granted());
    }
}
