//! A program on a terminal of its own: what it shows, and keys that are pressed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A program with a pseudo-terminal as stdin, stdout and stderr. Killed when it is dropped.
pub struct OnTerminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    /// Starts a program on a terminal of 120 columns and 40 rows.
    pub fn start(mut command: Command) -> Self {
        let (mut ours, mut its) = (0, 0);
        let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the places of both descriptors and the size live until the call returns; nothing else is asked for.
        let opened = unsafe {
            libc::openpty(
                &raw mut ours,
                &raw mut its,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: both were opened just now, and nobody else owns them.
        let (ours, its) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(its)) };
        // SAFETY: both calls may be made between fork and exec. The terminal is the one of the program, whatever terminal
        // the tests run on.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(its.try_clone().unwrap())
            .stdout(its.try_clone().unwrap())
            .stderr(its)
            .spawn()
            .unwrap();
        // The command holds the terminal open as long as it lives.
        drop(command);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, kept) = (ours.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of a terminal is an error.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                kept.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keys: ours, shown }
    }

    /// All that was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until a text was shown. Words only: a space may be a move of the cursor.
    pub fn wait_for(&self, word: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.shown().contains(word) {
            assert!(Instant::now() < deadline, "{word:?} is not shown:\n{}", self.shown().escape_debug());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Forgets what was shown.
    pub fn forget(&self) {
        self.shown.lock().unwrap().clear();
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end of the program; gives all that it has shown.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it goes on:\n{}", self.shown().escape_debug());
            std::thread::sleep(Duration::from_millis(20));
        };
        // What it has written last may still be on its way to us.
        let mut before = usize::MAX;
        while before != self.shown().len() {
            before = self.shown().len();
            std::thread::sleep(Duration::from_millis(50));
        }
        (status, self.shown())
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
