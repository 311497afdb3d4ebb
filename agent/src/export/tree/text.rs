//! Text that may come from anywhere, made fit for a terminal; times as people read them.

use std::fmt::Write;

/// At most `width` characters, without anything a terminal would act on: control characters and those that turn or
/// hide text are written as escapes.
pub(super) fn clean(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let hidden = matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        let shown = if c.is_control() || hidden {
            c.escape_default().to_string()
        } else {
            c.to_string()
        };
        used += shown.chars().count();
        if used > width {
            while out.chars().count() + 1 > width && out.pop().is_some() {}
            if width > 0 {
                out.push('…');
            }
            return out;
        }
        out.push_str(&shown);
    }
    out
}

/// `text`, cleaned and padded to exactly `width` characters.
pub(super) fn cell(text: &str, width: usize) -> String {
    let mut out = clean(text, width);
    let used = out.chars().count();
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
    out
}

/// A length of time in three digits or so: `850 µs`, `12.3 ms`, `1.24 s`, `2 m 05`, `3 h 20`.
pub(super) fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000_000 => return format!("{} µs", nanos / 1_000),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        1_000_000_000..60_000_000_000 => (nanos as f64 / 1e9, "s"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            return match seconds {
                0..3_600 => format!("{} m {:02}", seconds / 60, seconds % 60),
                _ => format!("{} h {:02}", seconds / 3_600, seconds / 60 % 60),
            };
        }
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let mut out = String::new();
    let _ = write!(out, "{value:.decimals$} {unit}");
    out
}

/// Time of day in UTC, `14:03:12.345`.
pub(super) fn time_of_day(wall: u64) -> String {
    let millis = wall / 1_000_000 % 86_400_000;
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    format!(
        "{:02}:{:02}:{:02}.{millis:03}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a task name that clears the screen, one that turns the reading direction, one too long.
    /// Guarantees: nothing a terminal acts on is left; the width holds whatever is in the text.
    #[test]
    fn text_is_harmless_and_fits() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{7}", 80), "a\\u{1b}[2Jb\\n\\u{7}");
        assert_eq!(clean("a\u{202e}b\u{9b}", 80), "a\\u{202e}b\\u{9b}");
        assert_eq!(clean("shop.checkout", 8), "shop.ch…");
        for width in 0..20 {
            for text in ["shop.checkout.pay", "\u{1b}\u{1b}\u{1b}\u{1b}", "ключ", ""] {
                assert!(clean(text, width).chars().count() <= width);
                assert_eq!(cell(text, width).chars().count(), width);
            }
        }
    }

    /// Scenario: lengths of time around each change of unit.
    /// Guarantees: three digits, never more than seven characters for what a task may take.
    #[test]
    fn durations_are_short() {
        for (nanos, text) in [
            (0, "0 µs"),
            (850_900, "850 µs"),
            (1_000_000, "1.00 ms"),
            (12_340_000, "12.3 ms"),
            (999_999_999, "1000 ms"),
            (1_240_000_000, "1.24 s"),
            (59_990_000_000, "60.0 s"),
            (125_000_000_000, "2 m 05"),
            (12_000_000_000_000, "3 h 20"),
        ] {
            assert_eq!(duration(nanos), text);
        }
        assert_eq!(time_of_day(1_795_186_876_512_345_678), "15:01:16.512");
    }
}
