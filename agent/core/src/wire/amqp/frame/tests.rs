//! Made-up frames; recorded ones are in `agent/core/tests/amqp`.

use super::*;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
    out
}

/// A connection's first bytes, a publish of two body frames, a heartbeat.
fn stream() -> Vec<u8> {
    [
        b"AMQP\0\0\x09\x01".to_vec(),
        frame(1, 1, b"\0\x3c\0\x28\0\0\0\x06celery\0"),
        frame(2, 1, b"\0\x3c\0\0\0\0\0\0\0\0\0\x05\0\0"),
        frame(3, 1, b"ab\xcec"),
        frame(3, 1, b"d"),
        frame(8, 0, b""),
    ]
    .concat()
}

fn read(decoder: &mut FrameDecoder, data: &[u8], begins: bool) -> Vec<Frame<'static>> {
    let mut segment = Segment {
        data,
        begins,
        call: Call::default(),
    };
    std::iter::from_fn(|| decoder.next(&mut segment))
        .map(|item| item.value.into_owned())
        .collect()
}

fn balanced(decoder: &FrameDecoder) -> bool {
    let stats = decoder.stats();
    stats.bytes + stats.gap_bytes == stats.frame_bytes + stats.skipped_bytes + decoder.pending()
}

/// Scenario: a stream cut in two at every byte.
/// Guarantees: the same frames, and every byte accounted for.
#[test]
fn cut_at_every_byte() {
    let stream = stream();
    let whole = read(&mut FrameDecoder::new(&Limits::default()), &stream, true);
    assert_eq!(whole.len(), 5);
    assert_eq!(whole[2].whole(), Some(&b"ab\xcec"[..]));
    for cut in 0..=stream.len() {
        let mut decoder = FrameDecoder::new(&Limits::default());
        let mut frames = read(&mut decoder, &stream[..cut], true);
        frames.extend(read(&mut decoder, &stream[cut..], true));
        assert_eq!(frames, whole, "cut at {cut}");
        assert!(balanced(&decoder), "cut at {cut}");
    }
}

