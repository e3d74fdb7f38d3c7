//! The subjects of a comparison: this build with decoders of either kind, and another build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::Paths;
use crate::scale::options::Options;

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Subject {
    pub name: &'static str,
    pub binary: PathBuf,
    /// The route file of the decoder of all tenants.
    pub route_file: &'static str,
}

pub const SHARED: &str = "shared";
pub const OWN: &str = "own";
pub const OTHER: &str = "other build";

const ROUTE: &str = "isolation = \"route\"\n";
const INSTANCE: &str = "isolation = \"instance\"\n";

/// The columns: an instance that all tenants share, an instance for each tenant, and the other build
/// as it comes.
pub fn subjects(paths: &Paths, options: &Options) -> Result<Vec<Subject>> {
    let this = |name, route_file| Subject { name, binary: paths.binary.clone(), route_file };
    let mut subjects = if knows(paths, &paths.binary, ROUTE)? {
        vec![this(SHARED, ROUTE), this(OWN, INSTANCE)]
    } else {
        vec![this(OWN, "")]
    };
    subjects.extend(other(options));
    Ok(subjects)
}

/// This build as it comes, and the other one.
pub fn builds(paths: &Paths, options: &Options) -> Vec<Subject> {
    let this = Subject { name: "this build", binary: paths.binary.clone(), route_file: "" };
    std::iter::once(this).chain(other(options)).collect()
}

fn other(options: &Options) -> Option<Subject> {
    options.against.clone().map(|binary| Subject { name: OTHER, binary, route_file: "" })
}

/// True if the binary takes a route file.
fn knows(paths: &Paths, binary: &Path, route_file: &str) -> Result<bool> {
    let folder = paths.scratch.join("knows");
    let decoders = folder.join("guests/_default");
    fs::create_dir_all(&decoders)?;
    fs::copy(paths.guests.join("pulse.wasm"), decoders.join("telemetry.wasm"))?;
    fs::write(folder.join("tidegate.toml"), "[listen]\naddress = \"127.0.0.1:0\"\n")?;
    fs::write(folder.join("devices.csv"), "tenant_id,device_id,site_id,status,provision_token_hash\n")?;
    let valid = |route_file: &str| -> Result<bool> {
        fs::write(decoders.join("telemetry.toml"), route_file)?;
        Ok(Command::new(binary).arg("validate").current_dir(&folder).output()?.status.success())
    };
    ensure!(valid("")?, "{} finds a plain folder invalid", binary.display());
    valid(route_file)
}
