//! Sessions of browsers: each stands for the token that it was made of, for some hours, and ends with the gateway.
//!
//! A browser keeps a random name in a cookie, and the token stays here: no script of a page can read it. Where a
//! session was resolved, the request goes on as if it had brought the token. So a token that is changed ends its
//! sessions.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::limits::{SESSION_IDLE_MAX, SESSION_LENGTH_MAX, SESSIONS_MAX, SESSIONS_OF_ONE_MAX};

/// Bytes of the random name of a session.
const NAME_BYTES: usize = 32;

struct Session {
    token: String,
    /// The owner of the token, whose sessions are counted.
    owner: String,
    began: Instant,
    used: Instant,
}

impl Session {
    fn ends(&self) -> Instant {
        (self.began + SESSION_LENGTH_MAX).min(self.used + SESSION_IDLE_MAX)
    }
}

/// All sessions, by the SHA-256 of their names: a look-up takes the same time for a name that is nearly right.
pub struct Sessions {
    cookie: String,
    open: Mutex<HashMap<[u8; 32], Session>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

fn key(name: &str) -> [u8; 32] {
    Sha256::digest(name.as_bytes()).into()
}

impl Sessions {
    /// Sessions of the gateway at this port. Browsers tell gateways on one host apart by the cookie's name alone.
    pub fn new(port: u16) -> Self {
        Self { cookie: format!("tidegate-{port}"), open: Mutex::default() }
    }

    /// Opens a session; gives its name. The oldest of the same owner makes room, or the oldest of all.
    pub fn open(&self, token: &str, owner: &str, now: Instant) -> Option<String> {
        let mut bytes = [0; NAME_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let name = URL_SAFE_NO_PAD.encode(bytes);
        let mut open = self.open.lock();
        open.retain(|_, session| session.ends() > now);
        let of_owner = open.values().filter(|session| session.owner == owner).count();
        let is_crowded = |session: &&Session| of_owner < SESSIONS_OF_ONE_MAX || session.owner == owner;
        if of_owner >= SESSIONS_OF_ONE_MAX || open.len() >= SESSIONS_MAX {
            let oldest = open.iter().filter(|(_, session)| is_crowded(session));
            if let Some(oldest) = oldest.min_by_key(|(_, session)| session.used).map(|(key, _)| *key) {
                open.remove(&oldest);
            }
        }
        let session = Session { token: token.to_owned(), owner: owner.to_owned(), began: now, used: now };
        open.insert(key(&name), session);
        Some(name)
    }

    /// The token of a session that has not ended; its idle time begins anew.
    pub fn token(&self, name: &str, now: Instant) -> Option<String> {
        let mut open = self.open.lock();
        let session = open.get_mut(&key(name)).filter(|session| session.ends() > now)?;
        session.used = now;
        Some(session.token.clone())
    }

    /// The time that is left of a session, if it is used all the while.
    pub fn left(&self, name: &str, now: Instant) -> Option<Duration> {
        let open = self.open.lock();
        let session = open.get(&key(name)).filter(|session| session.ends() > now)?;
        Some((session.began + SESSION_LENGTH_MAX).saturating_duration_since(now))
    }

    pub fn end(&self, name: &str) {
        self.open.lock().remove(&key(name));
    }

    /// The name of the session that a request brings.
    pub fn named<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|value| value.split(';')).find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.cookie).then_some(value)
        })
    }

    /// The header that has a browser keep this name.
    pub fn set_cookie(&self, name: &str, is_tls: bool) -> String {
        let secure = if is_tls { "; Secure" } else { "" };
        let seconds = SESSION_LENGTH_MAX.as_secs();
        format!("{}={name}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", self.cookie)
    }

    /// The header that has a browser forget it.
    pub fn clear_cookie(&self) -> String {
        format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0", self.cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_ended() {
        let (sessions, began) = (Sessions::new(1), Instant::now());
        let name = sessions.open("tok", "operator", began).unwrap();
        assert_eq!(sessions.token(&name, began).as_deref(), Some("tok"));
        assert_eq!(sessions.token("other", began), None);
        assert_eq!(sessions.token(&name, began + SESSION_IDLE_MAX), None);
        // In use all the while, it ends by its length.
        let mut now = began;
        while now < began + SESSION_LENGTH_MAX {
            assert!(sessions.token(&name, now).is_some());
            now += SESSION_IDLE_MAX / 2;
        }
        assert_eq!(sessions.token(&name, now), None);
        let name = sessions.open("tok", "operator", now).unwrap();
        sessions.end(&name);
        assert_eq!(sessions.token(&name, now), None);
    }

    #[test]
    fn one_owner_takes_no_place_of_others() {
        let (sessions, now) = (Sessions::new(1), Instant::now());
        let first = sessions.open("op", "operator", now).unwrap();
        for n in 0..2 * SESSIONS_OF_ONE_MAX {
            sessions.open("t", "tenant acme", now + Duration::from_millis(n as u64)).unwrap();
        }
        assert!(sessions.token(&first, now).is_some());
        assert_eq!(sessions.open.lock().len(), SESSIONS_OF_ONE_MAX + 1);
        for n in 0..2 * SESSIONS_MAX {
            sessions.open("t", &format!("tenant {n}"), now).unwrap();
        }
        assert!(sessions.open.lock().len() <= SESSIONS_MAX);
    }

    #[test]
    fn a_cookie_is_found_among_others_by_its_port() {
        let sessions = Sessions::new(9464);
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=b; tidegate-9465=no".parse().unwrap());
        assert_eq!(sessions.named(&headers), None);
        headers.append(header::COOKIE, "c=d;tidegate-9464=yes".parse().unwrap());
        assert_eq!(sessions.named(&headers), Some("yes"));
        let cookie = sessions.set_cookie("x", true);
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.ends_with("; Secure")
        );
    }
}