/// Scenario: bytes missing within a body frame, and from one frame into the next.
/// Guarantees: the first costs that frame alone; after the second, reading goes on at the next call that begins a
/// method or header, never in a body.
#[test]
fn gaps() {
    let mut decoder = FrameDecoder::new(&Limits::default());
    assert_eq!(read(&mut decoder, &frame(3, 1, &[b'x'; 100])[..20], true), []);
    assert!(decoder.gap(60).is_none());
    let rest = read(&mut decoder, &frame(3, 1, &[b'x'; 100])[80..], false);
    assert_eq!((rest.len(), rest[0].len, rest[0].whole()), (1, 100, None));
    assert!(decoder.is_synced());

    read(&mut decoder, &frame(1, 1, b"\0\x3c\0\x28")[..9], true);
    assert!(decoder.gap(50).is_none());
    assert!(!decoder.is_synced());
    assert_eq!(read(&mut decoder, &frame(3, 1, b"body"), true), []);
    assert_eq!(read(&mut decoder, b"anything at all", true), []);
    let found = read(
        &mut decoder,
        &frame(1, 2, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\0"),
        true,
    );
    assert_eq!((found.len(), found[0].channel), (1, 2));
    assert!(decoder.is_synced() && balanced(&decoder));
    assert_eq!((decoder.stats().sync_losses, decoder.stats().resyncs), (1, 1));
}

/// Scenario: a frame whose last octet is not `CE`, huge lengths, bytes of other protocols.
/// Guarantees: counted, skipped, nothing reserved for a length that was only claimed.
#[test]
fn not_frames() {
    let mut broken = frame(1, 1, b"\0\x3c\0\x28\0\0\0\0\0");
    *broken.last_mut().unwrap() = 0;
    for bytes in [
        &broken[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0],
    ] {
        let mut decoder = FrameDecoder::new(&Limits::default());
        assert_eq!(read(&mut decoder, bytes, true), []);
        assert_eq!(decoder.stats().protocol_errors, 1, "{bytes:?}");
        assert!(balanced(&decoder));
    }
    let mut decoder = FrameDecoder::new(&Limits::default());
    assert_eq!(
        read(&mut decoder, &[3, 0, 1, 0x3f, 0xff, 0xff, 0xff, 0], true),
        []
    );
    assert!(decoder.payload.capacity() < 1024);
}

/// Scenario: a decoder that joins in the middle; transfers that are no beginnings, one byte of them a time the first of a
/// frame; then a method, in two transfers cut at every byte.
/// Guarantees: the method is found, wherever it is cut.
#[test]
fn found_in_pieces() {
    let method = frame(1, 2, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\0");
    for cut in 0..method.len() {
        let mut decoder = FrameDecoder::new(&Limits::default());
        decoder.lose_sync();
        for noise in [
            &b"\0\x3c\0\x3c"[..],
            b"[[], {}]",
            b"\x01\0\0\0\0\0\x04\0\x3c\0\x0a",
            b"\xce",
        ] {
            assert_eq!(read(&mut decoder, noise, true), []);
            assert!(!decoder.is_synced());
        }
        let mut found = read(&mut decoder, &method[..cut], true);
        found.extend(read(&mut decoder, &method[cut..], cut == 0));
        assert_eq!(
            (found.len(), found.first().map(|f| f.channel)),
            (1, Some(2)),
            "cut at {cut}"
        );
        assert!(decoder.is_synced() && balanced(&decoder));
        assert_eq!(decoder.stats().protocol_errors, 0);
    }
}

/// Scenario: beginnings that look like a frame, each with one thing in it that can't be.
/// Guarantees: none is taken for the boundary.
#[test]
fn what_is_no_boundary() {
    let large = frame(2, 1, &[&b"\0\x3c"[..], &[0; 131_072]].concat());
    for bytes in [
        &frame(1, 0, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\0")[..],
        &frame(1, 1, b"\0\x0a\0\x1f\0\0\0\0\0\0\0\0"),
        &frame(1, 1, b"\0\x3d\0\x50\0\0\0\0"),
        &frame(1, 2048, b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\0"),
        &frame(2, 0, b"\0\x3c\0\0\0\0\0\0\0\0\0\x05\0\0"),
        &frame(2, 1, b"\0\x3c\0\0"),
        &frame(3, 1, b"[[], {}, {}]"),
        &frame(8, 0, b"x"),
        &large,
    ] {
        let mut decoder = FrameDecoder::new(&Limits::default());
        decoder.lose_sync();
        assert_eq!(
            read(&mut decoder, bytes, true),
            [],
            "{}",
            bytes[..20.min(bytes.len())].escape_ascii()
        );
        assert!(!decoder.is_synced() && balanced(&decoder));
    }
}

/// Scenario: frames within and beyond what the two ends agreed on, and beyond what is assumed where that was not seen.
/// Guarantees: what was agreed on binds, what is assumed does not, where frames are in sync; no agreement can be below
/// the protocol's minimum.
#[test]
fn tuning() {
    let fits = frame(3, 1, &[b'x'; 4096 - 8]);
    let large = frame(3, 1, &[b'x'; 4096 - 7]);
    let high = frame(3, 3, b"x");
    let count = |tuning: Option<Tuning>, bytes: &[u8]| {
        let mut decoder = FrameDecoder::new(&Limits::default());
        if let Some(tuning) = tuning {
            decoder.tune(tuning);
        }
        let frames = read(&mut decoder, bytes, true).len() as u64;
        assert_eq!(frames + decoder.stats().protocol_errors, 1);
        frames
    };
    let small = Some(Tuning::new(1, 2));
    assert_eq!(
        (count(small, &fits), count(small, &large), count(small, &high)),
        (1, 0, 0)
    );
    let free = Some(Tuning::new(0, 0));
    assert_eq!(
        (
            count(free, &large),
            count(free, &frame(3, u16::MAX, &[b'x'; 200_000]))
        ),
        (1, 1)
    );
    assert_eq!(count(None, &frame(3, 3000, &[b'x'; 200_000])), 1);
}
