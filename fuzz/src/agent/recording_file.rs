//! Recordings, read back.

use celeryscope_core::common::{Header, Kind, Record};

use super::recording::{Reader, Writer};

/// The first byte says: a file of these bytes, or one of records made of them that is then damaged or cut. Whatever the file,
/// reading ends; of a damaged one no record is read that was not written, and none twice or in another order.
pub fn recording(data: &[u8]) {
    let [mode, at, by, rest @ ..] = data else { return };
    if mode % 4 == 0 {
        _ = read(rest);
        return;
    }
    let records: Vec<(Kind, Header, &[u8])> = rest.chunks(usize::from(*at) + 1).map(record).collect();
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, true).expect("memory can be written");
    for (kind, header, payload) in &records {
        writer
            .write(&Record::new(*kind, *header, payload))
            .expect("memory can be written");
    }
    writer.finish().expect("memory can be written");
    let (got, lost) = read(&file);
    assert_eq!((got, lost), (whole(&records), 0), "what was written is read");

    let place = usize::from(u16::from_be_bytes([*at, *by])) % file.len();
    match mode % 4 {
        1 => file.truncate(place),
        2 => file[place] ^= by | 1,
        _ => {
            // A block's length, wherever it says that it begins.
            let len = file.len();
            file[place..len.min(place + 4)].fill(*by);
        }
    }
    let mut written = whole(&records).into_iter();
    for record in read(&file).0 {
        assert!(written.any(|own| own == record), "made up: {record:?}");
    }
}

/// A record of this chunk.
fn record(chunk: &[u8]) -> (Kind, Header, &[u8]) {
    let first = chunk.first().copied().unwrap_or(0);
    // What is lost is said by records of its own, which the reader makes.
    let known = Kind::from_raw(u16::from(first) % 15).filter(|kind| *kind != Kind::Lost);
    let kind = known.unwrap_or(Kind::Send);
    let header = Header {
        conn: u64::from(first),
        exit: u64::from(first) << 40,
        total: u32::MAX,
        ..Header::default()
    };
    (kind, header, chunk)
}

type Read = Vec<(Header, Vec<u8>)>;

fn whole(records: &[(Kind, Header, &[u8])]) -> Read {
    let each = |(kind, header, payload): &(Kind, Header, &[u8])| {
        let record = Record::new(*kind, *header, payload);
        (record.header, payload.to_vec())
    };
    records.iter().map(each).collect()
}

/// All records that are not damaged, and how often it was said that some are missing.
fn read(file: &[u8]) -> (Read, usize) {
    let (mut out, mut lost) = (Vec::new(), 0);
    let Ok(mut reader) = Reader::new(file) else {
        return (out, lost);
    };
    while let Ok(Some(record)) = reader.next_record() {
        assert_eq!(record.header.len as usize, record.payload.len());
        if record.kind == Kind::Lost {
            lost += 1;
        } else {
            out.push((record.header, record.payload.to_vec()));
        }
        assert!(out.len() + lost <= file.len(), "it never ends");
    }
    (out, lost)
}
