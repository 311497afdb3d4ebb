//! Recordings that are cut, damaged, forged and from elsewhere.

use proptest::prelude::*;

use super::super::Writer;
use super::super::format::PAYLOAD_LIMIT;
use super::super::header::ENDIAN;
use super::*;

/// A recording of as many records, each with its number as its connection and as the length of its payload.
fn recording(records: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, true).unwrap();
    for n in 0..records {
        writer.write(&record(n, &vec![b'x'; n as usize])).unwrap();
    }
    writer.finish().unwrap();
    out
}

fn record(conn: u64, payload: &[u8]) -> Record<'_> {
    let header = Header {
        conn,
        exit: 100 + conn,
        ..Header::default()
    };
    Record::new(Kind::Send, header, payload)
}

/// Where each block of a recording begins, and its end.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    let marks = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&MARK));
    marks.chain([bytes.len()]).collect()
}

/// What came of a recording.
#[derive(Debug)]
struct Got {
    conns: Vec<u64>,
    lost: u64,
    report: Report,
}

fn read(bytes: &[u8]) -> Result<Got, ReadError> {
    let mut reader = Reader::new(bytes)?;
    let (mut conns, mut lost) = (Vec::new(), 0);
    while let Some(record) = reader.next_record()? {
        if record.kind == Kind::Lost {
            lost += record.header.conn;
        } else {
            assert_eq!(record.payload.len() as u64, record.header.conn);
            conns.push(record.header.conn);
        }
    }
    assert!(
        reader.window.len() <= 2 * (PAYLOAD_LIMIT + CHUNK),
        "{}",
        reader.window.len()
    );
    assert!(!reader.step()?, "a reader that goes on after the end");
    Ok(Got {
        conns,
        lost,
        report: reader.report,
    })
}

/// Scenario: a recording of four records, cut at every byte.
/// Guarantees: the whole records before the cut are read, nothing is called damaged, and a cut is told from a whole file
/// even where it is between two blocks.
#[test]
fn cut_anywhere() {
    let whole = recording(4);
    let blocks = blocks(&whole);
    for cut in 0..=whole.len() {
        let result = read(&whole[..cut]);
        if cut < blocks[0] {
            assert!(
                matches!(result, Err(ReadError::NotARecording | ReadError::Header(_))),
                "{cut}"
            );
            continue;
        }
        let got = result.unwrap();
        let records = blocks[1..5].iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(got.conns, Vec::from_iter(0..records), "{cut}");
        assert_eq!((got.lost, got.report.damaged), (0, 0), "{cut}");
        let broken = blocks.iter().rfind(|begin| **begin <= cut).copied();
        let expected = broken.map(|begin| begin as u64).filter(|_| cut < whole.len());
        assert_eq!(got.report.cut, expected, "{cut}");
    }
}

/// Scenario: each bit of a recording of four records is turned.
/// Guarantees: in the header an error; in a block that block is lost, counted and said once, and all others are read.
#[test]
fn any_flipped_bit_costs_its_block() {
    let whole = recording(4);
    let blocks = blocks(&whole);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let result = read(&bytes);
            if at < blocks[0] {
                assert!(result.is_err(), "{at}");
                continue;
            }
            let got = result.unwrap();
            let hit = blocks.iter().filter(|begin| **begin <= at).count() as u64 - 1;
            let expected: Vec<u64> = (0..4).filter(|n| *n != hit).collect();
            assert_eq!(got.conns, expected, "{at}");
            assert_eq!(got.report.damaged, 1, "{at}");
            assert_eq!(got.report.first_damage, blocks[hit as usize] as u64, "{at}");
            let (lost, cut) = if hit < 4 { (1, false) } else { (0, true) };
            assert_eq!((got.lost, got.report.lost), (lost, lost), "{at}");
            assert_eq!(got.report.cut.is_some(), cut, "{at}");
        }
    }
}

/// Scenario: the last block of records is damaged and the file is cut behind it.
/// Guarantees: its head's number, or the size of the damage, tells that a record is lost.
#[test]
fn damage_before_a_cut_is_a_loss() {
    let whole = recording(3);
    let blocks = blocks(&whole);
    for at in [blocks[2] + 1, blocks[2] + HEAD + 1] {
        let mut bytes = whole[..blocks[3]].to_vec();
        bytes[at] ^= 1;
        let got = read(&bytes).unwrap();
        assert_eq!(
            (got.conns, got.lost, got.report.damaged),
            (vec![0, 1], 1, 1),
            "{at}"
        );
        assert!(got.report.cut.is_some());
    }
}

/// A disk with so much room.
struct Disk<'a>(&'a mut Vec<u8>, usize);

