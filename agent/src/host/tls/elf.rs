//! OpenSSL's functions in an ELF file: where in the file each one begins.
//!
//! Any process can map any file, so the file is read as if its author meant harm: nothing of it is mapped here, what is
//! read of it has a limit, and so has the work for each symbol. Symbols are taken from `.dynsym`, and from `.symtab`
//! where that is not enough. Indirect functions are left out: what stands at their address is not the function.

use std::cell::Cell;
use std::io::{Read, Seek};

use object::elf;
use object::endian::Endianness;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};
use object::read::{ReadCache, ReadRef};

use super::functions::{Function, Functions};

/// Most bytes that are read of one file. A Python with all of OpenSSL in it and its symbols has 2 MB of them.
const BYTES: u64 = 64 << 20;
/// Most symbols in one table.
const SYMBOLS: u64 = 1_000_000;
/// Most executable segments that are looked at; linkers make one.
const SEGMENTS: usize = 16;
/// Longest name that is compared, with its end.
const NAME: usize = 16;

type Header = elf::FileHeader64<Endianness>;
type Section = elf::SectionHeader64<Endianness>;
type Segment = elf::ProgramHeader64<Endianness>;
type Symbol = elf::Sym64<Endianness>;

/// Why a file's symbols can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is no ELF file")]
    NotElf,
    #[error("it is a 32-bit program's; only 64-bit ones are read")]
    Bits,
    #[error("it is for another kind of processor")]
    Machine,
    #[error("its {0} can't be read: damaged, or larger than is read here")]
    Part(&'static str),
    #[error("it has more than 1,000,000 symbols")]
    TooMany,
}

/// The functions that the file has, or calls.
///
/// # Errors
/// It is no ELF file for this processor, or can't be read.
pub(super) fn functions(source: impl Read + Seek) -> Result<Functions, Malformed> {
    let cache = ReadCache::new(source);
    let left = Cell::new(BYTES);
    let file = Limited {
        cache: &cache,
        left: &left,
    };
    let header = header(file)?;
    let endian = header.endian().map_err(|_| Malformed::NotElf)?;
    let segments: Vec<&Segment> = header
        .program_headers(endian, file)
        .map_err(|_| Malformed::Part("program header"))?
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian) & elf::PF_X != 0)
        .take(SEGMENTS)
        .collect();
    let sections = header
        .section_headers(endian, file)
        .map_err(|_| Malformed::Part("section header"))?;
    let mut functions = Functions::default();
    for wanted in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
        if let Some(table) = sections.iter().find(|section| section.sh_type(endian) == wanted) {
            let (symbols, names) = symbols(file, endian, sections, table)?;
            collect(&mut functions, endian, symbols, names, &segments);
        }
        if functions.suffice() {
            break;
        }
    }
    Ok(functions)
}

fn header<'a>(file: impl ReadRef<'a>) -> Result<&'a Header, Malformed> {
    let header = file.read_at::<Header>(0).map_err(|()| Malformed::NotElf)?;
    let native = if cfg!(target_endian = "big") {
        elf::ELFDATA2MSB
    } else {
        elf::ELFDATA2LSB
    };
    match header.e_ident() {
        elf::Ident { magic, .. } if *magic != elf::ELFMAG => return Err(Malformed::NotElf),
        elf::Ident { class, .. } if *class != elf::ELFCLASS64 => return Err(Malformed::Bits),
        elf::Ident { data, .. } if *data != native => return Err(Malformed::Machine),
        _ => {}
    }
    let endian = header.endian().map_err(|_| Malformed::NotElf)?;
    let ours = match std::env::consts::ARCH {
        "x86_64" => Some(elf::EM_X86_64),
        "aarch64" => Some(elf::EM_AARCH64),
        _ => None,
    };
    if ours.is_some_and(|ours| ours != header.e_machine(endian)) {
        return Err(Malformed::Machine);
    }
    Ok(header)
}

/// A table of symbols, and the bytes of their names.
fn symbols<'a>(
    file: impl ReadRef<'a>,
    endian: Endianness,
    sections: &[Section],
    table: &Section,
) -> Result<(&'a [Symbol], &'a [u8]), Malformed> {
    if table.sh_size(endian) / size_of::<Symbol>() as u64 > SYMBOLS {
        return Err(Malformed::TooMany);
    }
    let symbols = table
        .data_as_array(endian, file)
        .map_err(|_| Malformed::Part("symbol table"))?;
    let names = sections
        .get(table.sh_link(endian) as usize)
        .ok_or(Malformed::Part("symbols' names"))?
        .data(endian, file)
        .map_err(|_| Malformed::Part("symbols' names"))?;
    Ok((symbols, names))
}

/// Takes what is not there yet: of several symbols of one name, the first.
fn collect(
    functions: &mut Functions,
    endian: Endianness,
    symbols: &[Symbol],
    names: &[u8],
    segments: &[&Segment],
) {
    for symbol in symbols {
        let is_called = symbol.st_shndx(endian) == elf::SHN_UNDEF;
        if symbol.st_type() != elf::STT_FUNC && !is_called {
            continue;
        }
        let Some(function) = name(names, symbol.st_name(endian)).and_then(Function::named) else {
            continue;
        };
        if is_called {
            functions.set_called(function);
        } else if functions.offset(function).is_none()
            && let Some(offset) = file_offset(endian, segments, symbol.st_value(endian))
        {
            functions.set(function, offset);
        }
    }
}

/// The name that begins there, if it begins as those that are looked for do and is no longer than any of them. A Python has
/// thousands of others, and a process waits for none of them to be measured.
fn name(names: &[u8], at: u32) -> Option<&[u8]> {
    let rest = names.get(at as usize..)?;
    if !rest.starts_with(Function::PREFIX) {
        return None;
    }
    let rest = &rest[..rest.len().min(NAME)];
    let len = rest.iter().position(|byte| *byte == 0)?;
    Some(&rest[..len])
}

/// Where in the file the byte is that is mapped at this address, if it is code.
fn file_offset(endian: Endianness, segments: &[&Segment], address: u64) -> Option<u64> {
    segments.iter().find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr(endian))?;
        if within >= segment.p_filesz(endian) {
            return None;
        }
        within.checked_add(segment.p_offset(endian))
    })
}

/// A file of which no more is read than `left`.
struct Limited<'a, R: Read + Seek> {
    cache: &'a ReadCache<R>,
    left: &'a Cell<u64>,
}

impl<R: Read + Seek> Clone for Limited<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Read + Seek> Copy for Limited<'_, R> {}

impl<'a, R: Read + Seek> ReadRef<'a> for Limited<'a, R> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.left.set(self.left.get().checked_sub(size).ok_or(())?);
        self.cache.read_bytes_at(offset, size)
    }

    /// Not for strings one by one: each would be a system call.
    fn read_bytes_at_until(self, _range: std::ops::Range<u64>, _delimiter: u8) -> Result<&'a [u8], ()> {
        Err(())
    }
}

#[cfg(test)]
pub(super) mod tests;
