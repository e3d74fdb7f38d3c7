//! The shadow run: a new version decodes what the route decoded last, beside the version that
//! serves. Nothing is sent, counted or logged; of what guests keep each works on a copy of its own.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DecodeSink;
use super::decoder::Decoder;
use super::history::Place;
use super::recent::Remembered;
use super::routes::Route;
use super::store::GuestStore;
use crate::domain::books::{Account, Outcome};
use crate::domain::ids::TenantId;
use crate::domain::limits::TRIAL_S_MAX;
use crate::domain::message::{Admitted, CheckedBatch, Refused, Tenant};
use crate::domain::reason::Reason;
use crate::domain::slot::{Connection, Slot, Window, settle_all};

/// Tries a version beside the one that serves.
///
/// # Errors
/// It fails on more of the messages that the other makes lines of than the route allows; in words.
pub fn run(
    store: &GuestStore,
    place: &Place,
    present: &Route,
    candidate: &Route,
    messages: Vec<Remembered>,
) -> Result<(), String> {
    let mut present_run = Run::new(store, place, present);
    let mut candidate_run = Run::new(store, place, candidate);
    let ends = Instant::now() + Duration::from_secs(TRIAL_S_MAX);
    let (mut compared, mut failures, mut first) = (0_u64, 0_u64, None);
    for message in messages {
        if Instant::now() >= ends {
            break;
        }
        let Made::Lines = present_run.decode(&message) else { continue };
        compared += 1;
        if let Made::Refused(reason, detail) = candidate_run.decode(&message) {
            failures += 1;
            first.get_or_insert((reason, detail));
        }
    }
    let percent = candidate.rules.probation.failures_percent_max;
    match first {
        Some((reason, detail)) if failures * 100 > percent * compared => Err(format!(
            "it fails on {failures} of the last {compared} messages from which {} makes lines; at most {percent} % are allowed: {reason}: {detail}",
            present.guest.tag
        )),
        _ => Ok(()),
    }
}

/// What a version made of a message.
enum Made {
    Lines,
    Nothing,
    Refused(Reason, String),
}

/// One version with a decoder of its own.
struct Run {
    decoder: Decoder,
    connection: Arc<Connection>,
}

impl Run {
    fn new(store: &GuestStore, place: &Place, route: &Route) -> Self {
        let alone = Arc::new(store.alone(place, route.for_trial(), store.kept().copy()));
        let connection = Connection::new(Arc::new(Window::new(u64::MAX, u64::MAX)));
        Self { decoder: Decoder::new(alone), connection }
    }

    fn decode(&mut self, message: &Remembered) -> Made {
        let tenant = of_trial(&message.tenant);
        tenant.account.receive(1);
        let message = Admitted {
            topic: message.topic.clone(),
            message_type: message.message_type.clone(),
            payload: message.payload.clone(),
            received_ns: message.received_ns,
            tenant,
            device: message.device.clone(),
            slot: self.connection.receive_unacknowledged(0),
        };
        let seen = Seen(RefCell::new(Made::Nothing));
        self.decoder.decode(vec![message], &seen);
        seen.0.into_inner()
    }
}

/// The tenant with books that nobody reads.
fn of_trial(tenant: &Tenant) -> Arc<Tenant> {
    let account = Arc::new(Account::new(TenantId::new(tenant.id.as_str())));
    Arc::new(Tenant::new(tenant.id.clone(), account, (*tenant.rules()).clone()))
}

/// Where the messages of a trial end.
struct Seen(RefCell<Made>);

impl DecodeSink for Seen {
    fn lines(&self, batch: CheckedBatch) {
        if !batch.messages.is_empty() {
            self.0.replace(Made::Lines);
        }
        batch.settle();
    }

    fn empty(&self, messages: Vec<Slot>, account: &Arc<Account>) {
        settle_all(messages, Outcome::Empty, account);
    }

    fn refused(&self, messages: Vec<Refused>) {
        for message in messages {
            self.0.replace(Made::Refused(message.reason, message.detail));
            message.slot.settle(Outcome::Quarantined, &message.account);
        }
    }
}
