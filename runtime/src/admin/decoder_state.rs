//! The state that decoders keep between messages, as JSON.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::admin::respond::{ApiError, ApiResult, route_key};
use crate::core::decoder_state::{StateSnapshot, Values};
use crate::core::route_key::{ANY, DEFAULT, file_name};
use crate::limits::{STATE_LISTED_BYTES_MAX, STATE_LISTED_MAX};

/// A part of the state of one route, of bounded size.
#[derive(Debug)]
pub struct StateExcerpt {
    /// The partitions with their values, by name.
    partitions: Vec<(Arc<str>, Values)>,
    /// The number of partitions that are not among them.
    more: usize,
    /// Bytes of the whole state of the route.
    bytes: u64,
}

/// The excerpt for a tenant's message type, by the names of folder and file; of one partition, if it is named.
pub fn excerpt(
    image: &StateSnapshot,
    tenant: &str,
    message_type: &str,
    partition: Option<&str>,
) -> StateExcerpt {
    let of_route = image.routes().find(|(scope, _)| {
        file_name(scope.tenant.as_str()) == tenant && file_name(&scope.message_type) == message_type
    });
    let Some((_, values)) = of_route else {
        return StateExcerpt { partitions: Vec::new(), more: 0, bytes: 0 };
    };
    let is_asked_for = |name: &Arc<str>| partition.is_none_or(|asked| **name == *asked);
    let mut found: Vec<_> = values.partitions().filter(|(name, _)| is_asked_for(name)).collect();
    let all = found.len();
    if all > STATE_LISTED_MAX {
        found.select_nth_unstable_by_key(STATE_LISTED_MAX, |(name, _)| *name);
        found.truncate(STATE_LISTED_MAX);
    }
    found.sort_unstable_by_key(|(name, _)| *name);
    let mut bytes_shown = 0;
    let partitions = found.into_iter().take_while(|(_, values)| {
        let fits = bytes_shown < STATE_LISTED_BYTES_MAX;
        bytes_shown += values.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        fits
    });
    let partitions: Vec<_> = partitions.map(|(name, values)| (name.clone(), values.clone())).collect();
    StateExcerpt { more: all - partitions.len(), partitions, bytes: values.bytes() }
}

/// The state of a tenant's message type, by the names of folder and file; of one partition, if it is
/// named. `read` gives the excerpt.
///
/// # Errors
/// They are no names, or name what belongs to all tenants or types; or there is no such partition.
pub fn show(
    tenant: &str,
    message_type: &str,
    partition: Option<&str>,
    read: impl FnOnce() -> StateExcerpt,
) -> ApiResult {
    route_key(tenant, message_type)?;
    if tenant == DEFAULT || message_type == ANY {
        let message = format!(
            "state is kept for a tenant and a message type, whichever guest decodes it: name both instead of \
             {tenant}/{message_type}"
        );
        return Err(ApiError { status: 400, code: "BAD_NAME", message });
    }
    let StateExcerpt { partitions, more, bytes } = read();
    if let Some(partition) = partition
        && partitions.is_empty()
    {
        let message = format!("there is no state of {tenant}/{message_type} in the partition {partition:?}");
        return Err(ApiError { status: 404, code: "NO_SUCH_PARTITION", message });
    }
    let listed: Vec<Value> = partitions
        .iter()
        .map(|(name, values)| json!({"partition": &**name, "values": shown(values)}))
        .collect();
    Ok(json!({"tenant": tenant, "type": message_type, "bytes": bytes, "partitions": listed, "more": more}))
}

/// Each value as base64, and, where it is one, as text, and as the number that the SDK makes 8 bytes of.
pub(crate) fn shown(values: &Values) -> Vec<Value> {
    let shown = |key: &str, value: &[u8]| {
        let mut shown = json!({"key": key, "bytes": value.len(), "base64": BASE64.encode(value)});
        let text = std::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control));
        if let Some(text) = text {
            shown["text"] = text.into();
        }
        if let Ok(number) = <[u8; 8]>::try_from(value) {
            shown["u64"] = u64::from_le_bytes(number).into();
        }
        shown
    };
    values.iter().map(|(key, value)| shown(key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::decoder_state::{StateScope, StateWrite};

    fn show_of(
        image: &StateSnapshot,
        tenant: &str,
        message_type: &str,
        partition: Option<&str>,
    ) -> ApiResult {
        show(tenant, message_type, partition, || excerpt(image, tenant, message_type, partition))
    }

    #[test]
    fn a_listing_is_of_bounded_size_and_says_how_much_is_left_out() {
        let mut image = StateSnapshot::default();
        let scope = StateScope { tenant: "acme".into(), message_type: "meter".into() };
        let write = |n: usize, bytes: usize| StateWrite {
            partition: format!("d{n:05}").into(),
            key: "k".into(),
            value: Some(vec![0; bytes].into()),
        };
        image.apply(&scope, (0..STATE_LISTED_MAX + 7).map(|n| write(n, 8)));
        let all = show_of(&image, "acme", "meter", None).unwrap();
        assert_eq!(
            (all["partitions"].as_array().unwrap().len(), &all["more"]),
            (STATE_LISTED_MAX, &7.into())
        );
        assert_eq!(all["partitions"][0]["partition"], "d00000");
        image.apply(&scope, (0..100).map(|n| write(n, 100_000)));
        let all = show_of(&image, "acme", "meter", None).unwrap();
        let listed = all["partitions"].as_array().unwrap().len();
        assert!((20..30).contains(&listed) && all["more"] == STATE_LISTED_MAX + 7 - listed, "{listed}");
    }

    #[test]
    fn state_is_shown_by_the_names_of_folder_and_file() {
        let mut image = StateSnapshot::default();
        let scope = StateScope { tenant: "acme".into(), message_type: "_meter".into() };
        let write = |partition: &str, key: &str, value: &[u8]| StateWrite {
            partition: partition.into(),
            key: key.into(),
            value: Some(value.into()),
        };
        image.apply(&scope, [write("d2", "n", &7u64.to_le_bytes()), write("d1", "t", b"text")]);
        let all = show_of(&image, "acme", "%5Fmeter", None).unwrap();
        assert_eq!(all["partitions"][0]["partition"], "d1");
        assert_eq!(all["partitions"][0]["values"][0]["text"], "text");
        assert_eq!(all["partitions"][1]["values"][0]["u64"], 7);
        let one = show_of(&image, "acme", "%5Fmeter", Some("d2")).unwrap();
        assert_eq!(one["partitions"].as_array().unwrap().len(), 1);
        assert_eq!(show_of(&image, "acme", "other", None).unwrap()["partitions"], json!([]));
        assert_eq!(show_of(&image, "acme", "%5Fmeter", Some("d3")).unwrap_err().status, 404);
        assert_eq!(show_of(&image, "_default", "x", None).unwrap_err().status, 400);
        assert_eq!(show_of(&image, "..", "x", None).unwrap_err().status, 400);
    }
}
