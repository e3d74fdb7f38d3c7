//! Files for a Mosquitto in front of the gateway: nobody without a password, and paths that exist.

use crate::cli::init::folder::NewFolder;
use crate::cli::init::secret::passwd_line;

const CONFIGURATION: &str = include_str!("template/mosquitto.conf.txt");

const RIGHTS: &str = include_str!("template/acl.txt");

/// Users of the broker with their passwords, the gateway first.
pub struct MosquittoFiles<'a> {
    pub users: &'a [(&'a str, &'a String)],
    /// Fills in paths and ports.
    pub fill: &'a dyn Fn(&str) -> String,
}

impl MosquittoFiles<'_> {
    pub fn write(&self, folder: &NewFolder) -> anyhow::Result<()> {
        folder.dir("mosquitto/data")?;
        let configuration = (self.fill)(CONFIGURATION).replace("{user}\n", own_user());
        folder.file("mosquitto/mosquitto.conf", configuration.as_bytes())?;
        let lines = self.users.iter().map(|(user, password)| passwd_line(user, password));
        let lines = lines.collect::<anyhow::Result<String>>()?;
        folder.secret("mosquitto/passwd", lines.trim_end())?;
        folder.secret("mosquitto/acl", RIGHTS.trim_end())?;
        for (_, password) in &self.users[..1] {
            folder.secret("mosquitto/tidegate.password", password)?;
        }
        Ok(())
    }
}

/// A Mosquitto that root starts becomes another user, who may not read files of root.
fn own_user() -> &'static str {
    // SAFETY: geteuid(2) cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        "\n# root started it, and these files are root's.\nuser root\n\n"
    } else {
        "\n"
    }
}
