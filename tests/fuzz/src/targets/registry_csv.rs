//! A registry file: a device for each line, or a fault that names the file; and what is written is read back.

use std::fs;

use tidegate_admission::registry::FileRegistry;
use tidegate_admission::registry::file::{DeviceRecord, HEADER, read, write};

use crate::folder::temporary;
use crate::memory::peak_bytes_of;

/// Bytes of memory for each byte of a file, and beside that: a cell of one byte is a text of its own.
const BYTES_A_BYTE: usize = 256;

const OVERHEAD_BYTES: usize = 64 * 1024;

pub fn run(input: &[u8]) {
    let folder = temporary();
    let path = folder.path().join("devices.csv");
    // Otherwise hardly an input would come so far.
    let text = [HEADER.join(",").as_bytes(), b"\n", input].concat();
    let text = if input.starts_with(b"tenant_id") { input } else { &text };
    fs::write(&path, text).expect("the file can be written");
    let (opened, peak) = peak_bytes_of(|| FileRegistry::open(&path));
    assert!(peak <= OVERHEAD_BYTES + BYTES_A_BYTE * text.len(), "{peak} bytes for {}", text.len());
    let records = match (read(&path), opened) {
        (Ok(records), Ok(registry)) => {
            assert_eq!(registry.count(), records.len());
            for (_, device) in &records {
                let row = registry.lookup(&device.tenant_id, &device.device_id).expect("it was read");
                assert_eq!((&row.site_id, &row.status), (&device.site_id, &device.status));
            }
            records
        }
        // One device twice.
        (Ok(records), Err(fault)) => {
            assert!(fault.to_string().contains("devices.csv"), "{fault}");
            records
        }
        (Err(fault), Err(_)) => return assert!(fault.to_string().contains("devices.csv"), "{fault}"),
        (Err(fault), Ok(_)) => panic!("{fault}"),
    };
    let devices: Vec<DeviceRecord> = records.into_iter().map(|(_, device)| device).collect();
    write(&path, &devices).expect("the file can be written");
    let again: Vec<DeviceRecord> =
        read(&path).expect("what is written is read").into_iter().map(|(_, device)| device).collect();
    assert_eq!(again, devices);
}
