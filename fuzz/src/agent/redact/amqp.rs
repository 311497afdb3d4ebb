//! With RabbitMQ.

use celeryscope_core::common::Kind;

use super::SECRET;
use super::conversation::{Conversation, Input};

pub(super) fn speak(input: &mut Input<'_>, conversation: &mut Conversation) {
    let none = &mut Input(&[]);
    conversation.say(Kind::Send, b"AMQP\0\0\x09\x01", none);
    let start = [&[0, 9][..], &long(b""), &long(b"PLAIN"), &long(b"en_US")].concat();
    conversation.say(Kind::Recv, &method(0, 10, 10, &start), none);
    let answer = format!("\0user\0{SECRET}");
    let start_ok = [long(b""), short("PLAIN"), long(answer.as_bytes()), short("en_US")].concat();
    conversation.say(Kind::Send, &method(0, 10, 11, &start_ok), input);
    let tune = [&[0, 8][..], &[0, 2, 0, 0], &[0, 0]].concat();
    conversation.say(Kind::Recv, &method(0, 10, 30, &tune), none);
    conversation.say(Kind::Send, &method(0, 10, 31, &tune), none);
    let open = [short("/"), vec![0, 0]].concat();
    conversation.say(Kind::Send, &method(0, 10, 40, &open), none);
    conversation.say(Kind::Recv, &method(0, 10, 41, &[0]), none);
    while !input.0.is_empty() {
        let what = input.byte();
        let name = input.text();
        let (kind, bytes) = match what % 6 {
            0 | 1 => {
                let publish = [vec![0, 0], short(""), short("celery"), vec![0]].concat();
                (Kind::Send, [method(1, 60, 40, &publish), content(input)].concat())
            }
            2 | 3 => {
                let deliver = [
                    short("None1"),
                    vec![0, 0, 0, 0, 0, 0, 0, what],
                    vec![0],
                    short(""),
                    short("celery"),
                ]
                .concat();
                (Kind::Recv, [method(1, 60, 60, &deliver), content(input)].concat())
            }
            4 => {
                let ack = [&[0, 0, 0, 0, 0, 0, 0, what][..], &[0]].concat();
                (Kind::Send, method(1, 60, 80, &ack))
            }
            // Arguments of a method that no task needs: whatever an application puts there.
            _ => {
                let arguments = table(&[("x-own", SECRET), (&name, SECRET)]);
                let declare = [vec![0, 0], short(&name), vec![0], arguments].concat();
                (Kind::Send, method(1, 50, 10, &declare))
            }
        };
        conversation.say(kind, &bytes, input);
    }
}

/// The header and the body of a task's message.
fn content(input: &mut Input<'_>) -> Vec<u8> {
    let (task, id, own) = (input.text(), input.text(), input.text());
    let args = input.quoted();
    let body = format!(r#"[[{args}, "{SECRET}"], {{{args}: "{SECRET}"}}, {{"callbacks": null}}]"#);
    let headers = table(&[
        ("lang", "py"),
        ("task", &task),
        ("id", &id),
        ("argsrepr", &format!("('{own}', '{SECRET}')")),
        ("kwargsrepr", &format!("{{'{own}': '{SECRET}'}}")),
        ("x-own", SECRET),
        (&format!("zz{own}"), SECRET),
    ]);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    // content-type, content-encoding, headers, correlation-id
    header.extend(0b1110_0100_0000_0000_u16.to_be_bytes());
    header.extend([short("application/json"), short("utf-8"), headers, short(&id)].concat());
    [frame(2, 1, &header), frame(3, 1, body.as_bytes())].concat()
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0, channel];
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
    out
}

fn method(channel: u8, class: u8, method: u8, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&[0, class, 0, method], arguments].concat())
}

fn short(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(255)];
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn table(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = fields
        .iter()
        .map(|(name, value)| [short(name), vec![b'S'], long(value.as_bytes())].concat())
        .collect();
    long(&fields.concat())
}
