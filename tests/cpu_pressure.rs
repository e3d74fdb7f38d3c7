//! Batches that wait longer while the gateway is short of CPU: on one processor that others use too.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_simulator::Device;

use crate::durability::message;
use crate::end_to_end::topic;
use crate::harness::gateway::{Gateway, GatewayDir, tidegate};

const DEVICES: usize = 8;

const PATIENCE: Duration = Duration::from_secs(180);

/// A program that uses all of a processor until it is dropped.
struct Burner(Child);

impl Burner {
    fn start(processor: &str) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", processor, "sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A processor that this process may use (proc_pid_status(5)).
fn processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().split([',', '-']).next().unwrap().to_owned()
}

fn flush_delay(gateway: &Gateway<'_>) -> f64 {
    gateway.metric("tidegate_flush_delay_seconds{}").unwrap()
}

#[test]
fn batches_wait_longer_while_the_gateway_is_short_of_cpu_and_a_stop_writes_them() {
    let mut scene = GatewayDir::new();
    for number in 0..DEVICES {
        scene.device("acme", &format!("dev-{number}"), "lab-1");
    }
    scene.configure(
        "[admission]\nrate_per_s = 0\n\
         [output]\nkind = \"file\"\nflush_interval_ms = 100\nflush_interval_max_ms = 60000\nbatch_lines = 10000\n",
    );
    let processor = processor();
    let mut command = Command::new("taskset");
    command.args(["-c", &processor]).arg(tidegate().get_program()).arg("run");
    let gateway = scene.start_unready_by(command);
    gateway.wait("ready", |gateway| gateway.get("/readyz").0 == 200);
    assert_eq!(flush_delay(&gateway), 0.1, "nothing is short yet");

    let (ended, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..DEVICES {
            let (ended, sent, address) = (&ended, &sent, scene.listener.clone());
            scope.spawn(move || {
                let name = format!("dev-{number}");
                let mut device = Device::connect(&address, &name).unwrap();
                let mut seq = 0;
                while !ended.load(Ordering::Acquire) {
                    seq += 1;
                    device.publish(&topic("acme", &name, "telemetry"), &message(&name, seq)).unwrap();
                    sent.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let burners: Vec<Burner> = (0..3).map(|_| Burner::start(&processor)).collect();
        let stretched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            gateway.wait_for(PATIENCE, "short of CPU", |gateway| flush_delay(gateway) > 1.0);
        }));
        drop(burners);
        ended.store(true, Ordering::Release);
        stretched.unwrap();
    });
    // All of it is written, whatever the delay was when the last of it came.
    gateway.wait_for(PATIENCE, "no longer short of CPU", |gateway| flush_delay(gateway) == 0.1);
    gateway.wait_written("acme", sent.load(Ordering::Acquire));
    gateway.assert_balanced();
    assert!(gateway.stop().success());
}
