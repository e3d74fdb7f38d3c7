//! An uplink event of ChirpStack v4 in JSON (its MQTT integration, `application/ID/device/DEV_EUI/event/up`).

use tidegate_json::Reader;

use crate::envelope::uplink::{
    F_CNT_MAX, F_PORT_MAX, GatewayReception, Uplink, UplinkError, bytes, integer, members, number, object,
    receptions, text,
};
use crate::limits::UPLINK_TAGS_MAX;

/// Reads a payload.
///
/// # Errors
/// It is not JSON, has no `deviceInfo`, or a value in it is of another kind.
pub fn read(payload: &[u8]) -> Result<Uplink<'_>, UplinkError> {
    let mut reader = Reader::new(payload);
    let (mut uplink, mut has_device) = (Uplink::default(), false);
    let has_object = members(&mut reader, "the payload", |reader, key| {
        match key {
            "deviceInfo" => has_device = device_info(reader, &mut uplink)?,
            "devAddr" => uplink.set_text("dev_addr", text(reader, "devAddr")?),
            "time" => uplink.received_at = text(reader, "time")?,
            "fPort" => uplink.f_port = integer(reader, "fPort", F_PORT_MAX)?,
            "fCnt" => uplink.f_cnt = integer(reader, "fCnt", F_CNT_MAX)?,
            "data" => uplink.bytes = bytes(reader, "data")?,
            "object" => uplink.object = object(reader, "object")?,
            "rxInfo" => uplink.reception = receptions(reader, "rxInfo", gateway)?,
            _ => {}
        }
        Ok(())
    })?;
    reader.end()?;
    if !has_object || !has_device {
        return Err(UplinkError::Missing("deviceInfo"));
    }
    Ok(uplink)
}

fn device_info<'a>(reader: &mut Reader<'a>, uplink: &mut Uplink<'a>) -> Result<bool, UplinkError> {
    /// Keys, their paths, and the attributes that they become.
    const TEXTS: [(&str, &str, &str); 8] = [
        ("tenantId", "deviceInfo.tenantId", "tenant_id"),
        ("tenantName", "deviceInfo.tenantName", "tenant_name"),
        ("applicationId", "deviceInfo.applicationId", "application_id"),
        ("applicationName", "deviceInfo.applicationName", "application_name"),
        ("deviceProfileId", "deviceInfo.deviceProfileId", "device_profile_id"),
        ("deviceProfileName", "deviceInfo.deviceProfileName", "device_profile_name"),
        ("deviceName", "deviceInfo.deviceName", "device_name"),
        ("devEui", "deviceInfo.devEui", "dev_eui"),
    ];
    uplink.tags.clear();
    uplink.texts.retain(|(name, _)| *name == "dev_addr");
    members(reader, "deviceInfo", |reader, key| {
        if let Some((_, path, attribute)) = TEXTS.iter().find(|(name, ..)| *name == key) {
            uplink.set_text(attribute, text(reader, path)?);
        } else if key == "tags" {
            uplink.tags.clear();
            members(reader, "deviceInfo.tags", |reader, name| {
                uplink.tags.retain(|(known, _)| known != name);
                if uplink.tags.len() == UPLINK_TAGS_MAX {
                    return Err(UplinkError::TooManyTags);
                }
                if name.len() > crate::limits::UPLINK_TEXT_BYTES_MAX {
                    return Err(UplinkError::TooLong("a key of deviceInfo.tags", name.len()));
                }
                let value = text(reader, "a value of deviceInfo.tags")?;
                uplink.tags.push((name.to_owned().into(), value.unwrap_or_default()));
                Ok(())
            })?;
        }
        Ok(())
    })
}

