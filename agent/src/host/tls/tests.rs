use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Cursor};
use std::process::{Child, Command, Stdio};

use super::functions::Function;
use super::*;
use crate::host::fake::Tree;
use crate::host::tls::elf::tests::{Built, build, function};
use crate::host::tls::maps::tests::line;

/// A process of a fake tree that has mapped these files, all as code.
fn process(tree: &Tree, pid: u32, files: &[(&str, &[u8])]) {
    tree.process(pid, 1, "python", &[]);
    let root = tree.root().join(pid.to_string()).join("root");
    let mut maps = String::new();
    for (n, (name, content)) in (1..).zip(files) {
        tree.file(pid, &format!("root{name}"), "");
        let path = root.join(name.trim_start_matches('/'));
        fs::write(&path, content).unwrap();
        maps += &line(n << 20, &path, name);
    }
    tree.file(pid, "maps", &maps);
    tree.link(pid, "exe", "/usr/bin/python3");
}

fn openssl() -> Vec<u8> {
    build(
        &[function("SSL_write", 0x1100), function("SSL_read", 0x1200)],
        &[],
    )
}

fn names(tree: &Tree, pid: u32) -> Result<Vec<String>, NotCovered> {
    let libraries = libraries(tree.root(), pid, &mut Cache::default())?;
    Ok(libraries.into_iter().map(|library| library.name).collect())
}

/// Scenario: OpenSSL in a library, in one that a wheel has renamed, in the program, in Python's library, in a bundle; a
/// file of another name that holds it too; several at once.
/// Guarantees: all are found but the one that nothing points to, each where its functions are; what packages bundle is told from
/// Python's.
#[test]
fn libraries_are_found() {
    let tree = Tree::new();
    let openssl = openssl();
    for (pid, (name, pythons)) in (10..).zip([
        ("/usr/lib/libssl.so.1.1", true),
        ("/venv/psycopg2.libs/libssl-3e69114b.so.1.1", false),
        ("/usr/bin/python3", true),
        ("/usr/lib/libpython3.12.so.1.0", true),
        ("/usr/lib/_ssl.cpython-312-x86_64-linux-gnu.so", true),
        ("/venv/cryptography/hazmat/bindings/_rust.abi3.so", false),
        ("/venv/_pypy_openssl.so", false),
    ]) {
        process(&tree, pid, &[("/usr/lib/libc.so.6", b""), (name, &openssl)]);
        let found = libraries(tree.root(), pid, &mut Cache::default()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].pythons), (name, pythons));
    }
    let plain = build(&[function("main", 0x1000)], &[]);
    process(
        &tree,
        30,
        &[
            ("/usr/bin/python3", &plain),
            ("/a/libssl.so.3", &openssl),
            ("/usr/lib/libother.so", &openssl),
            ("/b/libssl.so.1.1", &openssl),
        ],
    );
    assert_eq!(
        names(&tree, 30),
        Ok(vec!["/a/libssl.so.3".to_owned(), "/b/libssl.so.1.1".to_owned()])
    );
    let found = libraries(tree.root(), 30, &mut Cache::default()).unwrap();
    assert_eq!(found[0].path, tree.root().join("30/root/a/libssl.so.3"));
    assert_eq!(found[0].functions.offset(Function::Write), Some(0x1100));
    assert_eq!(found[0].functions.offset(Function::ReadEx), None);
}

