//! Components on their way in. Each tenant and the operator have places of their own, and a body that comes too
//! slowly is given up: nobody keeps another from a deployment.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::admin::respond::ApiError;
use crate::limits::{
    UPLOAD_BYTES_A_SECOND_MIN, UPLOAD_GRACE, UPLOAD_TIMEOUT, UPLOADS_A_TENANT_MAX, UPLOADS_OF_OPERATOR_MAX,
    UPLOADS_OF_TENANTS_MAX,
};
use crate::rollout::PutAuthor;

/// The uploads under way.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<HashMap<PutAuthor, usize>>);

/// The place of one upload, free again when this is dropped.
#[derive(Debug)]
pub struct UploadPlace<'a> {
    uploads: &'a Uploads,
    author: PutAuthor,
}

impl Drop for UploadPlace<'_> {
    fn drop(&mut self) {
        let mut uploads = self.uploads.0.lock();
        if let Some(count) = uploads.get_mut(&self.author) {
            *count -= 1;
            if *count == 0 {
                uploads.remove(&self.author);
            }
        }
    }
}

impl Uploads {
    /// A place for an upload.
    ///
    /// # Errors
    /// 503: this tenant, or all tenants together, have too many under way.
    pub fn take(&self, author: &PutAuthor) -> Result<UploadPlace<'_>, ApiError> {
        let mut uploads = self.0.lock();
        let own = uploads.get(author).copied().unwrap_or_default();
        let most = match author {
            PutAuthor::Operator => UPLOADS_OF_OPERATOR_MAX,
            PutAuthor::Tenant(_) => UPLOADS_A_TENANT_MAX,
        };
        if own >= most {
            return Err(busy(format!("{own} uploads with this token run already; try again")));
        }
        let of_tenants = uploads.iter().filter(|(author, _)| **author != PutAuthor::Operator);
        let of_tenants: usize = of_tenants.map(|(_, count)| count).sum();
        if *author != PutAuthor::Operator && of_tenants >= UPLOADS_OF_TENANTS_MAX {
            return Err(busy(format!("{of_tenants} uploads of tenants run already; try again")));
        }
        *uploads.entry(author.clone()).or_default() += 1;
        Ok(UploadPlace { uploads: self, author: author.clone() })
    }
}

fn busy(message: String) -> ApiError {
    ApiError { status: 503, code: "BUSY", message }
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// 413: it has more, or ended early; 408: it came too slowly.
pub async fn receive(mut body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let began = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let allowed = UPLOAD_GRACE + Duration::from_secs(bytes.len() as u64 / UPLOAD_BYTES_A_SECOND_MIN);
        let frame = match timeout_at(began + allowed.min(UPLOAD_TIMEOUT), body.frame()).await {
            Err(_) => {
                let message = format!(
                    "the upload came too slowly: {} bytes in {} s (at least {UPLOAD_BYTES_A_SECOND_MIN} bytes a second are expected, and the end within {} s)",
                    bytes.len(),
                    began.elapsed().as_secs(),
                    UPLOAD_TIMEOUT.as_secs()
                );
                return Err(ApiError { status: 408, code: "TOO_SLOW", message });
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(frame)) => frame,
        };
        let frame = frame.map_err(|error| {
            let message = format!("the upload ended early: {error}");
            ApiError { status: 400, code: "INCOMPLETE", message }
        })?;
        let data = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > most {
            return Err(too_large(most));
        }
        bytes.extend_from_slice(&data);
    }
}

/// The answer to a body of more than `most` bytes.
fn too_large(most: usize) -> ApiError {
    let message =
        format!("the component has more than {most} bytes (for larger ones the operator sets guests.large)");
    ApiError { status: 413, code: "TOO_LARGE", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_uploads_take_no_place_of_others() {
        let uploads = Uploads::default();
        let tenant = |name: &str| PutAuthor::Tenant(name.into());
        let acme: Vec<_> =
            (0..UPLOADS_A_TENANT_MAX).map(|_| uploads.take(&tenant("acme")).unwrap()).collect();
        assert_eq!(uploads.take(&tenant("acme")).unwrap_err().status, 503);
        let globex = uploads.take(&tenant("globex")).unwrap();
        drop(acme);
        uploads.take(&tenant("acme")).unwrap();
        drop(globex);
        let names: Vec<_> = (0..UPLOADS_OF_TENANTS_MAX).map(|n| tenant(&n.to_string())).collect();
        let all: Vec<_> = names.iter().map(|name| uploads.take(name).unwrap()).collect();
        assert!(uploads.take(&tenant("late")).is_err());
        let of_operator = uploads.take(&PutAuthor::Operator).unwrap();
        drop((all, of_operator));
        assert!(uploads.0.lock().is_empty());
    }
}
