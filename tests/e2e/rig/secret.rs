//! Looks for a secret in whatever the agent leaves behind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Fails where `bytes`, which are `place`, hold a secret in any form.
#[track_caller]
pub(crate) fn assert_absent(secrets: &[impl AsRef<str>], place: &str, bytes: &[u8]) {
    for secret in secrets.iter().map(AsRef::as_ref) {
        for (form, sought) in forms(secret) {
            assert!(!holds(bytes, &sought), "{place} holds {secret:?} {form}");
        }
    }
}

/// Whether `bytes` hold a secret in any form.
pub(crate) fn is_in(secret: &str, bytes: &[u8]) -> bool {
    forms(secret).iter().any(|(_, sought)| holds(bytes, sought))
}

fn holds(bytes: &[u8], sought: &str) -> bool {
    bytes
        .windows(sought.len())
        .any(|window| window == sought.as_bytes())
}

/// A text in clear, as the numbers that a list of bytes is shown as, and in base64 from each of its three offsets, without the first
/// and last characters, which depend on what stands beside it.
fn forms(secret: &str) -> Vec<(String, String)> {
    let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![
        ("in clear".to_owned(), secret.to_owned()),
        ("as a list of bytes".to_owned(), numbers.join(", ")),
    ];
    forms.extend((0..3).map(|before| {
        let text = STANDARD.encode(format!("{}{secret}", "\0".repeat(before)));
        let inner = text.get(4..text.len() - 4).expect("a secret of some length");
        (format!("in base64 behind {before} bytes"), inner.to_owned())
    }));
    forms
}

/// Scenario: texts that hold a secret in base64, behind one to eight other bytes and before some more.
/// Guarantees: the search above would find it.
#[test]
fn base64_is_found_wherever_it_begins() {
    let secret = "card-4929-0071-2218-ferruginous";
    for before in 0..8 {
        let text = STANDARD.encode(format!("{}{secret}\"]]", "[".repeat(before)));
        assert!(is_in(secret, text.as_bytes()), "{before} bytes before: {text}");
    }
    assert!(!is_in(secret, b"card-4929"));
}