fn gateway<'a>(reader: &mut Reader<'a>) -> Result<GatewayReception<'a>, UplinkError> {
    let mut gateway = GatewayReception::default();
    members(reader, "rxInfo[]", |reader, key| {
        match key {
            "rssi" => gateway.rssi = number(reader, "rxInfo[].rssi")?,
            "snr" => gateway.snr = number(reader, "rxInfo[].snr")?.map(|(_, text)| text),
            "gatewayId" => gateway.gateway_id = text(reader, "rxInfo[].gatewayId")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event in the shape of the server's, with values of our own.
    const UPLINK: &str = r#"{
        "deduplicationId": "5b3f6d0c-0000-4000-8000-000000000001", "time": "2026-03-01T12:00:00.010+00:00",
        "deviceInfo": {"tenantId": "11111111-0000-4000-8000-000000000001", "tenantName": "acme",
            "applicationId": "22222222-0000-4000-8000-000000000001", "applicationName": "meters",
            "deviceProfileId": "33333333-0000-4000-8000-000000000001", "deviceProfileName": "meter",
            "deviceName": "meter 1", "devEui": "70b3d57ed0000001", "deviceClassEnabled": "CLASS_A",
            "tags": {"floor": "2", "room": ""}},
        "devAddr": "260b0001", "adr": true, "dr": 5, "fCnt": 17, "fPort": 2, "confirmed": false,
        "data": "A2cBEA==", "object": {"temperature": {"3": 27.2}},
        "rxInfo": [{"gatewayId": "0016c001ff10a235", "uplinkId": 1, "rssi": -97, "snr": 7.5},
            {"gatewayId": "0016c001ff10a236", "rssi": -42, "snr": -1.25}],
        "txInfo": {"frequency": 868100000}
    }"#;

    fn refused(payload: &str) -> String {
        read(payload.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_event_gives_its_bytes_its_object_and_what_the_network_knows() {
        let uplink = read(UPLINK.as_bytes()).unwrap();
        assert_eq!(&UPLINK[uplink.object.clone().unwrap()], r#"{"temperature": {"3": 27.2}}"#);
        let content = uplink.content();
        assert_eq!(*content.uplink.unwrap().bytes, [3, 103, 1, 16]);
        let get = |name: &str| content.attributes.get(name);
        for (name, value) in [
            ("f_port", "2"),
            ("f_cnt", "17"),
            ("received_at", "2026-03-01T12:00:00.010+00:00"),
            ("rssi", "-42"),
            ("snr", "-1.25"),
            ("gateway_id", "0016c001ff10a236"),
            ("gateways", "2"),
            ("dev_eui", "70b3d57ed0000001"),
            ("dev_addr", "260b0001"),
            ("device_name", "meter 1"),
            ("tenant_id", "11111111-0000-4000-8000-000000000001"),
            ("device_profile_name", "meter"),
            ("tags.floor", "2"),
            ("tags.room", ""),
        ] {
            assert_eq!(get(name), Some(value), "{name}");
        }
        assert_eq!(get("tags.none"), None);
    }

    #[test]
    fn what_the_server_leaves_out_is_zero_or_empty() {
        let content = read(br#"{"deviceInfo": {}}"#).unwrap().content();
        let attributes: Vec<(&str, &str)> = content.attributes.iter().collect();
        assert_eq!(attributes, [("f_port", "0"), ("f_cnt", "0")]);
        assert_eq!(content.uplink.unwrap().object, None);
    }

    #[test]
    fn what_is_no_event_says_what_and_where() {
        for (payload, words) in [
            ("7", "the payload is a number"),
            (r#"{"fPort": 2, "data": "AA=="}"#, "deviceInfo is missing"),
            (r#"{"deviceInfo": 1}"#, "deviceInfo is a number: expected an object"),
            (r#"{"deviceInfo": {}, "data": "%"}"#, "data is no base64"),
            (r#"{"deviceInfo": {}, "object": "x"}"#, "object is a string: expected an object"),
            (r#"{"deviceInfo": {"tags": []}}"#, "deviceInfo.tags is an array"),
            (r#"{"deviceInfo": {"tags": {"a": 1}}}"#, "a value of deviceInfo.tags is a number"),
            (r#"{"deviceInfo": {}, "rxInfo": {}}"#, "rxInfo is an object: expected an array"),
            (r#"{"deviceInfo": {}} x"#, "not JSON"),
        ] {
            assert!(refused(payload).contains(words), "{payload}: {}", refused(payload));
        }
        let tags: Vec<String> = (0..=UPLINK_TAGS_MAX).map(|number| format!("\"t{number}\": \"\"")).collect();
        let most = format!(r#"{{"deviceInfo": {{"tags": {{{}}}}}}}"#, tags[1..].join(", "));
        assert_eq!(read(most.as_bytes()).unwrap().tags.len(), UPLINK_TAGS_MAX);
        let over = format!(r#"{{"deviceInfo": {{"tags": {{{}}}}}}}"#, tags.join(", "));
        assert!(refused(&over).contains("more than"), "{}", refused(&over));
    }
}
