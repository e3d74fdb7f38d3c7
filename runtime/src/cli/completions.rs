//! `tidegate completions`: what a shell needs to complete verbs and flags, and the manual pages; both are made of the
//! verbs themselves.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

use crate::cli::Exit;

/// Print the completions of a shell, or write the manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  tidegate completions bash > /etc/bash_completion.d/tidegate\n  \
    tidegate completions --man /usr/local/share/man/man1")]
pub struct Arguments {
    /// The shell
    #[arg(required_unless_present = "man")]
    shell: Option<Shell>,
    /// Write a manual page for each verb into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "shell")]
    man: Option<PathBuf>,
}

/// `command` is the whole command line.
pub fn completions(arguments: &Arguments, mut command: Command) -> anyhow::Result<Exit> {
    if let Some(folder) = &arguments.man {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        clap_mangen::generate_to(command, folder)
            .with_context(|| format!("{} cannot be written to", folder.display()))?;
        return Ok(Exit::Success);
    }
    if let Some(shell) = arguments.shell {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "tidegate", &mut script);
        std::io::stdout().lock().write_all(&script)?;
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_that_is_shown_has_a_manual_page() {
        let folder = tempfile::TempDir::new().unwrap();
        let verbs = Command::new("tidegate")
            .subcommand(Command::new("run"))
            .subcommand(Command::new("inside").hide(true));
        let arguments = Arguments { shell: None, man: Some(folder.path().join("man1")) };
        assert_eq!(completions(&arguments, verbs).unwrap(), Exit::Success);
        let page = |name: &str| fs::read_to_string(folder.path().join("man1").join(name));
        assert!(page("tidegate.1").unwrap().contains("tidegate") && page("tidegate-run.1").is_ok());
        assert!(page("tidegate-inside.1").is_err());
    }
}
