//! With Redis.

use celeryscope_core::common::Kind;

use super::SECRET;
use super::conversation::{Conversation, Input};

pub(super) fn speak(input: &mut Input<'_>, conversation: &mut Conversation) {
    while !input.0.is_empty() {
        let what = input.byte();
        let secret = SECRET.to_owned();
        let key = input.text();
        let command = match what % 16 {
            0 => command(&["AUTH", &key, &secret]),
            1 => command(&["HELLO", "3", "AUTH", &secret, &secret]),
            2 => command(&["LPUSH", "celery", &envelope(input)]),
            3 => command(&[
                "HSET",
                "unacked",
                "tag",
                &format!(r#"[{}, "", "celery"]"#, envelope(input)),
            ]),
            4 => command(&["SETEX", "celery-task-meta-1", "86400", &success(input)]),
            5 => command(&["PUBLISH", "celery-task-meta-1", &failure(input)]),
            6 => command(&["SET", &key, &secret]),
            7 => command(&["FROB", &secret, &key, &secret]),
            8 => command(&["SET", &key, &format!(r#"{{"user": "{secret}"}}"#)]),
            // Nobody answers what was not asked.
            9 if conversation.records.len() == 1 => continue,
            9 => {
                let reply = format!("*2\r\n{}{}", bulk("celery"), bulk(&envelope(input)));
                conversation.say(Kind::Recv, reply.as_bytes(), input);
                continue;
            }
            // Where a request is lost, its reply passes for that of the one before, whose reply may be names.
            10 if conversation.is_lossy() => continue,
            10 => {
                // To a command that is not one of Celery's: what answers those that are is names.
                let asked = command(&["FROB", &secret]);
                conversation.say(Kind::Send, asked.as_bytes(), &mut Input(&[]));
                let reply = format!("-ERR {secret}\r\n+OK\r\n{}:1\r\n", bulk(&secret));
                conversation.say(Kind::Recv, reply.as_bytes(), input);
                continue;
            }
            12 => command(&["HELLO", "3", "SETNAME", "auth", "AUTH", &key, &secret]),
            13 => command(&[
                "SET",
                &key,
                &format!(r#"[{{"user": 1}}, "{secret}", ["{secret}"]]"#),
            ]),
            14 => {
                let asked = command(&["SMEMBERS", "emails"]);
                conversation.say(Kind::Send, asked.as_bytes(), &mut Input(&[]));
                conversation.say(Kind::Recv, format!("*1\r\n{}", bulk(&secret)).as_bytes(), input);
                continue;
            }
            15 => {
                let asked = command(&["SUBSCRIBE", "chat"]);
                conversation.say(Kind::Send, asked.as_bytes(), input);
                let sign = if what & 16 == 0 { '>' } else { '*' };
                let told = format!("{sign}3\r\n{}{}{}", bulk("message"), bulk("chat"), bulk(&secret));
                conversation.say(Kind::Recv, told.as_bytes(), input);
                continue;
            }
            _ => command(&["BRPOP", "celery", "1"]),
        };
        conversation.say(Kind::Send, command.as_bytes(), input);
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn command(words: &[&str]) -> String {
    let words: String = words.iter().map(|word| bulk(word)).collect();
    format!("*{}\r\n{words}", words.matches("\r\n").count() / 2)
}

/// `body` and the representations of arguments hold the secret, and a header of the application's own.
fn envelope(input: &mut Input<'_>) -> String {
    let (task, id, args, own) = (input.quoted(), input.quoted(), input.quoted(), input.quoted());
    // Inside a string: without its quotes.
    let args = &args[1..args.len() - 1];
    format!(
        r#"{{"body": "{SECRET}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"lang": "py", "task": {task}, "id": {id}, "root_id": {id}, "argsrepr": "('{args}', '{SECRET}')", "kwargsrepr": "{{'{args}{SECRET}': 1}}", "x-own": [{own}, "{SECRET}"], "baggage": "{args}={SECRET}"}}, "properties": {{"correlation_id": {id}, "delivery_info": {{"exchange": "", "routing_key": "celery"}}, "delivery_tag": {id}, "body_encoding": "base64"}}}}"#
    )
}

fn success(input: &mut Input<'_>) -> String {
    let (key, id) = (input.quoted(), input.quoted());
    format!(
        r#"{{"status": "SUCCESS", "result": {{{key}: ["{SECRET}", {{{key}: "{SECRET}"}}]}}, "traceback": null, "task_id": {id}}}"#
    )
}

fn failure(input: &mut Input<'_>) -> String {
    let (class, text, id) = (input.quoted(), input.quoted(), input.quoted());
    let text = &text[1..text.len() - 1];
    format!(
        r#"{{"status": "FAILURE", "result": {{"exc_type": {class}, "exc_message": ["{text}{SECRET}"], "exc_module": "builtins"}}, "traceback": "{text}{SECRET}", "task_id": {id}}}"#
    )
}
