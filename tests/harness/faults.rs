//! A disk that fails on command, and a wall clock that steps: a small library preloaded into the gateway
//! under test answers its calls on the files of the spool with an error, and its questions for the
//! time with another one. See faults.c.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::gateway::GatewayDir;

pub struct Faults {
    control: PathBuf,
    dir: PathBuf,
}

impl Faults {
    /// Prepares faults for the spool of a gateway.
    pub fn on(scene: &GatewayDir) -> Self {
        let faults = Self { control: scene.path("faults"), dir: scene.path("data/spool") };
        faults.set("");
        faults.step_clock(0);
        faults
    }

    /// Sets how far the wall clock of the gateway is ahead of the machine's, in seconds; the time that
    /// passes is the same.
    pub fn step_clock(&self, seconds: i64) {
        // The file is mapped by the gateway: it is written in place.
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).open(self.clock()).unwrap();
        file.write_all(&(seconds * 1_000_000_000).to_ne_bytes()).unwrap();
    }

    fn clock(&self) -> PathBuf {
        self.control.with_extension("clock")
    }

    /// Sets the faults, `CALL ERROR` on each line; an empty text sets none.
    pub fn set(&self, text: &str) {
        let staged = self.control.with_extension("staged");
        std::fs::write(&staged, text).unwrap();
        std::fs::rename(staged, &self.control).unwrap();
    }

    pub fn environment(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("LD_PRELOAD", library().to_owned()),
            ("RIG_FAULTS", self.control.clone()),
            ("RIG_CLOCK", self.clock()),
            (
                "RIG_FAULTS_DIR",
                std::fs::canonicalize(self.dir.parent().unwrap().parent().unwrap())
                    .unwrap()
                    .join("data/spool"),
            ),
        ]
    }
}

/// Built once, by the C compiler that Rust links with.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = root.join("target/tmp");
        std::fs::create_dir_all(&folder).unwrap();
        let staged = folder.join(format!("faults-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&staged)
            .arg(root.join("tests/harness/faults.c"))
            .arg("-ldl")
            .status()
            .expect("the C compiler cc, which Rust links with too");
        assert!(built.success(), "faults.c does not build");
        staged
    })
}
