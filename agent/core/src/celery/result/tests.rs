use super::*;
use crate::celery::json::tests::spaced;

/// Scenario: results as Celery 5.7 stores them.
/// Guarantees: state, class, message and traceback are read.
#[test]
fn states() {
    let failed = br#"{"status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["bad 0"], "exc_module": "builtins"}, "traceback": "Traceback", "children": [], "task_id": "x"}"#;
    let meta = ResultMeta::parse(failed).unwrap();
    assert_eq!(meta.state, ResultState::Failure);
    let exception = meta.exception.unwrap();
    assert_eq!(
        (exception.class.as_str(), exception.message.as_str()),
        ("ValueError", "bad 0")
    );
    assert_eq!(exception.traceback, "Traceback");
    let good = ResultMeta::parse(br#"{"status": "SUCCESS", "result": {"exc_type": "x"}}"#).unwrap();
    assert_eq!((good.state, good.exception), (ResultState::Success, None));
}

/// Scenario: a failure as the pickle serializer stores it: the exception is an object.
/// Guarantees: state and exception are read as from JSON.
#[test]
fn pickled() {
    let stored = b"\x80\x02}q\x00(X\x06\x00\x00\x00statusq\x01X\x07\x00\x00\x00FAILUREq\x02X\x06\x00\x00\x00resultq\x03cexceptions\nValueError\nq\x04X\x05\x00\x00\x00bad 0q\x05\x85q\x06Rq\x07u.";
    let meta = ResultMeta::parse(stored).unwrap();
    let exception = meta.exception.unwrap();
    assert_eq!(
        (meta.state, exception.class.as_str(), exception.message.as_str()),
        (ResultState::Failure, "ValueError", "bad 0")
    );
}

/// Scenario: a large result of which only the beginning was captured.
/// Guarantees: its state is known; anything else is refused.
#[test]
fn cut() {
    let meta = ResultMeta::parse(br#"{"status": "SUCCESS", "result": "aaaaaaaa"#).unwrap();
    assert_eq!(meta.state, ResultState::Success);
    assert_eq!(ResultMeta::parse(br#"{"result": "aaaaaa"#), None);
    assert_eq!(ResultMeta::parse(b"\x80\x04"), None);
}

/// Scenario: results as Celery stores and sends them, some of them wrong, cut anywhere or with another byte.
/// Guarantees: the same is read as where nothing is as usual.
#[test]
fn usual_results() {
    let results = [
        r#"{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "date_done": "2026-11-20T15:01:16.512808+00:00", "task_id": "8976c97f-7456-44ab-bf6f-df55cdfd26d7"}"#,
        r#"{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": ["a"]}, "traceback": "T", "children": [], "date_done": null, "task_id": "x"}"#,
        r#"{"status": "RETRY", "result": {"exc_type": "E"}, "traceback": null, "children": [], "date_done": "d", "group_id": 1, "task": "t", "id": "i"}"#,
        r#"{"status": "SUCC\u0045SS", "result": "a\nb", "traceback": null, "children": [1]}"#,
        r#"{"status": "STARTED", "result": null, "traceback": null, "children": [], "status": "RETRY"}"#,
        r#"{"task_id": "x", "status": "SUCCESS", "result": [1, {}], "traceback": null, "children": [], "date_done": "d"}"#,
    ];
    let same = |json: &[u8]| {
        let shown = String::from_utf8_lossy(json);
        assert_eq!(
            ResultMeta::or_task(json),
            ResultMeta::or_task(&spaced(json)),
            "{shown}"
        );
    };
    for json in results {
        same(json.as_bytes());
        for at in 0..json.len() {
            same(&json.as_bytes()[..at]);
            let mut broken = json.as_bytes().to_vec();
            for byte in *b"\"\\,}] 1n\x80" {
                broken[at] = byte;
                same(&broken);
            }
        }
    }
}
