//! The lines of a registry file, read one by one.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use crate::registry::csv::{CsvCell, CsvError, CsvReader};

/// The columns, in their order.
pub const HEADER: [&str; 5] = ["tenant_id", "device_id", "site_id", "status", "provision_token_hash"];

/// The reason that a registry file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot {doing} the registry {}: {error}", path.display())]
    Io { doing: &'static str, path: PathBuf, error: std::io::Error },
    #[error("the registry {}: {fault}", path.display())]
    Csv { path: PathBuf, fault: CsvError },
    #[error("the registry {}: the first line must be {}", path.display(), HEADER.join(","))]
    Header { path: PathBuf },
    #[error("the registry {}, line {line}: {found} cells, expected 5", path.display())]
    Cells { path: PathBuf, line: usize, found: usize },
    #[error("the registry {}, line {line}: {column} is empty (NULL); only provision_token_hash can be empty", path.display())]
    Null { path: PathBuf, line: usize, column: &'static str },
    #[error("the registry {}, line {line}: {tenant}/{device} is in line {first} already", path.display())]
    Twice { path: PathBuf, line: usize, first: usize, tenant: String, device: String },
    #[error("the registry {}, line {line}: more devices than fit: 16 GiB of them, or 4 GiB of tenants and sites", path.display())]
    Full { path: PathBuf, line: usize },
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    pub tenant_id: String,
    pub device_id: String,
    pub site_id: String,
    pub status: String,
    pub provision_token_hash: Option<String>,
}

/// The same as it stands in the file, without a copy.
#[derive(Debug)]
pub struct DeviceLine<'a> {
    pub tenant_id: Cow<'a, str>,
    pub device_id: Cow<'a, str>,
    pub site_id: Cow<'a, str>,
    pub status: Cow<'a, str>,
    pub provision_token_hash: Option<Cow<'a, str>>,
}

/// Reads devices one by one. Only one line is in memory.
#[derive(Debug)]
pub struct DeviceReader {
    path: PathBuf,
    records: CsvReader<BufReader<File>>,
}

impl DeviceReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, or begins with another line.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let file = File::open(path).map_err(io("read", path))?;
        let mut records = CsvReader::new(BufReader::new(file));
        let header = records.next_record().map_err(|fault| of_csv(path, fault))?;
        let good = header.is_some_and(|(_, cells)| cells.iter().map(Option::as_deref).eq(HEADER.map(Some)));
        if !good {
            return Err(RegistryError::Header { path: path.into() });
        }
        Ok(Self { path: path.into(), records })
    }

    /// The next device, and the number of its line.
    ///
    /// # Errors
    /// The file cannot be read, or the line is not valid.
    pub fn next_device(&mut self) -> Result<Option<(usize, DeviceLine<'_>)>, RegistryError> {
        let record = self.records.next_record().map_err(|fault| of_csv(&self.path, fault))?;
        let Some((line, cells)) = record else { return Ok(None) };
        Ok(Some((line, device(&self.path, line, cells)?)))
    }
}

pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RegistryError {
    let path = path.to_owned();
    move |error| RegistryError::Io { doing, path, error }
}

fn of_csv(path: &Path, fault: CsvError) -> RegistryError {
    match fault {
        CsvError::Io(error) => io("read", path)(error),
        fault => RegistryError::Csv { path: path.into(), fault },
    }
}

fn device<'a>(path: &Path, line: usize, cells: Vec<CsvCell<'a>>) -> Result<DeviceLine<'a>, RegistryError> {
    let found = cells.len();
    let Ok([tenant, device, site, status, hash]) = <[CsvCell<'a>; 5]>::try_from(cells) else {
        return Err(RegistryError::Cells { path: path.into(), line, found });
    };
    let filled = |cell: CsvCell<'a>, column| {
        cell.ok_or_else(|| RegistryError::Null { path: path.into(), line, column })
    };
    Ok(DeviceLine {
        tenant_id: filled(tenant, HEADER[0])?,
        device_id: filled(device, HEADER[1])?,
        site_id: filled(site, HEADER[2])?,
        status: filled(status, HEADER[3])?,
        provision_token_hash: hash,
    })
}

/// The lines of a registry file, with their numbers.
///
/// # Errors
/// The file cannot be read, or a line of it is not valid.
pub fn read(path: &Path) -> Result<Vec<(usize, DeviceRecord)>, RegistryError> {
    let (mut reader, mut devices) = (DeviceReader::open(path)?, Vec::new());
    while let Some((line, device)) = reader.next_device()? {
        let device = DeviceRecord {
            tenant_id: device.tenant_id.into(),
            device_id: device.device_id.into(),
            site_id: device.site_id.into(),
            status: device.status.into(),
            provision_token_hash: device.provision_token_hash.map(Cow::into_owned),
        };
        devices.push((line, device));
    }
    Ok(devices)
}
