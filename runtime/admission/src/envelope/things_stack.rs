//! An uplink message of The Things Stack v3 (its MQTT integration, `v3/APPLICATION@TENANT/devices/DEVICE/up`).

use tidegate_json::Reader;

use crate::envelope::uplink::{
    F_CNT_MAX, F_PORT_MAX, GatewayReception, Uplink, UplinkError, bytes, integer, members, number, object,
    receptions, text,
};

/// Reads a payload.
///
/// # Errors
/// It is not JSON, has no `uplink_message`, or a value in it is of another kind.
pub fn read(payload: &[u8]) -> Result<Uplink<'_>, UplinkError> {
    let mut reader = Reader::new(payload);
    let (mut uplink, mut server_received_at, mut has_message) = (Uplink::default(), None, false);
    let has_object = members(&mut reader, "the payload", |reader, key| {
        match key {
            "end_device_ids" => device_ids(reader, &mut uplink)?,
            "received_at" => server_received_at = text(reader, "received_at")?,
            "uplink_message" => has_message = message(reader, &mut uplink)?,
            _ => {}
        }
        Ok(())
    })?;
    reader.end()?;
    if !has_object || !has_message {
        return Err(UplinkError::Missing("uplink_message"));
    }
    uplink.received_at = uplink.received_at.or(server_received_at);
    Ok(uplink)
}

