//! ISO 8601 times as Celery writes them (`datetime.isoformat()`).

use crate::time::Wall;

/// Reads `YYYY-MM-DDTHH:MM:SS[.ffffff][Z|±HH:MM]`; a time without offset is taken as UTC, as Celery's `maybe_make_aware`
/// does. `None` for anything else and for years before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<Wall> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0i64, |n, d| {
            d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0'))
        })
    };
    let is = |at: usize, want: &[u8]| bytes.get(at).is_some_and(|b| want.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"T ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let days = days_since_1970(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    let mut rest = bytes.get(19..)?;
    let mut nanos = 0i64;
    if let Some((b'.', after)) = rest.split_first() {
        let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
        let mut unit = 100_000_000;
        for digit in after.iter().take(digits.min(9)) {
            nanos += i64::from(digit - b'0') * unit;
            unit /= 10;
        }
        rest = after.get(digits..)?;
    }
    let offset = match rest {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let two = |a: &u8, b: &u8| {
                (a.is_ascii_digit() && b.is_ascii_digit())
                    .then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
            };
            let minutes = two(h1, h2)? * 60 + two(m1, m2)?;
            if *sign == b'-' {
                -minutes * 60
            } else {
                minutes * 60
            }
        }
        _ => return None,
    };
    let total = (seconds - offset)
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)?;
    u64::try_from(total).ok().map(Wall)
}

/// Days from the civil calendar (proleptic Gregorian).
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March put the leap day last.
    let year = if month <= 2 { year - 1 } else { year };
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the forms that Celery writes, against `date -u -d … +%s`.
    /// Guarantees: offset, fraction and missing zone are read; nonsense is not.
    #[test]
    fn forms() {
        let seconds = |text| parse(text).map(|t| t.0 / 1_000_000_000);
        assert_eq!(
            parse("2026-11-20T15:01:16.512808+00:00"),
            Some(Wall(1_795_186_876_512_808_000))
        );
        assert_eq!(seconds("2026-11-20T16:01:16+01:00"), Some(1_795_186_876));
        assert_eq!(seconds("2026-11-20T15:01:16"), Some(1_795_186_876));
        assert_eq!(seconds("2024-02-29T00:00:00Z"), Some(1_709_164_800));
        assert_eq!(parse("2026-13-20T15:01:16"), None);
        assert_eq!(parse("1969-01-01T00:00:00Z"), None);
        assert_eq!(parse("soon"), None);
    }
}
