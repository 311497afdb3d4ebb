//! What looks like Celery's and is another program's, and secrets that look like what may be shown.

use celeryscope_common::Kind;

use super::{Redactor, SECRETS, assert_clean, command, envelope, open, run, transfer};

/// What becomes of what is sent, and then of what is received, on a new connection.
fn masked(sent: &[Vec<u8>], received: &[u8]) -> (String, String) {
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    let sent = run(&mut redactor, &transfer(Kind::Send, 0, &sent.concat(), &[]));
    let received = run(&mut redactor, &transfer(Kind::Recv, 0, received, &[]));
    assert_clean(&sent);
    assert_clean(&received);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(sent), text(received))
}

fn bulks(kind: char, strings: &[&str]) -> Vec<u8> {
    let mut out = format!("{kind}{}\r\n", strings.len());
    for string in strings {
        out += &format!("${}\r\n{string}\r\n", string.len());
    }
    out.into_bytes()
}

/// Scenario: passwords that begin like documents, and clients that are called like the options of HELLO.
/// Guarantees: no byte of a password is shown; names are.
#[test]
fn passwords_that_look_like_something_else() {
    for password in ["[-hunter2", "{hunter2}", "[1, true]", "\"hunter2\""] {
        for before in [
            &["AUTH"][..],
            &["AUTH", "app"],
            &["HELLO", "3", "AUTH", "app"],
            &["HELLO", "3", "SETNAME", "auth", "AUTH", "app"],
            &["HELLO", "3", "SETNAME", "setname", "auth", "SETNAME"],
            &["CONFIG", "SET", "requirepass"],
            &["ACL", "SETUSER", "app"],
        ] {
            let words = [before, &[password]].concat();
            let (sent, _) = masked(&[command(&words)], b"+OK\r\n");
            let hidden = "x".repeat(password.len());
            assert!(sent.ends_with(&format!("\r\n{hidden}\r\n")), "{sent}");
        }
    }
    let (sent, _) = masked(
        &[command(&[
            "HELLO", "3", "AUTH", "auth", "hunter2", "SETNAME", "shop",
        ])],
        b"",
    );
    assert!(sent.ends_with("$7\r\nSETNAME\r\n$4\r\nshop\r\n"), "{sent}");
}

/// Scenario: other programs' queues, sets and channels, of RESP2 and RESP3, and results of Celery's that are no JSON.
/// Guarantees: keys and channels are shown, what came from them is not; nor is what else may be answered where those are waited for.
#[test]
fn values_that_are_no_documents() {
    let secret = SECRETS[0];
    for (asked, kind, answer, shown) in [
        (&["BRPOP", "jobs", "1"][..], '*', &["jobs", secret][..], "jobs"),
        (&["BLPOP", "jobs", "1"], '*', &["jobs", secret], "jobs"),
        (&["SUBSCRIBE", "chat"], '*', &["message", "chat", secret], "chat"),
        (&["SUBSCRIBE", "chat"], '>', &["message", "chat", secret], "chat"),
        (
            &["PSUBSCRIBE", "ch*"],
            '*',
            &["pmessage", "ch*", "chat", secret],
            "chat",
        ),
        (
            &["SUBSCRIBE", "celery-task-meta-d5706acd"],
            '*',
            &[
                "message",
                "celery-task-meta-d5706acd",
                "\u{1}}\u{2}(X\u{6}statusX\u{6}SECRET",
            ],
            "celery-task-meta-d5706acd",
        ),
    ] {
        let (_, received) = masked(&[command(asked)], &bulks(kind, answer));
        assert!(received.contains(shown), "{received}");
    }
    for (asked, answer) in [
        (
            &["BRPOPLPUSH", "jobs", "done", "1"][..],
            format!("$7\r\n{secret}\r\n"),
        ),
        (&["RPOP", "jobs"], format!("$7\r\n{secret}\r\n")),
        (&["CLIENT", "LIST"], format!("$7\r\n{secret}\r\n")),
        (
            &["HELLO", "3"],
            format!("%1\r\n$7\r\n{secret}\r\n$7\r\n{secret}\r\n"),
        ),
        (
            &["BRPOP", "jobs", "1"],
            format!("*3\r\n$7\r\n{secret}\r\n$7\r\n{secret}\r\n$7\r\n{secret}\r\n"),
        ),
        (
            &["BRPOP", "jobs", "1"],
            format!("*1\r\n*2\r\n$7\r\n{secret}\r\n$7\r\n{secret}\r\n"),
        ),
        (
            &["BRPOP", "jobs", "1"],
            format!("%1\r\n$7\r\n{secret}\r\n*2\r\n$7\r\n{secret}\r\n:1\r\n"),
        ),
        (&["SMEMBERS", "emails"], format!("*1\r\n$7\r\n{secret}\r\n")),
        (
            &["SMEMBERS", "unacked_mails"],
            format!("~1\r\n$7\r\n{secret}\r\n"),
        ),
        (
            &["ZRANGE", "scores", "0", "-1"],
            format!("*1\r\n$7\r\n{secret}\r\n"),
        ),
    ] {
        masked(&[command(asked)], answer.as_bytes());
    }
    let (sent, _) = masked(&[command(&["SADD", "unacked_mails", secret])], b"");
    assert!(sent.contains("unacked_mails"), "{sent}");
}

