//! A disk that is almost full: its last bytes are for the spool.

use crate::end_to_end::topic;
use crate::harness::gateway::{GatewayDir, built_guest};

#[test]
fn below_the_reserve_the_spool_goes_on_and_no_decoder_is_taken() {
    let mut scene = GatewayDir::new();
    scene.device("acme", "dev-1", "lab-1");
    scene.guest("acme", "telemetry", "pulse");
    // More than any disk has.
    scene.configure(
        "[output]\nkind = \"file\"\n[admission]\nrate_per_s = 0\n[spool]\nreserve_bytes = 9000000000000000000\n",
    );
    scene.set_token("the-operators-token");
    let gateway = scene.start();
    let ready = gateway.json("/readyz");
    let why = ready["spool"]["why"].as_str().unwrap_or_default();
    assert!(ready["ready"] == true && why.contains("spool.reserve_bytes"), "{ready:#}");
    gateway.wait("said in the log", |_| scene.log().contains("bytes free, less than spool.reserve_bytes"));
    let component = std::fs::read(built_guest("json")).unwrap();
    let token = Some("the-operators-token");
    let (status, answer) = gateway.request("PUT", "/api/v1/guests/acme/meter", token, &component);
    assert!(status == 507 && answer.contains("DISK_LOW"), "{status}: {answer}");
    assert!(!scene.path("guests/acme/meter.wasm").exists());
    let mut device = tidegate_simulator::Device::connect(&scene.listener, "dev-1").unwrap();
    let topic = topic("acme", "dev-1", "telemetry");
    let payload = crate::durability::message("dev-1", 1);
    // One is written, one is refused, and both are acknowledged.
    let messages = [(topic.as_str(), payload.as_slice()), (topic.as_str(), b"no envelope".as_slice())];
    assert_eq!(device.publish_all(messages.into_iter(), 10).unwrap(), 2);
    gateway.wait_written("acme", 1);
}