impl io::Write for Disk<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (self.1 - self.0.len()).min(bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(&bytes[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Scenario: the disk is full after any number of bytes behind the header.
/// Guarantees: the writer says so, and what it had written whole is read.
#[test]
fn what_was_written_to_a_full_disk_is_read() {
    let whole = recording(4);
    let blocks = blocks(&whole);
    for room in blocks[0]..whole.len() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(Disk(&mut bytes, room), true).unwrap();
        let mut written = 0;
        let error = loop {
            if written == 4 {
                break writer.finish().unwrap_err();
            }
            match writer.write(&record(written, &vec![b'x'; written as usize])) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let got = read(&bytes).unwrap();
        assert_eq!(got.conns, Vec::from_iter(0..written), "{room}");
        assert!(got.report.cut.is_some() && got.report.damaged == 0, "{room}");
    }
}

/// Scenario: a payload that holds a whole block of this format, as somebody may send one to a broker who knows the format but
/// not the recording's id; the block around it is damaged.
/// Guarantees: what was sent is never taken for a record.
#[test]
fn a_block_in_a_payload_is_none() {
    let inner = recording(6);
    let begin = blocks(&inner)[5];
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, false).unwrap();
    writer.write(&record(9, &inner[begin..])).unwrap();
    writer.finish().unwrap();
    let outer = blocks(&bytes)[0];
    for at in [outer + 5, outer + HEAD + 9] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let got = read(&bytes).unwrap();
        assert_eq!((got.conns, got.lost), (vec![], 1), "{at}");
    }
}

/// Scenario: blocks and records of kinds that no agent knows yet.
/// Guarantees: they are skipped and counted; nothing is lost or damaged.
#[test]
fn what_a_newer_agent_adds_is_skipped() {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, true).unwrap();
    writer.write(&record(0, b"")).unwrap();
    let mut newer = record(0, b"");
    newer.header.kind = 999;
    writer.write(&newer).unwrap();
    writer.write(&record(1, b"x")).unwrap();
    let id = writer.meta().id.clone();
    writer.finish().unwrap();
    let end = bytes.len() - HEAD;
    let block = Head {
        kind: b'Z',
        len: 3,
        number: 0,
        crc: crc32fast::hash(b"new"),
    };
    bytes.splice(end..end, [&block.to_bytes(&id)[..], b"new"].concat());
    let got = read(&bytes).unwrap();
    assert_eq!((got.conns, got.lost), (vec![0, 1], 0));
    let report = Report {
        unknown: 2,
        ..Report::default()
    };
    assert_eq!(got.report, report);
}

/// Scenario: headers of other versions, of the other byte order, without a checksum, and without end; another file.
/// Guarantees: each is refused by name.
#[test]
fn foreign_headers_are_refused() {
    let refused = |line: &[u8]| {
        let file = [MAGIC, line, b"\n"].concat();
        Reader::new(&file[..]).unwrap_err().to_string()
    };
    let ours = Meta::new(true);
    let line = |meta: &Meta| meta.to_line().unwrap().trim_ascii_end().to_vec();
    let other = Meta {
        record: 99,
        agent: "9.9".to_owned(),
        ..ours.clone()
    };
    assert!(refused(&line(&other)).contains("records 99"));
    // The first format had no checksum there; a newer one may have something else.
    for format in [1, 9] {
        let text = refused(format!(r#"{{"format":{format},"record":1,"agent":"9.9"}}"#).as_bytes());
        assert!(text.contains(&format!("format {format}")) && text.contains("(9.9)"));
    }
    let other = Meta {
        endian: if ENDIAN == "big" { "little" } else { "big" }.to_owned(),
        ..ours.clone()
    };
    assert!(refused(&line(&other)).contains("-endian machine"));
    let whole = line(&ours);
    assert!(refused(&whole[..whole.len() - 9]).contains("checksum is missing"));
    assert!(refused(&[b'x'; 5000]).contains("longer than 4096"));
    assert!(matches!(
        Reader::new(&[0xa5; 9000][..]),
        Err(ReadError::NotARecording)
    ));
}

/// Scenario: a part that says again what holds of the one before, one of whose blocks of state is damaged.
/// Guarantees: the loss is told, before the first record.
#[test]
fn lost_state_is_a_loss() {
    let mut bytes = Vec::new();
    let meta = Meta::new(true).next_part(7, 2);
    let mut writer = Writer::begin(&mut bytes, meta).unwrap();
    writer.restate(&record(0, b"")).unwrap();
    writer.restate(&record(1, b"x")).unwrap();
    writer.write(&record(2, b"xx")).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&bytes).unwrap().conns, [0, 1, 2]);
    let first = blocks(&bytes)[0];
    bytes[first] ^= 1;
    let got = read(&bytes).unwrap();
    assert_eq!((got.conns, got.lost), (vec![1, 2], 1));
}

proptest! {
    /// Scenario: bytes of a recording are changed, removed, repeated and put in, in several places.
    /// Guarantees: no panic, no memory by a false length, and every record that is read was written, in its order.
    #[test]
    fn any_damage(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, 0..300_usize, any::<u8>()), 1..6)) {
        let whole = recording(12);
        let body = blocks(&whole)[0];
        let mut bytes = whole;
        for (place, what, len, with) in edits {
            let at = body + place.index(bytes.len() - body + 1);
            let end = (at + len).min(bytes.len());
            match what {
                0 => bytes[at..end].fill(with),
                1 => _ = bytes.drain(at..end),
                2 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
                _ => bytes.splice(at..at, vec![with; len]).for_each(drop),
            }
            bytes.resize(bytes.len().max(body + 1), with);
        }
        let got = read(&bytes).unwrap();
        prop_assert!(got.conns.is_sorted_by(|one, next| one < next), "{:?}", got.conns);
        prop_assert!(got.conns.iter().all(|conn| *conn < 12));
        prop_assert!(got.lost <= 13, "{}", got.lost);
    }

    /// Scenario: a header followed by arbitrary bytes, and arbitrary bytes alone.
    /// Guarantees: no panic, and nothing is read out of them.
    #[test]
    fn anything_at_all(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(read(&bytes).is_err());
        let whole = recording(0);
        let file = [&whole[..whole.len() - HEAD], &bytes].concat();
        prop_assert!(read(&file).unwrap().conns.is_empty());
    }
}
