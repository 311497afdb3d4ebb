//! Recordings on disk, replayed by the built binary: exact, in one file or in many, whole or with parts missing.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use celeryscope::recording::{Parts, Recorder, Rotation};
use celeryscope_core::common::{Header, Kind, Record};
use celeryscope_core::{Config, Output, Pipeline, Span};
use support::fixture::{Fixture, Owned, names};

/// A folder of our own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("celeryscope-recordings-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes the records there; gives the files, the oldest first.
    fn record(&self, records: &[Owned], rotation: Option<Rotation>) -> Vec<PathBuf> {
        let path = self.0.join("x.rec");
        let mut recorder = Recorder::create(&path, true, rotation).unwrap();
        for record in records {
            let record = Record::new(record.kind, record.header, &record.payload);
            recorder.write(&record).unwrap();
        }
        let size = recorder.finish().unwrap();
        assert_eq!(size.records, records.len() as u64);
        let older = (1..).map(|age| self.0.join(format!("x.rec.{age}")));
        let mut files: Vec<_> = older.take_while(|path| path.exists()).collect();
        files.reverse();
        files.push(path);
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the binary prints of these files; it must succeed.
fn printed(files: &[PathBuf], output: &str) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeryscope"));
    command.arg("replay").args(files).args(["--output", output]);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CELERYSCOPE_") || name.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    // Where batches end must not depend on time, so the smallest delay must change nothing.
    command.env("OTEL_BSP_SCHEDULE_DELAY", "1");
    let done = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{stderr}");
    assert!(!stderr.contains("WARN"), "{stderr}");
    done.stdout
}

/// The spans of these files, and how many records were lost.
fn spans(files: &[PathBuf]) -> (Vec<Span>, u64) {
    let mut parts = Parts::open(files).unwrap();
    let mut pipeline = Pipeline::new(Config::default());
    while let Some(record) = parts.next_record().unwrap() {
        pipeline.feed(&record);
    }
    pipeline.finish();
    let mut spans = Vec::new();
    while let Some(output) = pipeline.poll() {
        if let Output::Span(span) = output {
            spans.push(*span);
        }
    }
    (spans, pipeline.stats().records_lost)
}

fn all_names() -> Vec<String> {
    [names("redis"), names("rabbitmq")].concat()
}

/// Scenario: every recorded run is written to a file, and to files of 64 KiB; each is replayed by the binary, the latter in the order in
/// which a shell names them, which is not theirs.
/// Guarantees: every replay prints the same bytes, as OTLP/JSON and as trees; the files of one run together tell what the whole one does.
#[test]
fn replays_are_exact() {
    let (mut rotated, mut bytes) = (0, 0);
    for name in all_names() {
        let records = Fixture::load(&name).records;
        let one = Folder::new(&format!("exact-{name}"));
        let whole = one.record(&records, None);
        assert_eq!(whole.len(), 1);
        let many = Folder::new(&format!("exact-parts-{name}"));
        let rotation = Rotation {
            size: 64 << 10,
            keep: 1000,
        };
        let mut parts = many.record(&records, Some(rotation));
        rotated += usize::from(parts.len() > 2);
        parts.sort();
        for output in ["otlp-json", "tree"] {
            let first = printed(&whole, output);
            bytes += first.len();
            assert!(!first.is_empty(), "{name}");
            assert!(first == printed(&whole, output), "{name}: {output} differs");
            assert!(
                first == printed(&parts, output),
                "{name}: {output} of {} parts differs",
                parts.len()
            );
        }
    }
    assert!(
        rotated >= 5 && bytes > 100_000,
        "{rotated} runs in parts, {bytes} bytes"
    );
}

/// Scenario: recorded runs in files of 64 KiB; each file is replayed alone, and all but one together.
/// Guarantees: a file alone tells spans of the whole run only, with their processes, and some of those that are wholly in it; a file that is missing
/// is a loss of as many records as were in it.
#[test]
fn parts_stand_alone() {
    let (mut told, mut runs) = (0, 0);
    for name in all_names() {
        let records = Fixture::load(&name).records;
        let folder = Folder::new(&format!("alone-{name}"));
        let rotation = Rotation {
            size: 64 << 10,
            keep: 1000,
        };
        let files = folder.record(&records, Some(rotation));
        if files.len() < 3 {
            continue;
        }
        runs += 1;
        let (whole, _) = spans(&files);
        let known = |span: &Span| {
            let same = |other: &&Span| (&*other.name, other.trace_id) == (&*span.name, span.trace_id);
            whole.iter().find(same).map(|other| &other.process)
        };
        let mut numbers = Vec::new();
        for file in &files {
            let (alone, lost) = spans(std::slice::from_ref(file));
            assert_eq!(lost, 0, "{name}");
            for span in &alone {
                let process = known(span);
                assert!(process.is_some(), "{name}: {} is made up", span.name);
                assert!(!span.process.service().is_empty(), "{name}: {span:?}");
                told += usize::from(file != &files[0]);
            }
            let mut reader = celeryscope::recording::Reader::open(file).unwrap();
            numbers.push(reader.meta().first);
            while reader.next_record().unwrap().is_some() {}
        }
        let missing = numbers[2] - numbers[1];
        let rest: Vec<_> = [&files[..1], &files[2..]].concat();
        let (spans, lost) = spans(&rest);
        assert_eq!(lost, missing, "{name}");
        for span in &spans {
            assert!(known(span).is_some(), "{name}: {} is made up", span.name);
        }
    }
    assert!(runs >= 5 && told > 30, "{runs} runs, {told} spans of later parts");
}

/// Scenario: a recording in files of 64 KiB of which two are kept besides the one that is written.
/// Guarantees: no more are there; together they tell what an agent tells that came later, and nothing is called lost.
#[test]
fn old_parts_are_dropped() {
    let records = Fixture::load("redis-bigbody").records;
    let folder = Folder::new("dropped");
    let rotation = Rotation {
        size: 64 << 10,
        keep: 2,
    };
    let files = folder.record(&records, Some(rotation));
    assert_eq!(files.len(), 3);
    let sizes: Vec<u64> = files
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .collect();
    // A record is added whole, however little room there is.
    assert!(sizes.iter().all(|size| *size < 3 * (64 << 10)), "{sizes:?}");
    assert_eq!(spans(&files).1, 0);
    printed(&files, "otlp-json");
}

/// Scenario: files of two recordings at once, the same file twice, and something else beside a recording.
/// Guarantees: refused, by the files' names.
#[test]
fn files_that_do_not_belong_together() {
    let (one, other) = (Folder::new("one"), Folder::new("other"));
    let record = [Owned {
        kind: Kind::Clock,
        header: Header::default(),
        payload: Vec::new(),
    }];
    let files = [one.record(&record, None), other.record(&record, None)].concat();
    let refused = |files: &[PathBuf]| format!("{:#}", anyhow::Error::from(Parts::open(files).unwrap_err()));
    assert!(refused(&files).contains("are of different recordings"));
    assert!(refused(&[files[0].clone(), files[0].clone()]).contains("are the same part"));
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(refused(&[files[0].clone(), here]).contains("Cargo.toml: not a celeryscope recording"));
}
