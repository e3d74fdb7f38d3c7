//! Random secrets, and the hashes of passwords that Mosquitto reads.

use std::num::NonZeroU32;

use anyhow::anyhow;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};

/// 192 random bits as hexadecimal digits.
pub fn random_token() -> anyhow::Result<String> {
    Ok(random::<24>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random<const BYTES: usize>() -> anyhow::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// The rounds that `mosquitto_passwd` uses. The passwords here are random, so more would add nothing.
const ROUNDS: NonZeroU32 = NonZeroU32::new(101).expect("not zero");

/// One line of a password file of Mosquitto 2: `user:$7$rounds$salt$hash`, by PBKDF2 with SHA-512.
pub fn passwd_line(user: &str, password: &str) -> anyhow::Result<String> {
    let salt = random::<12>()?;
    let mut hash = [0; 64];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ROUNDS, &salt, password.as_bytes(), &mut hash);
    Ok(format!("{user}:$7${ROUNDS}${}${}\n", STANDARD.encode(salt), STANDARD.encode(hash)))
}
