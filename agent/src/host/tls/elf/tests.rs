use std::io::Cursor;

use super::*;

/// Address minus file offset of the code in built files.
const SHIFT: u64 = 0x1000;

/// A symbol of a built file.
pub(in crate::host::tls) struct Built {
    pub(in crate::host::tls) name: &'static str,
    pub(in crate::host::tls) kind: u8,
    pub(in crate::host::tls) section: u16,
    pub(in crate::host::tls) value: u64,
}

/// A function of a built file, at this file offset.
pub(in crate::host::tls) fn function(name: &'static str, offset: u64) -> Built {
    Built {
        name,
        kind: elf::STT_FUNC,
        section: 1,
        value: offset + SHIFT,
    }
}

fn u16s(bytes: &mut Vec<u8>, values: &[u16]) {
    for value in values {
        bytes.extend_from_slice(&value.to_ne_bytes());
    }
}

fn u32s(bytes: &mut Vec<u8>, values: &[u32]) {
    for value in values {
        bytes.extend_from_slice(&value.to_ne_bytes());
    }
}

fn u64s(bytes: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        bytes.extend_from_slice(&value.to_ne_bytes());
    }
}

/// An ELF file for this processor: a data segment, then a code segment of 0x1000 bytes that is mapped at
/// [`SHIFT`]; tables of these symbols, where there are any.
pub(in crate::host::tls) fn build(dynamic: &[Built], others: &[Built]) -> Vec<u8> {
    let mut bytes = elf::ELFMAG.to_vec();
    let data = if cfg!(target_endian = "big") { 2 } else { 1 };
    bytes.extend_from_slice(&[elf::ELFCLASS64, data, elf::EV_CURRENT]);
    bytes.resize(16, 0);
    let machine = if cfg!(target_arch = "aarch64") {
        elf::EM_AARCH64
    } else {
        elf::EM_X86_64
    };
    let tables: Vec<(u32, &[Built])> = [(elf::SHT_DYNSYM, dynamic), (elf::SHT_SYMTAB, others)]
        .into_iter()
        .filter(|(_, symbols)| !symbols.is_empty())
        .collect();
    let mut content = Vec::new();
    let mut headers = vec![0; 64];
    let begin = 64 + 2 * 56;
    for (n, (kind, symbols)) in tables.iter().enumerate() {
        let mut names = vec![0];
        // The null symbol.
        let mut table = vec![0; 24];
        for symbol in *symbols {
            u32s(&mut table, &[u32::try_from(names.len()).unwrap()]);
            table.extend_from_slice(&[elf::STB_GLOBAL << 4 | symbol.kind, 0]);
            u16s(&mut table, &[symbol.section]);
            u64s(&mut table, &[symbol.value, 1]);
            names.extend_from_slice(symbol.name.as_bytes());
            names.push(0);
        }
        names.resize(names.len().next_multiple_of(8), 0);
        let at = (begin + content.len()) as u64;
        let section = |headers: &mut Vec<u8>, kind: u32, at: u64, size: usize, link: u32| {
            u32s(headers, &[0, kind]);
            u64s(headers, &[0, 0, at, size as u64]);
            u32s(headers, &[link, 0]);
            u64s(headers, &[8, 24]);
        };
        let link = u32::try_from(2 * n + 2).unwrap();
        section(&mut headers, *kind, at, table.len(), link);
        section(
            &mut headers,
            elf::SHT_STRTAB,
            at + table.len() as u64,
            names.len(),
            0,
        );
        content.extend(table);
        content.extend(names);
    }
    u16s(&mut bytes, &[elf::ET_DYN, machine]);
    u32s(&mut bytes, &[1]);
    u64s(&mut bytes, &[0, 64, (begin + content.len()) as u64]);
    u32s(&mut bytes, &[0]);
    u16s(
        &mut bytes,
        &[64, 56, 2, 64, u16::try_from(headers.len() / 64).unwrap(), 0],
    );
    for (flags, address, offset, size) in [
        (elf::PF_R, 0, 0, 0x1000),
        (elf::PF_R | elf::PF_X, 0x1000 + SHIFT, 0x1000, 0x1000),
    ] {
        u32s(&mut bytes, &[elf::PT_LOAD, flags]);
        u64s(&mut bytes, &[offset, address, address, size, size, 0x1000]);
    }
    bytes.extend(content);
    bytes.extend(headers);
    bytes
}

fn read(bytes: Vec<u8>) -> Result<Functions, Malformed> {
    functions(Cursor::new(bytes))
}

fn found(bytes: Vec<u8>) -> Vec<(&'static str, u64)> {
    let functions = read(bytes).unwrap();
    functions
        .found()
        .map(|(function, offset)| (function.name(), offset))
        .collect()
}

