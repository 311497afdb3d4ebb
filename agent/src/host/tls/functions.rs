//! OpenSSL's functions that probes go to.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Write,
    WriteEx,
    Read,
    ReadEx,
    Free,
}

impl Function {
    pub(crate) const ALL: [Self; 5] = [Self::Write, Self::WriteEx, Self::Read, Self::ReadEx, Self::Free];

    /// Its symbol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "SSL_write",
            Self::WriteEx => "SSL_write_ex",
            Self::Read => "SSL_read",
            Self::ReadEx => "SSL_read_ex",
            Self::Free => "SSL_free",
        }
    }

    /// That of this symbol.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|function| function.name().as_bytes() == name)
    }
}

/// Where in a file each function begins. Two of them may begin at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Functions([Option<u64>; Function::ALL.len()]);

impl Functions {
    /// File offset of the function, where the file has it.
    pub(crate) fn offset(&self, function: Function) -> Option<u64> {
        self.0[function as usize]
    }

    /// Those that the file has, with their file offsets.
    pub(crate) fn found(&self) -> impl Iterator<Item = (Function, u64)> + '_ {
        Function::ALL
            .into_iter()
            .filter_map(|function| Some((function, self.offset(function)?)))
    }

    /// Is what a connection sends and what it receives seen with these?
    pub(super) fn suffice(&self) -> bool {
        let has = |function| self.offset(function).is_some();
        (has(Function::Write) || has(Function::WriteEx)) && (has(Function::Read) || has(Function::ReadEx))
    }

    pub(super) fn set(&mut self, function: Function, offset: u64) {
        self.0[function as usize] = Some(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: functions are added one by one.
    /// Guarantees: they suffice once a write and a read function are there; names that only begin alike are others.
    #[test]
    fn one_of_each_kind_suffices() {
        let mut functions = Functions::default();
        functions.set(Function::Free, 1);
        functions.set(Function::WriteEx, 2);
        functions.set(Function::Write, 2);
        assert!(!functions.suffice());
        functions.set(Function::ReadEx, 3);
        assert!(functions.suffice());
        assert_eq!(
            functions.found().collect::<Vec<_>>(),
            [
                (Function::Write, 2),
                (Function::WriteEx, 2),
                (Function::ReadEx, 3),
                (Function::Free, 1)
            ]
        );
        for function in Function::ALL {
            assert_eq!(Function::named(function.name().as_bytes()), Some(function));
        }
        assert_eq!(Function::named(b"SSL_write_early_data"), None);
        assert_eq!(Function::named(b"SSL_rea"), None);
    }
}
