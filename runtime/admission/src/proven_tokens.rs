//! Tokens whose hash was found right, so that a device's token is not hashed again for each of its messages.
//!
//! A token stands beside the hash that it proved. A device whose registry entry has another hash, or that is
//! revoked, finds nothing here. The memory is fixed, and a token that is pushed out is hashed again.

use std::fmt;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::limits::{PROVEN_TOKEN_BYTES_MAX, PROVEN_TOKENS_MAX};
use crate::registry::TokenHash;

/// A token and its hash.
struct ProvenToken {
    hash: [u8; 32],
    token: [u8; PROVEN_TOKEN_BYTES_MAX],
    /// 0: there is none.
    token_bytes: u8,
}

const NO_TOKEN: ProvenToken =
    ProvenToken { hash: [0; 32], token: [0; PROVEN_TOKEN_BYTES_MAX], token_bytes: 0 };

/// The tokens, each at the place that its hash says.
pub(super) struct ProvenTokens(Box<[Mutex<ProvenToken>]>);

impl Default for ProvenTokens {
    fn default() -> Self {
        Self((0..PROVEN_TOKENS_MAX).map(|_| Mutex::new(NO_TOKEN)).collect())
    }
}

impl fmt::Debug for ProvenTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProvenTokens")
    }
}

impl ProvenTokens {
    /// True if `token` has the hash `wanted`. The time depends on the length of the right token and on nothing
    /// else of it.
    pub(super) fn matches(&self, wanted: &TokenHash, token: &str) -> bool {
        let TokenHash::Sha256(hash) = wanted else { return false };
        let token = token.as_bytes();
        if token.is_empty() || token.len() > PROVEN_TOKEN_BYTES_MAX {
            return wanted.matches(&Sha256::digest(token).into());
        }
        // Another thread has it for a moment: then the token is hashed.
        let mut proven = self.0[place_of(hash)].try_lock();
        if let Some(proven) = &proven
            && usize::from(proven.token_bytes) == token.len()
            && proven.hash == *hash
            && bool::from(proven.token[..token.len()].ct_eq(token))
        {
            return true;
        }
        let matches = wanted.matches(&Sha256::digest(token).into());
        if matches && let Some(proven) = &mut proven {
            proven.hash = *hash;
            proven.token = [0; PROVEN_TOKEN_BYTES_MAX];
            proven.token[..token.len()].copy_from_slice(token);
            proven.token_bytes = token.len() as u8;
        }
        matches
    }

    /// Forgets the token of this hash.
    pub(super) fn forget(&self, hash: &TokenHash) {
        if let TokenHash::Sha256(hash) = hash {
            let mut proven = self.0[place_of(hash)].lock();
            if proven.hash == *hash {
                *proven = NO_TOKEN;
            }
        }
    }

    /// Forgets all tokens.
    pub(super) fn forget_all(&self) {
        self.0.iter().for_each(|proven| *proven.lock() = NO_TOKEN);
    }
}

fn place_of(hash: &[u8; 32]) -> usize {
    usize::from(u16::from_le_bytes([hash[0], hash[1]])) % PROVEN_TOKENS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::token_hash;

    #[test]
    fn a_token_is_right_for_its_own_hash_only_however_often_it_was_right() {
        let tokens = ProvenTokens::default();
        let hash = |token: &str| TokenHash::parse(Some(&token_hash(token)));
        let long = "x".repeat(PROVEN_TOKEN_BYTES_MAX + 1);
        for token in ["tok-1", "", &long, &long[1..]] {
            for _ in 0..3 {
                assert!(tokens.matches(&hash(token), token), "{token:?}");
                for other in ["tok-2", "tok-1 ", "tok-", "Tok-1", "tok-11"] {
                    assert!(!tokens.matches(&hash(token), other), "{token:?} {other:?}");
                }
                assert!(!tokens.matches(&hash("another"), token));
                assert!(!tokens.matches(&TokenHash::NotSet, token));
                assert!(!tokens.matches(&TokenHash::Unmatchable, token));
            }
        }
        tokens.forget(&hash(&long[1..]));
        assert!(tokens.0.iter().filter(|proven| proven.lock().token_bytes > 0).count() == 1);
        tokens.forget_all();
        assert!(tokens.0.iter().all(|proven| proven.lock().token_bytes == 0));
        assert!(!tokens.matches(&hash("tok-1"), "tok-2") && tokens.matches(&hash("tok-1"), "tok-1"));
    }

    #[test]
    fn a_token_whose_hash_shares_a_place_pushes_the_other_out_and_takes_nothing_of_it() {
        let tokens = ProvenTokens::default();
        // The place is that of the right hash; the token beside it is of another.
        let right = TokenHash::parse(Some(&token_hash("tok-1")));
        assert!(tokens.matches(&right, "tok-1"));
        let TokenHash::Sha256(mut near) = right else { unreachable!() };
        near[31] ^= 1;
        assert!(!tokens.matches(&TokenHash::Sha256(near), "tok-1"));
    }
}
