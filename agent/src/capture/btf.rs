//! The kernel's description of its own types (BTF), as far as the attach plan needs it: where a member stands, what an
//! enumeration's value is, which parameters a function has.
//!
//! Format: Documentation/bpf/btf.rst in the kernel's sources. The file is the kernel's, but read as if it were not: every
//! offset is checked and nesting is bounded. It knows nothing of modules.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Where the running kernel's is.
pub(crate) const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Anonymous structures within each other that are searched for a member.
const NESTING: u32 = 8;
/// Members looked at for one; the largest structure has some hundreds.
const MEMBERS: u32 = 100_000;

/// `kind` of a type.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
}

/// A parsed BTF blob.
#[derive(Debug)]
pub(crate) struct Btf {
    bytes: Vec<u8>,
    /// Where in `bytes` the names begin.
    names: usize,
    /// Where in `bytes` each type is, by id; that of id 0, `void`, is 0.
    types: Vec<u32>,
}

/// A type's fixed part: `struct btf_type`, and where its variable part begins.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    /// Size, or the id of another type.
    size: u32,
    rest: usize,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    /// Members, values, or parameters.
    fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }
}

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(crate) fn of_kernel() -> Result<Self> {
        if !Path::new(PATH).exists() {
            bail!("there is no {PATH}: the kernel was built without CONFIG_DEBUG_INFO_BTF");
        }
        let bytes = std::fs::read(PATH).with_context(|| format!("cannot read {PATH}"))?;
        Self::parse(bytes).with_context(|| format!("{PATH} is not as expected"))
    }

    /// # Errors
    /// Names what is wrong with the bytes.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self> {
        let word = |at: usize| word(&bytes, at).context("cut short");
        if bytes.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            bail!("no BTF of this byte order");
        }
        let header = word(4)? as usize;
        let section = |at: usize| -> Result<(usize, usize)> {
            let start = header.checked_add(word(at)? as usize).context("cut short")?;
            let end = start.checked_add(word(at + 4)? as usize).context("cut short")?;
            if end > bytes.len() {
                bail!("cut short");
            }
            Ok((start, end))
        };
        let (mut at, end) = section(8)?;
        let (names, _) = section(16)?;
        let mut types = vec![0];
        while at < end {
            types.push(u32::try_from(at).context("too long")?);
            let found = read_type(&bytes, at).context("cut short")?;
            let each = match found.kind() {
                kind::INT | kind::VAR | kind::DECL_TAG => found.rest + 4,
                kind::ARRAY => found.rest + 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => found.rest + 12 * found.len(),
                kind::ENUM | kind::FUNC_PROTO => found.rest + 8 * found.len(),
                2 | 7..=12 | 16 | 18 => found.rest,
                other => bail!("type {} is of unknown kind {other}", types.len() - 1),
            };
            at = each;
        }
        Ok(Self { bytes, names, types })
    }

    /// Offset in bytes of a member of a structure, given as `member` or `member.member`. Members of anonymous structures
    /// and unions count as the structure's own.
    ///
    /// # Errors
    /// Names what the kernel does not have.
    pub(crate) fn offset(&self, structure: &str, path: &str) -> Result<u32> {
        let mut id = self
            .find(structure, &[kind::STRUCT])
            .with_context(|| format!("the kernel has no struct {structure}"))?;
        let (mut bits, mut left) = (0_u32, MEMBERS);
        for name in path.split('.') {
            let (total, of) = self
                .member(id, name, NESTING, &mut left)
                .and_then(|(at, of)| Some((bits.checked_add(at)?, of)))
                .with_context(|| format!("the kernel's struct {structure} has no member {path}"))?;
            bits = total;
            id = of;
        }
        if bits % 8 != 0 {
            bail!("member {path} of the kernel's struct {structure} is a bit field");
        }
        Ok(bits / 8)
    }

    /// Value of an enumeration's constant.
    pub(crate) fn value(&self, enumeration: &str, name: &str) -> Option<u32> {
        let found = self.get(self.find(enumeration, &[kind::ENUM])?)?;
        (0..found.len())
            .map(|n| found.rest + 8 * n)
            .find(|at| self.name_at(*at) == Some(name))
            .and_then(|at| word(&self.bytes, at + 4))
    }

    /// Names of a function's parameters; nothing when there is no such function.
    pub(crate) fn parameters(&self, function: &str) -> Option<Vec<&str>> {
        let function = self.get(self.find(function, &[kind::FUNC])?)?;
        let proto = self.get(function.size)?;
        if proto.kind() != kind::FUNC_PROTO {
            return None;
        }
        (0..proto.len())
            .map(|n| self.name_at(proto.rest + 8 * n))
            .collect()
    }

    /// Id of the type of this name and one of these kinds.
    fn find(&self, name: &str, kinds: &[u32]) -> Option<u32> {
        let is_it = |id: &u32| {
            self.get(*id)
                .is_some_and(|found| kinds.contains(&found.kind()) && self.name(found.name) == Some(name))
        };
        (1..u32::try_from(self.types.len()).ok()?).find(is_it)
    }

    /// Offset in bits and type of a member, looked for in anonymous members as well, among no more than `left`.
    fn member(&self, id: u32, name: &str, nesting: u32, left: &mut u32) -> Option<(u32, u32)> {
        let found = self.get(id)?;
        if !matches!(found.kind(), kind::STRUCT | kind::UNION) {
            return None;
        }
        let bit_fields = found.info >> 31 == 1;
        (0..found.len()).find_map(|n| {
            *left = left.checked_sub(1)?;
            let at = found.rest + 12 * n;
            let (of, offset) = (word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
            let offset = if bit_fields { offset & 0x00ff_ffff } else { offset };
            match self.name_at(at)? {
                "" if nesting > 0 => {
                    let (inner, of) = self.member(of, name, nesting - 1, left)?;
                    Some((offset.checked_add(inner)?, of))
                }
                found if found == name => Some((offset, of)),
                _ => None,
            }
        })
    }

    fn get(&self, id: u32) -> Option<Type> {
        let at = *self.types.get(id as usize)?;
        if at == 0 {
            None
        } else {
            read_type(&self.bytes, at as usize)
        }
    }

    fn name_at(&self, at: usize) -> Option<&str> {
        self.name(word(&self.bytes, at)?)
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let bytes = self.bytes.get(self.names.checked_add(offset as usize)?..)?;
        let len = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..len]).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_type(bytes: &[u8], at: usize) -> Option<Type> {
    Some(Type {
        name: word(bytes, at)?,
        info: word(bytes, at + 4)?,
        size: word(bytes, at + 8)?,
        rest: at + 12,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Builds BTF: types in the order in which they are added, ids from 1.
    #[derive(Default)]
    pub(in crate::capture) struct Builder {
        types: Vec<u8>,
        names: Vec<u8>,
        next: u32,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            if self.names.is_empty() {
                self.names.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.names.len()).unwrap();
            self.names.extend_from_slice(name.as_bytes());
            self.names.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
        }

        fn add(&mut self, name: &str, kind: u32, len: usize, size: u32) -> u32 {
            let name = self.name(name);
            self.words(&[name, kind << 24 | u32::try_from(len).unwrap(), size]);
            self.next += 1;
            self.next
        }

        /// A structure, or with `kind` 5 a union, of members with offset in bytes and type.
        pub(in crate::capture) fn compound(
            &mut self,
            kind: u32,
            name: &str,
            members: &[(&str, u32, u32)],
        ) -> u32 {
            let id = self.add(name, kind, members.len(), 8);
            for (member, offset, of) in members {
                let member = self.name(member);
                self.words(&[member, *of, offset * 8]);
            }
            id
        }

        pub(in crate::capture) fn structure(&mut self, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            self.compound(kind::STRUCT, name, members)
        }

        pub(in crate::capture) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) {
            self.add(name, kind::ENUM, values.len(), 4);
            for (value, number) in values {
                let value = self.name(value);
                self.words(&[value, *number]);
            }
        }

        pub(in crate::capture) fn function(&mut self, name: &str, parameters: &[&str]) {
            let proto = self.add("", kind::FUNC_PROTO, parameters.len(), 0);
            for parameter in parameters {
                let parameter = self.name(parameter);
                self.words(&[parameter, 0]);
            }
            self.add(name, kind::FUNC, 1, proto);
        }

        pub(in crate::capture) fn bytes(mut self) -> Vec<u8> {
            self.name("");
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&[1, 0]);
            let (types, names) = (self.types.len(), self.names.len());
            for word in [24, 0, types, types, names] {
                bytes.extend_from_slice(&u32::try_from(word).unwrap().to_ne_bytes());
            }
            bytes.extend(self.types);
            bytes.extend(self.names);
            bytes
        }

        pub(in crate::capture) fn btf(self) -> Btf {
            Btf::parse(self.bytes()).unwrap()
        }
    }

    fn sample() -> Builder {
        let mut builder = Builder::default();
        let inner = builder.structure("", &[("port", 2, 0)]);
        let pair = builder.compound(kind::UNION, "", &[("whole", 0, 0), ("", 0, inner)]);
        let common = builder.structure("common", &[("addr", 0, 0), ("", 8, pair)]);
        builder.structure("sock", &[("id", 0, 0), ("common", 16, common)]);
        builder.enumeration("iter", &[("A", 0), ("B", 4)]);
        builder.function("receive", &["sk", "flags"]);
        builder
    }

    /// Scenario: a member of a structure within a structure, in an anonymous structure in an anonymous union; a value; a
    /// function; and things that are not there.
    /// Guarantees: offsets add up; what is missing is named.
    #[test]
    fn finds_members_values_and_parameters() {
        let btf = sample().btf();
        assert_eq!(btf.offset("sock", "common.port").unwrap(), 16 + 8 + 2);
        assert_eq!(btf.offset("common", "whole").unwrap(), 8);
        assert_eq!(btf.value("iter", "B"), Some(4));
        assert_eq!(btf.value("iter", "C"), None);
        assert_eq!(btf.parameters("receive"), Some(vec!["sk", "flags"]));
        assert_eq!(btf.parameters("sock"), None);
        let missing = |structure, path| btf.offset(structure, path).unwrap_err().to_string();
        assert_eq!(missing("socket", "x"), "the kernel has no struct socket");
        assert_eq!(
            missing("sock", "common.family"),
            "the kernel's struct sock has no member common.family"
        );
    }

    /// Scenario: BTF that is cut anywhere, has any byte changed, contains itself a thousand times, or has absurd offsets.
    /// Guarantees: an error or an answer, never a panic or an endless search.
    #[test]
    fn hostile_bytes() {
        let good = sample().bytes();
        let try_all = |bytes: Vec<u8>| {
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = btf.offset("sock", "common.port");
                let _ = btf.value("iter", "B");
                let _ = btf.parameters("receive");
            }
        };
        for len in 0..good.len() {
            try_all(good[..len].to_vec());
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                try_all(bytes);
            }
        }
        let mut builder = Builder::default();
        builder.structure("loop", &[("", 0, 1); 1000]);
        assert!(builder.btf().offset("loop", "x").is_err());
        // Offsets whose sum has no room.
        let mut builder = Builder::default();
        builder.structure("far", &[("far", u32::MAX / 8, 1)]);
        assert!(builder.btf().offset("far", "far.far").is_err());
    }

    /// Scenario: the kernel that the test runs on, where it tells its types.
    /// Guarantees: what every kernel has is found.
    #[test]
    fn this_kernel() {
        if !Path::new(PATH).exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
        }
        let btf = Btf::of_kernel().unwrap();
        assert!(btf.offset("tcp_sock", "copied_seq").unwrap() > 0);
        assert!(btf.parameters("do_group_exit").is_some());
    }

    /// Scenario: every description of a kernel's types that the fuzzer found worth keeping, and every one that once failed.
    /// Guarantees: no panic, no end without an answer.
    #[test]
    fn kept_inputs() {
        let ask = |data: &[u8]| {
            let [which, bytes @ ..] = data else { return };
            if let (false, Ok(types)) = (b"EM".contains(which), Btf::parse(bytes.to_vec())) {
                for (structure, path) in [("sock", "common.port"), ("sock", "id"), ("common", "addr.port")] {
                    _ = types.offset(structure, path);
                }
                _ = types.value("iter", "B");
                _ = types.parameters("receive");
            }
        };
        assert!(crate::kept::replay("host", ask) >= 20, "the corpus is gone");
    }
}
