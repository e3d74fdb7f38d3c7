//! A fake of everything after a source: it takes messages, and settles them when a test says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate::core::ack::token::AckToken;
use tidegate::core::books::{Account, Outcome};
use tidegate::core::detail::Detail;
use tidegate::core::identity::{AcceptedProof, AuthError, Claim, Identity, Proof, RegistryChange};
use tidegate::core::message::Received;
use tidegate::core::reason::Reason;
use tidegate::source::sink::{Backpressure, MessageSink};
use tokio::sync::broadcast;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleMode {
    AtOnce,
    /// Only when the test says so.
    Held,
    /// Soon, in any order.
    Shuffled,
}

/// A message as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkMessage {
    pub topic: String,
    pub payload: Vec<u8>,
    pub payload_bytes: usize,
}

pub struct FakePipeline {
    pub account: Account,
    pub settling: Mutex<SettleMode>,
    /// The wait before each group is taken.
    pub delay: Mutex<Duration>,
    taken: Mutex<Vec<SinkMessage>>,
    dropped: Mutex<Vec<Reason>>,
    resumed: Mutex<Vec<Duration>>,
    refused: Mutex<Vec<(String, String)>>,
    tokens: Mutex<Vec<AckToken>>,
    revoked: Mutex<HashSet<Identity>>,
    changes: broadcast::Sender<RegistryChange>,
}

impl FakePipeline {
    pub fn new(settling: SettleMode) -> Arc<Self> {
        let downstream = Arc::new(Self {
            account: Account::new("test".into()),
            settling: Mutex::new(settling),
            delay: Mutex::default(),
            taken: Mutex::default(),
            dropped: Mutex::default(),
            resumed: Mutex::default(),
            refused: Mutex::default(),
            tokens: Mutex::default(),
            revoked: Mutex::default(),
            changes: broadcast::Sender::new(16),
        });
        if settling == SettleMode::Shuffled {
            let weak = Arc::downgrade(&downstream);
            std::thread::spawn(move || {
                let mut seed = 0x9e37_79b9_u32;
                while let Some(downstream) = weak.upgrade() {
                    downstream.settle_shuffled(&mut seed);
                    drop(downstream);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        downstream
    }

    /// Settles about half of the unsettled messages, in no order.
    fn settle_shuffled(&self, seed: &mut u32) {
        let mut held = self.tokens.lock();
        let mut chosen = Vec::new();
        for _ in 0..held.len().div_ceil(2) {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = (*seed >> 8) as usize % held.len();
            chosen.push(held.swap_remove(place));
        }
        drop(held);
        chosen.into_iter().for_each(|token| token.settle(Outcome::Lines, &self.account));
    }

    /// Settles the oldest `messages` that are unsettled.
    pub fn settle(&self, messages: usize) {
        let chosen: Vec<_> = self.tokens.lock().drain(..messages).collect();
        chosen.into_iter().for_each(|token| token.settle(Outcome::Lines, &self.account));
    }

    pub fn held(&self) -> usize {
        self.tokens.lock().len()
    }

    /// Settles all unsettled messages, and later ones at once.
    pub fn release(&self) {
        let held = {
            let mut tokens = self.tokens.lock();
            *self.settling.lock() = SettleMode::AtOnce;
            std::mem::take(&mut *tokens)
        };
        held.into_iter().for_each(|token| token.settle(Outcome::Lines, &self.account));
    }

    pub fn taken(&self) -> Vec<SinkMessage> {
        self.taken.lock().clone()
    }

    pub fn taken_count(&self) -> usize {
        self.taken.lock().len()
    }

    /// The number of different payloads that were taken.
    pub fn distinct(&self) -> usize {
        self.taken
            .lock()
            .iter()
            .map(|taken| taken.payload.clone())
            .collect::<std::collections::HashSet<_>>()
            .len()
    }

    pub fn dropped(&self, reason: Reason) -> usize {
        self.dropped.lock().iter().filter(|&&dropped| dropped == reason).count()
    }

    /// The sender and the topic of each refused message.
    pub fn refused(&self) -> Vec<(String, String)> {
        self.refused.lock().clone()
    }

    /// Revokes a device that is connected.
    pub fn revoke(&self, tenant: &str, device: &str) {
        let identity = Identity { tenant: tenant.into(), device: device.into() };
        self.revoked.lock().insert(identity.clone());
        self.changes.send(RegistryChange::Device(identity)).unwrap();
    }

    pub fn resumed(&self) -> Vec<Duration> {
        self.resumed.lock().clone()
    }
}

impl MessageSink for FakePipeline {
    async fn accept(&self, messages: Vec<Received>) -> Option<Backpressure> {
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        assert!(!messages.is_empty());
        self.account.receive(messages.len() as u64);
        for message in messages {
            self.taken.lock().push(SinkMessage {
                topic: message.topic,
                payload: message.payload.to_vec(),
                payload_bytes: message.payload_bytes,
            });
            let mut tokens = self.tokens.lock();
            if *self.settling.lock() == SettleMode::AtOnce {
                drop(tokens);
                message.token.settle(Outcome::Lines, &self.account);
            } else {
                tokens.push(message.token);
            }
        }
        None
    }

    fn discard(&self, message: Received, reason: Reason) {
        self.dropped.lock().push(reason);
        self.account.receive(1);
        message.token.settle(Outcome::Dropped, &self.account);
    }

    fn refuse(&self, message: Received, sender: &Identity, reason: Reason, detail: Detail) {
        self.refused.lock().push((sender.to_string(), message.topic.clone()));
        self.account.receive(1);
        message.token.notify_refused(reason, &detail);
        message.token.settle(Outcome::Quarantined, &self.account);
    }

    /// Knows each device whose token is `tok-{device}`; the registry is away for those of `away`.
    async fn authenticate(&self, claim: Claim) -> Result<AcceptedProof, AuthError> {
        let device = claim.identity.device.as_str();
        if claim.identity.tenant.as_str() == "away" {
            return Err(AuthError::Unavailable("it is away"));
        }
        match claim.proof {
            Proof::Token(token) if *token == *format!("tok-{device}").as_bytes() => {
                Ok(AcceptedProof::Token([0; 32]))
            }
            Proof::Token(_) => Err(AuthError::Credentials("TOKEN_INVALID")),
            Proof::Certificate if device == "revoked" => Err(AuthError::NotAuthorized("revoked")),
            Proof::Certificate => Ok(AcceptedProof::Certificate),
        }
    }

    async fn recheck(&self, identity: &Identity, _: &AcceptedProof) -> Result<(), AuthError> {
        match self.revoked.lock().contains(identity) {
            true => Err(AuthError::NotAuthorized("revoked")),
            false => Ok(()),
        }
    }

    fn registry_changes(&self) -> broadcast::Receiver<RegistryChange> {
        self.changes.subscribe()
    }

    fn session_resumed(&self, away: Duration) {
        self.resumed.lock().push(away);
    }
}
