//! The state that decoders keep between messages, as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::admin::respond::{ApiError, ApiResult, route_key};
use crate::core::decoder_state::{StateSnapshot, Values};
use crate::core::route_key::{ANY, DEFAULT, file_name};
use crate::limits::{STATE_LISTED_BYTES_MAX, STATE_LISTED_MAX};

/// The state of a tenant's message type, by the names of folder and file; of one partition, if it is
/// named.
///
/// # Errors
/// They are no names, or name what belongs to all tenants or types; or there is no such partition.
pub fn show(image: &StateSnapshot, tenant: &str, message_type: &str, partition: Option<&str>) -> ApiResult {
    route_key(tenant, message_type)?;
    if tenant == DEFAULT || message_type == ANY {
        let message = format!(
            "state is kept for a tenant and a message type, whichever guest decodes it: name both instead of \
             {tenant}/{message_type}"
        );
        return Err(ApiError { status: 400, code: "BAD_NAME", message });
    }
    let of_route = image.routes().find(|(scope, _)| {
        file_name(scope.tenant.as_str()) == tenant && file_name(&scope.message_type) == message_type
    });
    let values = of_route.map(|(_, values)| values);
    let mut partitions: Vec<_> = values.into_iter().flat_map(|values| values.partitions()).collect();
    if let Some(partition) = partition {
        partitions.retain(|(name, _)| ***name == *partition);
        if partitions.is_empty() {
            let message =
                format!("there is no state of {tenant}/{message_type} in the partition {partition:?}");
            return Err(ApiError { status: 404, code: "NO_SUCH_PARTITION", message });
        }
    }
    partitions.sort_unstable_by_key(|(name, _)| *name);
    let mut bytes_shown = 0;
    let mut is_shown = |values: &Values| {
        // One that is asked for alone is shown, whatever it has.
        let fits = bytes_shown == 0 || bytes_shown < STATE_LISTED_BYTES_MAX;
        bytes_shown += values.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        fits
    };
    let all = partitions.len();
    let listed: Vec<Value> = partitions
        .into_iter()
        .take(STATE_LISTED_MAX)
        .take_while(|(_, values)| is_shown(values))
        .map(|(name, values)| json!({"partition": &**name, "values": shown(values)}))
        .collect();
    let more = all - listed.len();
    let bytes = values.map_or(0, |values| values.bytes());
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
        let all = show(&image, "acme", "%5Fmeter", None).unwrap();
        assert_eq!(all["partitions"][0]["partition"], "d1");
        assert_eq!(all["partitions"][0]["values"][0]["text"], "text");
        assert_eq!(all["partitions"][1]["values"][0]["u64"], 7);
        let one = show(&image, "acme", "%5Fmeter", Some("d2")).unwrap();
        assert_eq!(one["partitions"].as_array().unwrap().len(), 1);
        assert_eq!(show(&image, "acme", "other", None).unwrap()["partitions"], json!([]));
        assert_eq!(show(&image, "acme", "%5Fmeter", Some("d3")).unwrap_err().status, 404);
        assert_eq!(show(&image, "_default", "x", None).unwrap_err().status, 400);
        assert_eq!(show(&image, "..", "x", None).unwrap_err().status, 400);
    }
}
