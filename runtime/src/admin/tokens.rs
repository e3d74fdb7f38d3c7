//! The owners of tokens: the operator's is for everything, a tenant's for its own guests.
//!
//! Tenants' tokens lie in a folder, a file a tenant, named as its folder of guests. They are read
//! when they are needed, so that one is changed by changing its file.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::admin::access::{Access, AdminTokens};
use crate::admin::respond::ApiError;
use crate::rollout::PutAuthor;

/// The caller, by the token that it brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Operator,
    Tenant(String),
    /// By the token that only reads.
    Reader,
    /// Without a token, from the loopback, where none is asked for.
    Anybody,
}

impl Caller {
    /// The author of a change. Only callers with a token change anything.
    pub fn author(self) -> PutAuthor {
        match self {
            Self::Operator | Self::Reader | Self::Anybody => PutAuthor::Operator,
            Self::Tenant(tenant) => PutAuthor::Tenant(tenant),
        }
    }
}

type TokenDigest = [u8; 32];

/// Tenants and their tokens, with the time of reading them.
type CachedTokens = (Instant, Vec<(String, TokenDigest)>);

/// The operator's token, and those of the tenants' folder.
pub struct TenantTokens {
    admin: AdminTokens,
    folder: Option<PathBuf>,
    /// The tenants' tokens as SHA-256, and when they were read.
    read: Mutex<Option<CachedTokens>>,
}

impl fmt::Debug for TenantTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantTokens").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The time for which tokens that were read hold: a flood of calls is no flood of file accesses.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// Tenants with a token of their own.
const TOKENS_MAX: usize = 10_000;

/// Bytes of a token.
const TOKEN_BYTES_MAX: u64 = 4_096;

impl TenantTokens {
    pub fn new(admin: AdminTokens, folder: Option<PathBuf>) -> Self {
        Self { admin, folder, read: Mutex::default() }
    }

    /// The owner of this token, if it may act in a tenant's folder.
    ///
    /// # Errors
    /// 401: no token, or one that nobody has; 403: one of another tenant, or there is none at all
    /// where one is needed.
    pub fn caller(&self, given: Option<&str>, tenant: &str, needs_token: bool) -> Result<Caller, ApiError> {
        let has_operator = !self.admin.operator.is_empty();
        let Some(given) = given else {
            if !has_operator && !needs_token {
                return Ok(Caller::Anybody);
            }
            if !has_operator && self.folder.is_none() {
                let message = "this needs a token: set admin.token_file, or admin.tenant_tokens_dir";
                return Err(ApiError { status: 403, code: "TOKEN_NEEDED", message: message.into() });
            }
            return Err(unauthorized());
        };
        match self.admin.access(Some(given)) {
            Access::Operator => return Ok(Caller::Operator),
            Access::Reader if needs_token => {
                let message = "this token only reads, and no payloads".to_owned();
                return Err(ApiError { status: 403, code: "FORBIDDEN", message });
            }
            Access::Reader => return Ok(Caller::Reader),
            Access::Nobody | Access::Tenant => {}
        }
        match self.owner(&hash(given)) {
            Some(owner) if owner == tenant => Ok(Caller::Tenant(owner)),
            Some(_) => {
                let message = format!("this token is not valid for the decoders of {tenant:?}");
                Err(ApiError { status: 403, code: "FORBIDDEN", message })
            }
            None if !has_operator && self.folder.is_none() && !needs_token => Ok(Caller::Anybody),
            None => Err(unauthorized()),
        }
    }

    /// The tenant whose token this is, by the name of its folder.
    pub fn owner_of(&self, token: &str) -> Option<String> {
        self.owner(&hash(token)).filter(|_| !token.is_empty())
    }

    fn owner(&self, given: &TokenDigest) -> Option<String> {
        let folder = self.folder.as_ref()?;
        let mut read = self.read.lock();
        let tokens = match &mut *read {
            Some((at, tokens)) if at.elapsed() < BELIEVED_FOR => tokens,
            place => &mut place.insert((Instant::now(), read_tokens(folder))).1,
        };
        // All are compared, whichever it is.
        let mut owner = None;
        for (tenant, token) in tokens {
            if bool::from(token.ct_eq(given)) {
                owner = Some(tenant.clone());
            }
        }
        owner
    }
}