/// Scenario: a table with OpenSSL's functions, an alias, one that is only imported, an indirect one, a variable, one
/// outside of the code, and others.
/// Guarantees: exactly the functions that are there are found, at their place in the file.
#[test]
fn functions_are_found() {
    let symbols = |rest: Vec<Built>| {
        let mut symbols = vec![
            function("SSL_new", 0x1010),
            function("SSL_write", 0x1100),
            function("SSL_write_ex", 0x1100),
            function("SSL_read_early_data", 0x1108),
            function("SSL_read", 0x1200),
        ];
        symbols.extend(rest);
        build(&symbols, &[])
    };
    let base = [
        ("SSL_write", 0x1100),
        ("SSL_write_ex", 0x1100),
        ("SSL_read", 0x1200),
    ];
    assert_eq!(found(symbols(vec![])), base);
    assert_eq!(
        found(symbols(vec![
            function("SSL_read_ex", 0x1fff),
            function("SSL_read_ex", 0x1001)
        ]))
        .last(),
        Some(&("SSL_read_ex", 0x1fff))
    );
    let other = || function("SSL_read_ex", 0x1300);
    for odd in [
        Built {
            section: 0,
            ..other()
        },
        Built {
            kind: elf::STT_GNU_IFUNC,
            ..other()
        },
        Built {
            kind: elf::STT_OBJECT,
            ..other()
        },
        // Data, and past the end of the code.
        function("SSL_read_ex", 0x800),
        function("SSL_read_ex", 0x2000),
        Built {
            value: u64::MAX,
            ..other()
        },
    ] {
        assert_eq!(found(symbols(vec![odd])), base);
    }
}

/// Scenario: functions in `.symtab` only, in both tables, a program that imports them, and no tables at all.
/// Guarantees: `.symtab` fills what `.dynsym` lacks; imports and stripped files have none.
#[test]
fn both_tables_are_read() {
    let imported = Built {
        section: 0,
        ..function("SSL_read", 0x1000)
    };
    let hidden = [function("SSL_write", 0x1100), function("SSL_read", 0x1200)];
    let all = [("SSL_write", 0x1100), ("SSL_read", 0x1200)];
    assert_eq!(found(build(&[], &hidden)), all);
    assert_eq!(found(build(&[function("SSL_write", 0x1100)], &hidden)), all);
    assert_eq!(found(build(&[imported], &hidden)), all);
    assert_eq!(found(build(&[function("main", 0x1000)], &[])), []);
    assert_eq!(found(build(&[], &[])), []);
}

/// Scenario: text, a 32-bit file, one of the other byte order, one for another processor, tables that claim to be huge.
/// Guarantees: each is refused with its reason.
#[test]
fn other_files_are_refused() {
    let good = build(
        &[function("SSL_write", 0x1100), function("SSL_read", 0x1200)],
        &[],
    );
    let with = |at: usize, new: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        read(bytes)
    };
    assert_eq!(read(b"#!/usr/bin/python3\n".to_vec()), Err(Malformed::NotElf));
    assert_eq!(read(Vec::new()), Err(Malformed::NotElf));
    assert_eq!(with(4, &[elf::ELFCLASS32]), Err(Malformed::Bits));
    assert_eq!(with(5, &[3 - good[5]]), Err(Malformed::Machine));
    assert_eq!(with(18, &elf::EM_S390.to_ne_bytes()), Err(Malformed::Machine));
    // Size of the first table, which is the second section of three.
    let size = good.len() - 2 * 64 + 32;
    assert_eq!(
        with(size, &(24 * (SYMBOLS + 1)).to_ne_bytes()),
        Err(Malformed::TooMany)
    );
    assert_eq!(
        with(size, &(24 * SYMBOLS).to_ne_bytes()),
        Err(Malformed::Part("symbol table"))
    );
}

/// Scenario: a table of names as large as the file, of which there is more than is read of one file.
/// Guarantees: it is refused before it is read.
#[test]
fn no_more_than_the_limit_is_read() {
    struct Endless(Cursor<Vec<u8>>);
    impl Read for Endless {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            assert!(buf.len() as u64 <= BYTES);
            self.0.read(buf)
        }
    }
    impl Seek for Endless {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            match to {
                std::io::SeekFrom::End(_) => Ok(u64::MAX),
                other => self.0.seek(other),
            }
        }
    }
    let mut bytes = build(
        &[function("SSL_write", 0x1100), function("SSL_read", 0x1200)],
        &[],
    );
    let size = bytes.len() - 64 + 32;
    bytes[size..size + 8].copy_from_slice(&(BYTES + 1).to_ne_bytes());
    assert_eq!(
        functions(Endless(Cursor::new(bytes))),
        Err(Malformed::Part("symbols' names"))
    );
}

/// Scenario: an ELF file that is cut anywhere or has any byte changed.
/// Guarantees: an error or an answer, never a panic.
#[test]
fn hostile_bytes() {
    let good = build(
        &[function("main", 0x1000), function("SSL_write", 0x1100)],
        &[function("SSL_read", 0x1200), function("SSL_read_ex", 0x1300)],
    );
    assert_eq!(found(good.clone()).len(), 3);
    for len in 0..good.len() {
        let _ = read(good[..len].to_vec());
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = read(bytes);
        }
    }
}

/// Scenario: the test's own program, whole and cut.
/// Guarantees: it is read whole; a cut one is an error or an answer.
#[test]
fn a_real_file() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let own: Vec<u8> = own.into_iter().take(8 << 20).collect();
    for part in 0..16 {
        let _ = read(own[..own.len() * part / 16].to_vec());
    }
    let whole = functions(std::fs::File::open("/proc/self/exe").unwrap());
    assert!(whole.is_ok_and(|functions| !functions.suffice()));
}
