//! OpenSSL's functions that probes go to.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Write,
    WriteEx,
    Read,
    ReadEx,
}

impl Function {
    pub(crate) const ALL: [Self; 4] = [Self::Write, Self::WriteEx, Self::Read, Self::ReadEx];
    /// How all their symbols begin.
    pub(super) const PREFIX: &[u8] = b"SSL_";

    /// Its symbol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "SSL_write",
            Self::WriteEx => "SSL_write_ex",
            Self::Read => "SSL_read",
            Self::ReadEx => "SSL_read_ex",
        }
    }

    /// That of this symbol.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|function| function.name().as_bytes() == name)
    }
}

/// Where in a file each function begins, and which the file calls in another. Two functions may begin at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Functions {
    offsets: [Option<u64>; Function::ALL.len()],
    called: [bool; Function::ALL.len()],
}

impl Functions {
    /// File offset of the function, where the file has it.
    pub(crate) fn offset(&self, function: Function) -> Option<u64> {
        self.offsets[function as usize]
    }

    /// Those that the file has, with their file offsets.
    pub(crate) fn found(&self) -> impl Iterator<Item = (Function, u64)> + '_ {
        Function::ALL
            .into_iter()
            .filter_map(|function| Some((function, self.offset(function)?)))
    }

    /// Is what a connection sends and what it receives seen with these?
    pub(super) fn suffice(&self) -> bool {
        both_ways(|function| self.offset(function).is_some())
    }

    /// Does the file call enough of them to send and receive?
    pub(super) fn uses_tls(&self) -> bool {
        both_ways(|function| self.called[function as usize])
    }

    /// Without those that `caller` does not call.
    pub(super) fn called_by(&self, caller: &Self) -> Self {
        self.filtered(|function| caller.called[function as usize])
    }

    /// Without those that `other` does not have.
    pub(super) fn only(&self, other: &Self) -> Self {
        self.filtered(|function| other.offset(function).is_some())
    }

    fn filtered(&self, keep: impl Fn(Function) -> bool) -> Self {
        let mut functions = *self;
        for function in Function::ALL {
            if !keep(function) {
                functions.offsets[function as usize] = None;
            }
        }
        functions
    }

    pub(super) fn set(&mut self, function: Function, offset: u64) {
        self.offsets[function as usize] = Some(offset);
    }

    pub(super) fn set_called(&mut self, function: Function) {
        self.called[function as usize] = true;
    }
}

fn both_ways(has: impl Fn(Function) -> bool) -> bool {
    (has(Function::Write) || has(Function::WriteEx)) && (has(Function::Read) || has(Function::ReadEx))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: functions are added one by one.
    /// Guarantees: they suffice once a write and a read function are there; names that only begin alike are others.
    #[test]
    fn one_of_each_kind_suffices() {
        let mut functions = Functions::default();
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
                (Function::ReadEx, 3)
            ]
        );
        for function in Function::ALL {
            assert_eq!(Function::named(function.name().as_bytes()), Some(function));
        }
        assert_eq!(Function::named(b"SSL_write_early_data"), None);
        assert_eq!(Function::named(b"SSL_rea"), None);
    }

    /// Scenario: a library with both forms of every function, and a caller of one form.
    /// Guarantees: the other form is left out; who only reads is no caller.
    #[test]
    fn those_that_are_called() {
        let mut library = Functions::default();
        for (offset, function) in (1..).zip(Function::ALL) {
            library.set(function, offset);
        }
        let mut caller = Functions::default();
        caller.set_called(Function::ReadEx);
        assert!(!caller.uses_tls());
        caller.set_called(Function::WriteEx);
        assert!(caller.uses_tls());
        let found: Vec<_> = library
            .called_by(&caller)
            .found()
            .map(|(function, _)| function)
            .collect();
        assert_eq!(found, [Function::WriteEx, Function::ReadEx]);
    }
}
