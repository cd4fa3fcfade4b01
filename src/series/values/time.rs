//! Dates and times of headers, in seconds (PS3.5 6.2: DA, TM, DT).

use jiff::civil::Date;

/// Seconds of a day.
pub(super) const DAY_S: f64 = 86_400.0;

/// A DA: seconds from 1970 to its beginning. The separators of ACR-NEMA (`1997.04.24`) are read too.
pub(super) fn date(text: &str) -> Option<f64> {
    let plain = if text.len() == 10 { text.replace('.', "") } else { text.to_owned() };
    let digits = (plain.len() == 8 && plain.bytes().all(|b| b.is_ascii_digit())).then_some(plain)?;
    let date = Date::new(digits[..4].parse().ok()?, digits[4..6].parse().ok()?, digits[6..].parse().ok()?).ok()?;
    Some(date.duration_since(Date::constant(1970, 1, 1)).as_secs_f64())
}

/// A TM of at least hours and minutes: seconds from midnight.
pub(super) fn time(text: &str) -> Option<f64> {
    let plain = text.replace(':', "");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !(whole.len() == 4 || whole.len() == 6) || (fraction.is_some() && whole.len() == 4) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| whole.get(range).map_or(Some(0.0), |t| t.parse::<f64>().ok());
    let fraction_s = match fraction {
        None | Some("") => 0.0,
        Some(f) if digits(f) && f.len() <= 6 => format!("0.{f}").parse().ok()?,
        Some(_) => return None,
    };
    let (hours, minutes, seconds) = (part(0..2)?, part(2..4)?, part(4..6)?);
    (hours < 24.0 && minutes < 60.0 && seconds <= 60.0).then_some(3600.0 * hours + 60.0 * minutes + seconds + fraction_s)
}

/// A DT of at least minutes: seconds from 1970 on the clock that it was read from, and that clock's offset from UTC in seconds, where the
/// text has one.
pub(super) fn date_time(text: &str) -> Option<(f64, Option<f64>)> {
    let sign = text.get(8..)?.find(['+', '-']).map(|n| n + 8);
    let (local, zone) = text.split_at(sign.unwrap_or(text.len()));
    let seconds = date(local.get(..8)?)? + time(local.get(8..)?)?;
    let zone = if zone.is_empty() { None } else { Some(offset(zone)?) };
    Some((seconds, zone))
}

/// An offset from UTC, `+0100`, in seconds.
pub(super) fn offset(text: &str) -> Option<f64> {
    let sign = match text.get(..1)? {
        "+" => 1.0,
        "-" => -1.0,
        _ => return None,
    };
    let digits = text.get(1..).filter(|t| t.len() == 4 && t.bytes().all(|b| b.is_ascii_digit()))?;
    let (hours, minutes) = (digits[..2].parse::<f64>().ok()?, digits[2..].parse::<f64>().ok()?);
    (hours <= 14.0 && minutes < 60.0).then_some(sign * (3600.0 * hours + 60.0 * minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Python: `datetime.datetime(2014, 6, 18, 8, 30, 45, 250000, tzinfo=datetime.UTC).timestamp()`.
    #[test]
    fn moments_are_seconds() {
        assert_eq!(date("20140618"), Some(1_403_049_600.0));
        assert_eq!(date("2014.06.18"), date("20140618"));
        assert_eq!(time("083045.25"), Some(30_645.25));
        assert_eq!((time("0830"), time("08:30:45"), time("083045.")), (Some(30_600.0), Some(30_645.0), Some(30_645.0)));
        assert_eq!(date_time("20140618083045.25"), Some((1_403_080_245.25, None)));
        assert_eq!(date_time("20140618083045-0330"), Some((1_403_080_245.0, Some(-12_600.0))));
        for text in ["", "2014061", "20140631", "2014-06-18", "201406180", "äöüäöü"] {
            assert_eq!(date(text), None, "{text}");
        }
        for text in ["", "08", "083", "2400", "0860", "08304x", "0830.5", "083045.1234567", "*", "-83045"] {
            assert_eq!(time(text), None, "{text}");
        }
        for text in ["", "20140618", "2014061808", "20140618083045+1", "20140618-20150101", "201406180830+9900", "äöüäöüäöüäöü"]
        {
            assert_eq!(date_time(text), None, "{text}");
        }
    }
}
