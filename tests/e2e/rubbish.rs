//! What is no message of Celery's, or hardly a message at all.

/// The first bytes of a client of RabbitMQ.
const HELLO: &[u8] = b"AMQP\0\0\x09\x01";

/// What is thrown at a port of Redis, each on a connection of its own.
pub(crate) fn for_redis() -> Vec<Vec<u8>> {
    let lpush = |value: &[u8]| {
        let mut command = format!("*3\r\n$5\r\nLPUSH\r\n$7\r\nrubbish\r\n${}\r\n", value.len()).into_bytes();
        command.extend_from_slice(value);
        command.extend_from_slice(b"\r\n");
        command
    };
    let envelope = |headers: &str| {
        lpush(
            format!(r#"{{"body": "W10=", "headers": {headers}, "properties": {{"delivery_info": 7}}}}"#)
                .as_bytes(),
        )
    };
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
        noise(1, 64 * 1024),
        // Cut in the middle of a bulk string, of a length, of a command.
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$900\r\n{\"body\": \"W1".to_vec(),
        b"*3\r\n$5\r\nLPUSH\r\n$6".to_vec(),
        b"*2\r\n".to_vec(),
        // Lengths that no memory holds.
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$4294967296\r\n{\"body\":".to_vec(),
        b"*3\r\n$5\r\nLPUSH\r\n$6\r\ncelery\r\n$18446744073709551616\r\n".to_vec(),
        b"*2147483647\r\n$5\r\nLPUSH\r\n".to_vec(),
        b"*3\r\n$-7\r\n$0\r\n\r\n$3\r\nabc\r\n".to_vec(),
        b"*1\r\n".repeat(20_000),
        b"\r\n\r\n+OK\r\n:12\r\n-ERR no\r\n$-1\r\n*-1\r\n_\r\n".to_vec(),
        // JSON, but not Celery's.
        lpush(br#"{"id": 1, "queue": "mail", "args": ["x"], "class": "Job"}"#),
        lpush(b"[1, 2, {\"headers\": {\"task\": \"app.add\"}}]"),
        lpush(&b"[".repeat(100_000)),
        lpush(b"{\"body\": \"\xff\xfe\", \"headers\": {\"task\": \"\xc3\x28\"}}"),
        // Celery's envelope with wrong types, in wrong places.
        envelope(r#"{"task": 7, "id": ["x"], "retries": "many"}"#),
        envelope(r#"{"task": null, "id": null, "root_id": {}}"#),
        envelope(r#"["task", "id"]"#),
        envelope(r#""task""#),
        envelope(&format!(r#"{{"task": {}, "id": "x"}}"#, "[".repeat(5_000))),
    ]
}

/// What is thrown at a port of RabbitMQ, each on a connection of its own.
pub(crate) fn for_rabbitmq() -> Vec<Vec<u8>> {
    let text = |name: &str, value: &[u8]| field(name, b'S', &long(value));
    let task = text("task", b"app.add");
    vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec(),
        noise(1, 64 * 1024),
        amqp(&noise(2, 64 * 1024)),
        HELLO.repeat(2000),
        // Cut in a frame's head, in its payload, before its end, between the parts of a message, within a body.
        amqp(b"\x01\0\x01\0\0"),
        amqp(b"\x01\0\x01\0\0\x01\0\0\x3c\0\x28\0\0\0"),
        amqp(b"\x01\0\x01\0\0\0\x04\0\x0a\0\x0b"),
        amqp(&frame(1, 1, b"\0\x3c\0\x28\0\0\0\x06celery\0")),
        amqp(&published(&task, 1000, b"[[1, 2], {}")),
        amqp(&[published(&task, 1000, b"[["), published(&task, 1000, b"[[")].concat()),
        // Lengths that no memory holds, and ends that are none.
        amqp(b"\x01\0\0\x7f\xff\xff\xff\0\x0a\0\x0b"),
        amqp(b"\x01\0\x01\xff\xff\xff\xff\0\x3c\0\x28"),
        amqp(b"\x01\0\0\0\0\0\x04\0\x0a\0\x0bX").repeat(50),
        amqp(&published(&task, u64::MAX, b"[]")),
        amqp(&published(b"\xfftask", 2, b"[]")),
        amqp(&published(b"\x04taskS\xff\xff\xff\xffapp.add", 2, b"[]")),
        amqp(&frame(
            2,
            1,
            b"\0\x3c\0\0\0\0\0\0\0\0\0\x02\x20\0\xff\xff\xff\xff\x04task",
        )),
        // Tables in tables, arrays in arrays.
        amqp(&published(&nested(5000), 2, b"[]")),
        amqp(&published(&[task.clone(), nested(5000)].concat(), 2, b"[]")),
        amqp(&published(&field("id", b'A', &arrays(5000)), 2, b"[]")),
        // Wrong UTF-8 in names and texts.
        amqp(&published(b"\x02\xff\xfeS\0\0\0\x01x", 2, b"[]")),
        amqp(&published(&text("task", b"\xc3\x28"), 2, b"\xff\xfe")),
        amqp(&published(
            &[task.clone(), text("id", b"\xff\xfe")].concat(),
            2,
            b"[]",
        )),
        // Celery's headers with wrong types, and types that there are none of.
        amqp(&published(&field("task", b'I', &[0, 0, 0, 7]), 2, b"[]")),
        amqp(&published(
            &[task.clone(), field("id", b'V', b"")].concat(),
            2,
            b"[]",
        )),
        amqp(&published(
            &[task.clone(), field("id", b'F', &long(&nested(3)))].concat(),
            2,
            b"[]",
        )),
        amqp(&published(&[task, field("id", b'?', b"x")].concat(), 2, b"[]")),
        // Nobody's but somebody's: JSON without headers.
        amqp(&published(b"", 24, br#"{"id": 1, "args": ["x"]}"#)),
        amqp(&published(b"", 100_000, &b"[".repeat(100_000))),
    ]
}

/// Frames of a client, after its first bytes.
pub(crate) fn amqp(frames: &[u8]) -> Vec<u8> {
    [HELLO, frames].concat()
}

/// A message to the queue `celery` with this table of headers; its body is said to be of `size` bytes.
pub(crate) fn published(headers: &[u8], size: u64, body: &[u8]) -> Vec<u8> {
    // Class `basic`, no weight, the size; of all properties only the headers.
    let head = [
        &[0, 60, 0, 0],
        &size.to_be_bytes()[..],
        &[0x20, 0],
        &long(headers),
    ]
    .concat();
    [
        frame(1, 1, b"\0\x3c\0\x28\0\0\0\x06celery\0"),
        frame(2, 1, &head),
        frame(3, 1, body),
    ]
    .concat()
}

/// Tables within each other.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| field("t", b'F', &long(&inner)))
}

fn arrays(depth: usize) -> Vec<u8> {
    (0..depth).fold(long(b""), |inner, _| long(&[b"A", &inner[..]].concat()))
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xce]].concat()
}

fn field(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes(), &[kind], value].concat()
}

/// With its length before it.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// Bytes without a pattern, the same for the same seed (xorshift64).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}