fn unauthorized() -> ApiError {
    let message = "this needs a token: Authorization: Bearer …".to_owned();
    ApiError { status: 401, code: "UNAUTHORIZED", message }
}

fn hash(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

fn read_tokens(folder: &PathBuf) -> Vec<(String, TokenDigest)> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, folder = %folder.display(), "the tenants' tokens cannot be read");
            return Vec::new();
        }
    };
    let mut tokens = Vec::new();
    for entry in entries.flatten().take(TOKENS_MAX) {
        let Ok(tenant) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        // What all tenants share is no tenant's.
        if tenant.starts_with(['_', '.']) || !path.is_file() {
            continue;
        }
        match read_token(&path) {
            Ok(Some(token)) => tokens.push((tenant, token)),
            Ok(None) => tracing::warn!(tenant, "a token that others can read, or an empty one, is no token"),
            Err(error) => tracing::warn!(%error, tenant, "a tenant's token cannot be read"),
        }
    }
    tokens
}

fn read_token(path: &PathBuf) -> std::io::Result<Option<TokenDigest>> {
    let file = fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Ok(None);
    }
    let mut token = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut token)?;
    let token = token.trim_end_matches(['\r', '\n']);
    Ok((!token.is_empty()).then(|| hash(token)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::respond::ApiError;
    use std::fs;

    fn tokens(operator: &str, tenants: &[(&str, &str, u32)]) -> (TenantTokens, tempfile::TempDir) {
        let folder = tempfile::TempDir::new().unwrap();
        for (tenant, token, mode) in tenants {
            let path = folder.path().join(tenant);
            fs::write(&path, format!("{token}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        let admin = AdminTokens { operator: operator.into(), reader: "rd".into() };
        (TenantTokens::new(admin, Some(folder.path().to_owned())), folder)
    }

    fn status(answer: Result<Caller, ApiError>) -> u16 {
        answer.map_or_else(|refusal| refusal.status, |_| 200)
    }

    #[test]
    fn each_token_opens_its_own_door() {
        let (tokens, _folder) =
            tokens("op", &[("acme", "a", 0o600), ("globex", "g", 0o600), ("_default", "d", 0o600)]);
        assert_eq!(tokens.caller(Some("op"), "acme", true), Ok(Caller::Operator));
        assert_eq!(tokens.caller(Some("a"), "acme", true), Ok(Caller::Tenant("acme".into())));
        assert_eq!(tokens.caller(Some("rd"), "acme", false), Ok(Caller::Reader));
        assert_eq!(status(tokens.caller(Some("rd"), "acme", true)), 403);
        assert_eq!(status(tokens.caller(Some("a"), "globex", true)), 403);
        assert_eq!(status(tokens.caller(Some("a"), "_default", false)), 403);
        assert_eq!(status(tokens.caller(Some("d"), "_default", true)), 401);
        assert_eq!(status(tokens.caller(Some("x"), "acme", false)), 401);
        assert_eq!(status(tokens.caller(None, "acme", false)), 401);
    }

    #[test]
    fn a_token_that_others_can_read_is_none() {
        let (tokens, _folder) = tokens("op", &[("acme", "a", 0o644), ("globex", "", 0o600)]);
        assert_eq!(status(tokens.caller(Some("a"), "acme", true)), 401);
        assert_eq!(status(tokens.caller(Some(""), "globex", true)), 401);
    }

    #[test]
    fn without_any_token_there_is_reading_and_no_changing() {
        let tokens = TenantTokens::new(AdminTokens::default(), None);
        assert_eq!(tokens.caller(None, "acme", false), Ok(Caller::Anybody));
        let refusal = tokens.caller(None, "acme", true).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (403, "TOKEN_NEEDED"));
        assert_eq!(status(tokens.caller(Some(""), "acme", true)), 401);
    }
}
