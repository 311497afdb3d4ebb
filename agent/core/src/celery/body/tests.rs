use super::*;

/// Scenario: a protocol 2 body with two positional and one keyword argument, nested ones included.
/// Guarantees: top-level arguments are counted; size is that of the decoded bytes.
#[test]
fn counts() {
    let json = r#"[[1, [2, 3]], {"k": {"a": 1}}, {"chain": null}]"#;
    let text = STANDARD.encode(json);
    let body = Body::new(&text, true, None);
    assert_eq!(count_arguments(&body.decoded().unwrap()), Some((2, 1)));
    assert_eq!(body.size(), json.len() as u64);
    assert_eq!(Body::new("", true, Some(1 << 20)).decoded(), None);
    assert_eq!(Body::new("!!", true, None).decoded(), None);
}

/// What the general reader counts.
fn slowly(text: &str) -> Option<(u64, u64)> {
    let body = Body::new(text, true, None);
    let decoded = body.decoded()?;
    all_arguments(std::str::from_utf8(&decoded).ok()?)
}

/// Scenario: bodies whose arguments are of every length, so that what follows is in each of its encoded forms, and arguments of
/// every kind, some of them broken.
/// Guarantees: as many arguments as the general reader counts, in base64 and plain.
#[test]
fn what_follows_the_arguments() {
    let whole = STANDARD.encode(NO_WORKFLOW);
    for (shared, encoded) in NO_WORKFLOW_ENCODED {
        assert_eq!(STANDARD.encode(&NO_WORKFLOW[shared..]), encoded);
    }
    assert_eq!(whole, NO_WORKFLOW_ENCODED[2].1);
    let mut bodies: Vec<String> = (0..200)
        .map(|len| format!(r#"[["{}"], {{"k": {len}}}, {NO_WORKFLOW}"#, "a".repeat(len)))
        .collect();
    let parts = [
        "[]",
        "{}",
        "[0, -1.5e3]",
        r#"{"é": "\"", "l": [{}]}"#,
        "null",
        "1",
        "[1,]",
        "[ 1 ] ",
        "[[]",
        "",
    ];
    for args in parts {
        for kwargs in parts {
            bodies.push(format!("[{args}, {kwargs}, {NO_WORKFLOW}"));
            bodies.push(format!("[{args},{kwargs},{NO_WORKFLOW}"));
            bodies.push(format!("[{args}, {kwargs}, 1, {NO_WORKFLOW}"));
            bodies.push(format!("{args}, {kwargs}, {NO_WORKFLOW}"));
            bodies.push(format!("[{args}, {kwargs}, {NO_WORKFLOW} "));
        }
    }
    let mut counted = 0;
    for json in bodies {
        let text = STANDARD.encode(&json);
        let counts = Body::new(&text, true, None).arguments(Form::default());
        assert_eq!(counts, slowly(&text), "{json}");
        assert_eq!(counts, count_arguments(json.as_bytes()), "{json}");
        counted += u32::from(counts.is_some());
    }
    assert!(counted > 300, "{counted}");
}

/// Scenario: an ordinary body of which a character is another, or that is cut anywhere.
/// Guarantees: what is no base64, or no longer ordinary, is counted as the general reader does, or not at all.
#[test]
fn broken_bodies() {
    for args in ["[0]", "[0, 0]", "[0, 10]"] {
        let text = STANDARD.encode(format!("[{args}, {{}}, {NO_WORKFLOW}"));
        let same = |text: &str| {
            let body = Body::new(text, true, None);
            assert_eq!(body.arguments(Form::default()), slowly(text), "{text}");
        };
        for at in 0..text.len() {
            same(&text[at..]);
            same(&text[..at]);
            for other in ["=", "A", "/", "!", "\n", "é", "-", "", "=="] {
                let mut broken = text.clone();
                broken.replace_range(at..=at, other);
                same(&broken);
            }
        }
        let other = Form {
            content_type: Some("application/x-yaml"),
            compression: None,
        };
        assert_eq!(Body::new(&text, true, Some(9)).arguments(Form::default()), None);
        assert_eq!(Body::new(&text, false, None).arguments(Form::default()), None);
        assert!(
            Body::new(&text, true, None).arguments(other).is_some(),
            "it is YAML too"
        );
    }
}