/// Scenario: Python's module with the library that it calls, beside Python's own library and a package's bundle; OpenSSL within
/// Python's library; the package's alone; none; no process.
/// Guarantees: where the module says whom it calls, nothing else is even read; else Python's is found all the same, or the reason is
/// the one that all files give.
#[test]
fn pythons_alone() {
    let tree = Tree::new();
    let openssl = openssl();
    let bundle = ("/venv/cryptography/hazmat/bindings/_rust.abi3.so", &openssl[..]);
    let python = ("/usr/lib/libpython3.12.so.1.0", &openssl[..]);
    let called = |name| Built {
        section: object::elf::SHN_UNDEF,
        ..function(name, 0)
    };
    let calls = build(&[called("SSL_write"), called("SSL_read")], &[]);
    let module = ("/lib/_ssl.cpython-312.so", &calls[..]);
    process(&tree, 10, &[bundle, python, module, ("/a/libssl.so.3", &openssl)]);
    let mut cache = Cache::default();
    let found = |pid, cache: &mut Cache| -> Result<Vec<String>, NotCovered> {
        let found = pythons(tree.root(), pid, cache)?;
        Ok(found.into_iter().map(|library| library.name).collect())
    };
    assert_eq!(found(10, &mut cache), Ok(vec!["/a/libssl.so.3".to_owned()]));
    let is_read = |cache: &mut Cache, (name, _): (&str, &[u8])| {
        let file = fs::metadata(tree.root().join("10/root").join(&name[1..])).unwrap();
        cache.content(Path::new("/nowhere"), &file).is_ok()
    };
    assert!(!is_read(&mut cache, bundle) && !is_read(&mut cache, python));
    libraries(tree.root(), 10, &mut cache).unwrap();
    assert!(is_read(&mut cache, bundle) && is_read(&mut cache, python));

    process(&tree, 11, &[bundle, python]);
    assert_eq!(found(11, &mut cache), Ok(vec![python.0.to_owned()]));
    process(&tree, 12, &[bundle]);
    assert_eq!(found(12, &mut cache), Err(NotCovered::Bundled));
    process(&tree, 13, &[("/usr/lib/libc.so.6", b"")]);
    assert_eq!(found(13, &mut cache), Err(NotCovered::NoOpenSsl));
    assert_eq!(found(14, &mut cache), Err(NotCovered::Gone));
}

/// Scenario: a process that is gone, one whose maps are closed, one without OpenSSL, with OpenSSL stripped, in a file that is
/// none, that only writes, and in a file that nothing leads to.
/// Guarantees: each has its reason, which names the file that says most about TLS.
#[test]
fn reasons_name_the_file() {
    let tree = Tree::new();
    assert_eq!(names(&tree, 9), Err(NotCovered::Gone));
    tree.process(10, 1, "python", &[]);
    assert_eq!(names(&tree, 10), Err(NotCovered::Maps(io::ErrorKind::NotFound)));
    let plain = build(&[function("main", 0x1000)], &[]);
    process(
        &tree,
        11,
        &[("/usr/bin/python3", &plain), ("/usr/lib/libcrypto.so.3", b"text")],
    );
    assert_eq!(names(&tree, 11), Err(NotCovered::NoOpenSsl));
    process(
        &tree,
        12,
        &[("/lib/_ssl.abi3.so", b"text"), ("/lib/libssl.so.3", &plain)],
    );
    let hidden = NotCovered::Hidden("/lib/libssl.so.3".to_owned());
    assert_eq!(names(&tree, 12), Err(hidden.clone()));
    assert!(
        hidden
            .to_string()
            .starts_with("/lib/libssl.so.3 shows no symbols")
    );
    process(&tree, 13, &[("/lib/_ssl.abi3.so", b"text")]);
    assert_eq!(
        names(&tree, 13),
        Err(NotCovered::Malformed(
            "/lib/_ssl.abi3.so".to_owned(),
            Malformed::NotElf
        ))
    );
    let writes = build(&[function("SSL_write", 0x1100)], &[]);
    process(&tree, 14, &[("/lib/libssl.so.3", &writes)]);
    assert_eq!(names(&tree, 14), Err(hidden));
    // A kernel that refuses its links to the agent.
    let replaced = NotCovered::Replaced("/lib/libssl.so.3".to_owned());
    assert!(replaced.to_string().contains("CAP_SYS_ADMIN"), "{replaced}");
    process(&tree, 15, &[("/lib/libssl.so.3", &openssl())]);
    fs::remove_file(tree.root().join("15/root/lib/libssl.so.3")).unwrap();
    assert_eq!(
        names(&tree, 15),
        Err(NotCovered::Closed(
            "/lib/libssl.so.3".to_owned(),
            io::ErrorKind::NotFound
        ))
    );
}