/// Scenario: a subscription, then requests that can't be followed, and an array of values that answers them.
/// Guarantees: it is not taken for a message.
#[test]
fn answers_after_a_subscription() {
    let mut redactor = Redactor::default();
    open(&mut redactor, 0);
    let subscribe = command(&["SUBSCRIBE", "chat"]);
    run(&mut redactor, &transfer(Kind::Send, 0, &subscribe, &[]));
    let inline = transfer(Kind::Send, subscribe.len(), b"MGET a b c\r\n", &[]);
    run(&mut redactor, &inline);
    let answer = bulks('*', &SECRETS[..3]);
    assert_clean(&run(&mut redactor, &transfer(Kind::Recv, 0, &answer, &[])));
}

/// Scenario: documents of other programs that begin as an envelope, a result, or a list around one does.
/// Guarantees: nothing of them is shown that is a value; a result of Celery's in either order of its keys stays what it is.
#[test]
fn documents_of_others() {
    let envelope = envelope();
    for document in [
        r#"[{"user": 1}, "hunter2", 4242, ["SECRET"]]"#,
        r#"[["a"], {"body": "hunter2"}, "SECRET"]"#,
        r#"[{"status": "ok", "result": 1}, "hunter2", 4242]"#,
        r#"{"status": "hunter2", "result": "SECRET"}"#,
        r#"{"status": "SUCCESS", "name": "hunter2", "children": ["SECRET", 4242]}"#,
        r#"{"task_id": "d5706acd", "worker": "hunter2", "status": "OK", "name": "SECRET"}"#,
        r#"{"user": "hunter2", "headers": {"id": "SECRET"}}"#,
    ] {
        masked(
            &[command(&["SET", "celery-task-meta-1", document])],
            format!("${}\r\n{document}\r\n", document.len()).as_bytes(),
        );
    }
    let (sent, _) = masked(
        &[
            command(&[
                "HSET",
                "unacked",
                "d8f9c8ab",
                &format!(r#"[{envelope}, "ex", "celery"]"#),
            ]),
            command(&[
                "SETEX",
                "celery-task-meta-1",
                "60",
                r#"{"status": "MY_STATE", "result": "SECRET", "task_id": "c1d2", "worker": "w1@h"}"#,
            ]),
            command(&[
                "LPUSH",
                "reply",
                r#"{"task_id": "c1d2", "status": "SUCCESS", "result": "SECRET", "group_id": "g7"}"#,
            ]),
        ],
        b"",
    );
    for kept in [
        r#"}}, "ex", "celery"]"#,
        r#""status": "MY_STATE", "result": "xxxxxx", "task_id": "c1d2", "worker": "w1@h"}"#,
        r#"{"task_id": "c1d2", "status": "SUCCESS", "result": "xxxxxx", "group_id": "g7"}"#,
    ] {
        assert!(sent.contains(kept), "{kept} is not in {sent}");
    }
}
