//! Devices that publish for as long as something is looked for.

use tidegate_simulator::{Device, packet};

use crate::durability::message;
use crate::end_to_end::topic;
use crate::harness::gateway::GatewayDir;
use crate::monitoring::shown::TOKEN;

pub const NO_RATE: &str = "[admission]\nrate_per_s = 0\n";

pub const FILES: &str = "[output]\nkind = \"file\"\nflush_interval_ms = 50\n";

/// A folder with a device `of-{tenant}` of each tenant.
pub fn scene_of(tenants: &[&str]) -> GatewayDir {
    let mut scene = GatewayDir::new();
    for tenant in tenants {
        scene.device(tenant, &format!("of-{tenant}"), "lab-1");
    }
    scene
}

/// Configures the listener and more, with the operator's token.
pub fn configure(scene: &mut GatewayDir, more: &str) {
    scene.configure(more);
    scene.set_token(TOKEN);
}

/// A connection of one tenant's device.
pub struct Sender {
    pub device: Device,
    tenant: &'static str,
    seq: u64,
}

impl Sender {
    pub fn of(scene: &GatewayDir, tenant: &'static str) -> Self {
        Self::named(scene, tenant, &format!("client-of-{tenant}"))
    }

    /// A further connection of it: one with the same client id would end the first.
    pub fn named(scene: &GatewayDir, tenant: &'static str, client_id: &str) -> Self {
        Self { device: Device::connect(&scene.listener, client_id).unwrap(), tenant, seq: 0 }
    }

    /// Publishes so many good messages, and waits for their PUBACKs.
    pub fn publish(&mut self, count: u64) {
        let device = format!("of-{}", self.tenant);
        let topic = topic(self.tenant, &device, "telemetry");
        let payloads: Vec<Vec<u8>> = (self.seq..self.seq + count).map(|seq| message(&device, seq)).collect();
        self.seq += count;
        let messages = payloads.iter().map(|payload| (topic.as_str(), payload.as_slice()));
        assert_eq!(self.device.publish_all(messages, 100).unwrap(), count);
    }

    /// Publishes payloads with a message type of their own, and waits for their PUBACKs.
    pub fn publish_as(&mut self, message_type: &str, payload: &str, count: usize) {
        let topic = topic(self.tenant, &format!("of-{}", self.tenant), message_type);
        let messages = (0..count).map(|_| (topic.as_str(), payload.as_bytes()));
        assert_eq!(self.device.publish_all(messages, 100).unwrap(), count as u64);
    }

    /// A good PUBLISH as it is on the wire; at QoS 0 without a packet id.
    pub fn packet(&mut self, packet_id: Option<u16>) -> Vec<u8> {
        let device = format!("of-{}", self.tenant);
        self.seq += 1;
        packet::publish(&topic(self.tenant, &device, "telemetry"), &message(&device, self.seq), packet_id)
    }
}