/// Scenario: names with what a terminal acts on, with bytes that are no text, with accents.
/// Guarantees: the first two are written as escapes; letters stay.
#[test]
fn names_are_fit_to_be_shown() {
    assert_eq!(shown("/a\x1b[31m\u{202e}b"), "/a\\u{1b}[31m\\u{202e}b");
    assert_eq!(shown(&String::from_utf8_lossy(b"/\xff")), "/\\u{fffd}");
    assert_eq!(shown("/é 1"), "/é 1");
}

/// Scenario: the Pythons of this machine, with the `ssl` module loaded, tell at which addresses OpenSSL's functions are.
/// Guarantees: the file offsets that are found are mapped at just these addresses.
#[test]
fn this_machines_pythons() {
    let mut pythons = vec![PathBuf::from("/usr/bin/python3")];
    if let Some(home) = std::env::var_os("HOME")
        && let Ok(versions) = fs::read_dir(Path::new(&home).join(".pyenv/versions"))
    {
        pythons.extend(
            versions
                .flatten()
                .map(|version| version.path().join("bin/python")),
        );
    }
    let mut cache = Cache::default();
    let mut checked = 0;
    for python in pythons {
        let Some(running) = Python::start(&python) else {
            eprintln!("skipped: {} does not run, or has no ssl", python.display());
            continue;
        };
        let pid = running.child.id();
        let found = libraries(Path::new("/proc"), pid, &mut cache).unwrap();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        for library in &found {
            for (function, offset) in library.functions.found() {
                assert_eq!(
                    address(&maps, &library.name, offset),
                    running.addresses.get(function.name()).copied(),
                    "{} of {}",
                    function.name(),
                    python.display()
                );
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        checked += 1;
    }
    if checked == 0 {
        eprintln!("skipped: no Python with ssl on this machine");
    }
}

/// Where the process has this byte of the file mapped as code.
fn address(maps: &str, name: &str, offset: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = columns[0].split_once('-')?;
        let within = offset.checked_sub(hex(columns[2]))?;
        let inside = within < hex(end) - hex(start);
        (columns.last() == Some(&name) && columns[1].contains('x') && inside).then(|| hex(start) + within)
    })
}

/// A Python with `ssl` loaded, which waits until it is dropped.
struct Python {
    child: Child,
    /// Address of each of OpenSSL's functions that the module can call.
    addresses: HashMap<String, u64>,
}

impl Python {
    /// Nothing where there is none, or it has no ssl or ctypes.
    fn start(path: &Path) -> Option<Self> {
        // Through the module's handle the functions are found however it was linked.
        let script = "import sys, _ssl, ctypes\n\
            lib = ctypes.CDLL(getattr(_ssl, '__file__', None))\n\
            for name in sys.argv[1:]:\n\
            \x20   f = getattr(lib, name, None)\n\
            \x20   if f is not None:\n\
            \x20       print('%s %d' % (name, ctypes.cast(f, ctypes.c_void_p).value))\n\
            print('end')\n\
            sys.stdout.flush()\n\
            sys.stdin.read()\n";
        let mut child = Command::new(path)
            .args(["-c", script])
            .args(Function::ALL.map(Function::name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let out = child.stdout.take()?;
        let mut python = Self {
            child,
            addresses: HashMap::new(),
        };
        for line in BufReader::new(out).lines() {
            let line = line.ok()?;
            if line == "end" {
                return Some(python);
            }
            let (name, address) = line.split_once(' ')?;
            python.addresses.insert(name.to_owned(), address.parse().ok()?);
        }
        None
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scenario: every ELF file and every list of mappings that the fuzzer found worth keeping, and every one that once failed.
/// Guarantees: no panic, and no more mappings than lines.
#[test]
fn kept_inputs() {
    let ask = |data: &[u8]| match data {
        [b'E', file @ ..] => _ = elf::functions(Cursor::new(file)),
        [b'M', list @ ..] => {
            let lines = list.split(|byte| *byte == b'\n').count();
            assert!(maps::listed(list).unwrap().len() <= lines);
        }
        _ => {}
    };
    assert!(crate::kept::replay("host", ask) >= 20, "the corpus is gone");
}