fn device_ids<'a>(reader: &mut Reader<'a>, uplink: &mut Uplink<'a>) -> Result<(), UplinkError> {
    uplink.texts.clear();
    members(reader, "end_device_ids", |reader, key| {
        match key {
            "device_id" => uplink.set_text("device_id", text(reader, "end_device_ids.device_id")?),
            "dev_eui" => uplink.set_text("dev_eui", text(reader, "end_device_ids.dev_eui")?),
            "dev_addr" => uplink.set_text("dev_addr", text(reader, "end_device_ids.dev_addr")?),
            "application_ids" => {
                const KEY: &str = "end_device_ids.application_ids";
                members(reader, KEY, |reader, key| {
                    if key == "application_id" {
                        const KEY: &str = "end_device_ids.application_ids.application_id";
                        uplink.set_text("application_id", text(reader, KEY)?);
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(())
}

fn message<'a>(reader: &mut Reader<'a>, uplink: &mut Uplink<'a>) -> Result<bool, UplinkError> {
    *uplink = Uplink { texts: std::mem::take(&mut uplink.texts), ..Uplink::default() };
    members(reader, "uplink_message", |reader, key| {
        match key {
            "f_port" => uplink.f_port = integer(reader, "uplink_message.f_port", F_PORT_MAX)?,
            "f_cnt" => uplink.f_cnt = integer(reader, "uplink_message.f_cnt", F_CNT_MAX)?,
            "frm_payload" => uplink.bytes = bytes(reader, "uplink_message.frm_payload")?,
            "decoded_payload" => uplink.object = object(reader, "uplink_message.decoded_payload")?,
            "received_at" => uplink.received_at = text(reader, "uplink_message.received_at")?,
            "rx_metadata" => uplink.reception = receptions(reader, "uplink_message.rx_metadata", gateway)?,
            _ => {}
        }
        Ok(())
    })
}

fn gateway<'a>(reader: &mut Reader<'a>) -> Result<GatewayReception<'a>, UplinkError> {
    let mut gateway = GatewayReception::default();
    members(reader, "uplink_message.rx_metadata[]", |reader, key| {
        match key {
            "rssi" => gateway.rssi = number(reader, "uplink_message.rx_metadata[].rssi")?,
            "snr" => {
                gateway.snr = number(reader, "uplink_message.rx_metadata[].snr")?.map(|(_, text)| text);
            }
            "gateway_ids" => {
                members(reader, "uplink_message.rx_metadata[].gateway_ids", |reader, key| {
                    if key == "gateway_id" {
                        const KEY: &str = "uplink_message.rx_metadata[].gateway_ids.gateway_id";
                        gateway.gateway_id = text(reader, KEY)?;
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in the shape of the server's, with values of our own.
    const UPLINK: &str = r#"{
        "end_device_ids": {"device_id": "meter-1", "application_ids": {"application_id": "meters"},
            "dev_eui": "70B3D57ED0000001", "dev_addr": "260B0001"},
        "correlation_ids": ["as:up:01"],
        "received_at": "2026-03-01T12:00:00.120Z",
        "uplink_message": {
            "session_key_id": "AX==", "f_port": 2, "f_cnt": 17, "frm_payload": "A2cBEA==",
            "decoded_payload": {"temperature_3": 27.2},
            "rx_metadata": [
                {"gateway_ids": {"gateway_id": "roof", "eui": "AA"}, "rssi": -97, "channel_rssi": -97, "snr": 7.5},
                {"gateway_ids": {"gateway_id": "hall"}, "rssi": -42},
                {"packet_broker": {}}
            ],
            "settings": {"data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}}},
            "received_at": "2026-03-01T12:00:00.010Z", "consumed_airtime": "0.05s"
        }
    }"#;

    fn refused(payload: &str) -> String {
        read(payload.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_uplink_gives_its_bytes_its_object_and_what_the_network_knows() {
        let uplink = read(UPLINK.as_bytes()).unwrap();
        assert_eq!(&UPLINK[uplink.object.clone().unwrap()], r#"{"temperature_3": 27.2}"#);
        let content = uplink.content();
        assert_eq!(*content.uplink.unwrap().bytes, [3, 103, 1, 16]);
        let attributes: Vec<(&str, &str)> = content.attributes.iter().collect();
        assert_eq!(
            attributes,
            [
                ("f_port", "2"),
                ("f_cnt", "17"),
                ("received_at", "2026-03-01T12:00:00.010Z"),
                ("rssi", "-42"),
                ("snr", "0"),
                ("gateway_id", "hall"),
                ("gateways", "3"),
                ("device_id", "meter-1"),
                ("application_id", "meters"),
                ("dev_eui", "70B3D57ED0000001"),
                ("dev_addr", "260B0001"),
            ]
        );
    }

    #[test]
    fn what_the_server_leaves_out_is_zero_or_empty() {
        let uplink = read(br#"{"uplink_message": {}, "received_at": "2026-03-01T12:00:00Z"}"#).unwrap();
        assert!(uplink.object.is_none());
        let content = uplink.content();
        assert!(content.uplink.unwrap().bytes.is_empty());
        let attributes: Vec<(&str, &str)> = content.attributes.iter().collect();
        assert_eq!(attributes, [("f_port", "0"), ("f_cnt", "0"), ("received_at", "2026-03-01T12:00:00Z")]);
        let nulls = br#"{"end_device_ids": null, "uplink_message":
            {"f_port": null, "frm_payload": null, "decoded_payload": null, "rx_metadata": null}}"#;
        assert_eq!(read(nulls).unwrap().f_port, 0);
    }

    #[test]
    fn what_is_no_uplink_says_what_and_where() {
        for (payload, words) in [
            ("\u{1}", "the payload is not JSON"),
            ("{} {}", "the payload is not JSON"),
            ("[]", "the payload is an array: expected an object"),
            ("null", "uplink_message is missing"),
            (r#"{"join_accept": {}}"#, "uplink_message is missing: expected an uplink message"),
            (r#"{"uplink_message": []}"#, "uplink_message is an array: expected an object"),
            (
                r#"{"uplink_message": {"f_port": 256}}"#,
                "uplink_message.f_port is \"256\": expected an integer, 0 to 255",
            ),
            (r#"{"uplink_message": {"f_port": 1.5}}"#, "f_port is \"1.5\""),
            (r#"{"uplink_message": {"f_cnt": -1}}"#, "f_cnt is \"-1\": expected an integer, 0 to 4294967295"),
            (r#"{"uplink_message": {"f_cnt": "7"}}"#, "f_cnt is a string: expected an integer"),
            (r#"{"uplink_message": {"frm_payload": "A2c"}}"#, "uplink_message.frm_payload is no base64"),
            (r#"{"uplink_message": {"frm_payload": 7}}"#, "expected a string in base64"),
            (
                r#"{"uplink_message": {"decoded_payload": [1]}}"#,
                "decoded_payload is an array: expected an object",
            ),
            (r#"{"uplink_message": {"rx_metadata": [1]}}"#, "rx_metadata[] is a number"),
            (
                r#"{"uplink_message": {"rx_metadata": [{"rssi": "x"}]}}"#,
                "rssi is a string: expected a number",
            ),
            (
                r#"{"uplink_message": {}, "end_device_ids": {"dev_eui": 7}}"#,
                "dev_eui is a number: expected a string",
            ),
        ] {
            assert!(refused(payload).contains(words), "{payload}: {}", refused(payload));
        }
        let long = format!(r#"{{"received_at": "{}", "uplink_message": {{}}}}"#, "x".repeat(300));
        assert_eq!(refused(&long), "received_at has 300 bytes: at most 255 are taken");
        let deep = format!(r#"{{"uplink_message": {{"decoded_payload": {{"a": {}"#, "[".repeat(256));
        assert!(refused(&deep).contains("not JSON"), "{}", refused(&deep));
    }
}
