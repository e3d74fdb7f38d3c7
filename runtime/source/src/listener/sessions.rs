//! The sessions of devices that asked for one (clean session 0), beyond their connections: for messages that
//! come again to a route with state. No other part of a session is stored, and none over a restart.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits;
use tidegate_core::ack::redelivery::RedeliveryFilter;

/// The redelivery filters of sessions, by client id.
#[derive(Debug, Default)]
pub struct DeviceSessions {
    known: Mutex<HashMap<Box<str>, Arc<RedeliveryFilter>, foldhash::fast::RandomState>>,
}

impl DeviceSessions {
    /// Resumes the session of a client id, or begins one. None if there is no room for another: its messages
    /// may then be decoded again.
    pub fn resume(&self, client_id: &str) -> Option<Arc<RedeliveryFilter>> {
        let mut known = self.known.lock();
        if let Some(session) = known.get(client_id) {
            return Some(session.clone());
        }
        if known.len() >= limits::LISTENER_SESSIONS_MAX {
            // Anybody can name client ids: those whose device is not here make room, strangers first. A
            // stranger takes no room of a device that proved itself.
            let of_stranger = |client_id: &str| client_id.starts_with('\0');
            let absent = known
                .iter()
                .filter(|(_, session)| Arc::strong_count(session) == 1)
                .map(|(client_id, _)| client_id)
                .min_by_key(|client_id| !of_stranger(client_id))
                .filter(|absent| of_stranger(absent) || !of_stranger(client_id))
                .cloned()?;
            known.remove(&absent);
        }
        let session = Arc::new(RedeliveryFilter::new(limits::LISTENER_SESSION_IDS_MAX));
        known.insert(client_id.into(), session.clone());
        Some(session)
    }

    /// Drops the session of a device that wants none any more.
    pub fn forget(&self, client_id: &str) {
        self.known.lock().remove(client_id);
    }

    /// Called when a connection of the session has ended; drops the session if no message can come again.
    pub fn suspend(&self, client_id: &str, session: &Arc<RedeliveryFilter>) {
        let mut known = self.known.lock();
        if session.is_over() && known.get(client_id).is_some_and(|known| Arc::ptr_eq(known, session)) {
            known.remove(client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use std::sync::Arc;
    use tidegate_core::ack::tracker::AckTracker;
    use tidegate_core::ack::window::ReceiveWindow;

    #[test]
    fn a_session_is_kept_as_long_as_something_may_come_again() {
        let sessions = DeviceSessions::default();
        let window = Arc::new(ReceiveWindow::new(10, 1_000));
        let session = sessions.resume("pump").unwrap();
        let connection = AckTracker::builder(window.clone()).session(Some(session.clone())).build();
        connection.end();
        sessions.suspend("pump", &session);
        assert!(!Arc::ptr_eq(&session, &sessions.resume("pump").unwrap()), "nothing could come again");

        let session = sessions.resume("pump").unwrap();
        let connection = AckTracker::builder(window).session(Some(session.clone())).build();
        let _slot = connection.receive(7, 10);
        connection.end();
        sessions.suspend("pump", &session);
        assert!(Arc::ptr_eq(&session, &sessions.resume("pump").unwrap()));
        sessions.forget("pump");
        assert!(!Arc::ptr_eq(&session, &sessions.resume("pump").unwrap()));
    }

    #[test]
    fn a_stranger_takes_no_room_of_a_device_that_proved_itself() {
        let sessions = DeviceSessions::default();
        for n in 0..limits::LISTENER_SESSIONS_MAX {
            assert!(sessions.resume(&format!("acme\0device-{n}")).is_some());
        }
        assert!(sessions.resume("\0stranger").is_none());
        assert!(sessions.resume("globex\0device").is_some());
    }

    #[test]
    fn those_who_are_not_here_make_room() {
        let sessions = DeviceSessions::default();
        let here = sessions.resume("here").unwrap();
        for n in 0..limits::LISTENER_SESSIONS_MAX + 10 {
            assert!(sessions.resume(&format!("stranger-{n}")).is_some());
        }
        assert!(Arc::ptr_eq(&here, &sessions.resume("here").unwrap()));
        assert!(sessions.known.lock().len() <= limits::LISTENER_SESSIONS_MAX);
    }
}
