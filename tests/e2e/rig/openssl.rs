//! OpenSSL as a process has it in its memory: with an agent's probes, or without.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// What the process has mapped, as the kernel lists it.
pub(crate) fn maps(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process that runs")
}

/// Code of OpenSSL: what a process has in its memory, and what its file says.
pub(crate) struct Text {
    memory: Vec<u8>,
    file: Vec<u8>,
}

impl Text {
    /// None where it has loaded no library of OpenSSL's.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let maps = maps(pid);
        let line = maps
            .lines()
            .find(|line| line.contains("/libssl") && line.contains(" r-xp "))?;
        let mut words = line.split_ascii_whitespace();
        let hex = |text: &str| u64::from_str_radix(text, 16).expect("a number of the kernel's");
        let (start, end) = words.next()?.split_once('-')?;
        let (start, offset) = (hex(start), hex(words.nth(1)?));
        let path = words.nth(2)?;
        let read = |path: &str, from| {
            let mut file = File::open(path).expect("memory or library");
            file.seek(SeekFrom::Start(from)).expect("its code");
            let mut bytes = Vec::new();
            file.take(hex(end) - start)
                .read_to_end(&mut bytes)
                .expect("its code");
            bytes
        };
        Some(Self {
            memory: read(&format!("/proc/{pid}/mem"), start),
            file: read(path, offset),
        })
    }

    /// Are there probes in it? One is an instruction that the kernel puts over another. No code is moved when a library is loaded.
    pub(crate) fn is_changed(&self) -> bool {
        self.memory
            .iter()
            .zip(&self.file)
            .any(|(memory, file)| memory != file)
    }
}
