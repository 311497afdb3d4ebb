//! Files that any process of the host, or its kernel, gives the agent to read.

use std::io::Cursor;

#[path = "../../../agent/src/capture/btf.rs"]
mod btf;
#[path = "../../../agent/src/host/tls/elf.rs"]
mod elf;
#[path = "../../../agent/src/host/tls/functions.rs"]
mod functions;
#[path = "../../../agent/src/host/tls/maps.rs"]
mod maps;

/// An ELF file, a list of mappings, or types of a kernel, as the first byte says. What is found lies in the file.
///
/// The agent's unit tests replay the corpus, each module those inputs that are its own.
pub fn host(data: &[u8]) {
    let [which, bytes @ ..] = data else { return };
    match which {
        b'E' => _ = elf::functions(Cursor::new(bytes)),
        b'M' => {
            let found = maps::listed(bytes).expect("memory can be read");
            let lines = bytes.split(|byte| *byte == b'\n').count();
            assert!(found.len() <= lines, "{found:?}");
        }
        _ => {
            let Ok(types) = btf::Btf::parse(bytes.to_vec()) else {
                return;
            };
            for (structure, path) in [("sock", "common.port"), ("sock", "id"), ("common", "addr.port")] {
                _ = types.offset(structure, path);
            }
            _ = types.value("iter", "B");
            _ = types.parameters("receive");
        }
    }
}
