//! The least that any gateway behind a broker must do: a bare rumqttc client that reads each
//! PUBLISH and acknowledges it, and does nothing else.

use std::time::{Duration, Instant};

use anyhow::Result;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::oneshot;

/// Subscribes, tells `ready`, and acknowledges `messages` messages. Gives the time from the first
/// to the last.
pub fn drain(address: &str, messages: usize, ready: oneshot::Sender<()>) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        let mut options = MqttOptions::new("bare", host, port.parse()?);
        options.set_clean_session(true).set_max_packet_size(1 << 20, 1 << 20).set_manual_acks(false);
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("tenant/+/device/+/+", QoS::AtLeastOnce).await?;
        let mut ready = Some(ready);
        let mut first = None;
        let mut received = 0;
        loop {
            match events.poll().await? {
                Event::Incoming(Packet::SubAck(_)) => {
                    let _ = ready.take().expect("one SUBACK").send(());
                }
                Event::Incoming(Packet::Publish(_)) => {
                    first.get_or_insert_with(Instant::now);
                    received += 1;
                    if received == messages {
                        return Ok(first.expect("just set").elapsed());
                    }
                }
                _ => {}
            }
        }
    })
}
