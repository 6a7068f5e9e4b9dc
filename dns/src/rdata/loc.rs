//! LOC (RFC 1876): where something is, to the thousandth of an arc second.

use super::shown;

/// The equator and the meridian, the bottom of the sea of numbers (section 2).
const MIDDLE: i64 = 1 << 31;
/// Centimetres below the spheroid at which altitudes begin.
const BASE_CENTIMETRES: i64 = 10_000_000;
/// The largest size or precision.
const SIZE_CENTIMETRES_MAX: u64 = 9_000_000_000;
/// Size, horizontal and vertical precision when not given: 1 m, 10 km, 10 m.
const DEFAULTS: [u8; 3] = [0x12, 0x16, 0x13];

/// `d1 [m1 [s1]] N|S d2 [m2 [s2]] E|W alt[m] [size[m] [horizontal[m] [vertical[m]]]]` (section 3).
pub(super) fn read(tokens: &[&str]) -> Result<Vec<u8>, String> {
    let mut tokens = tokens.iter().copied().peekable();
    let latitude = angle(&mut tokens, 90, ["N", "S"])?;
    let longitude = angle(&mut tokens, 180, ["E", "W"])?;
    let altitude =
        centimetres(tokens.next().ok_or("expected an altitude, found the end")?)? + BASE_CENTIMETRES;
    let altitude = u32::try_from(altitude).map_err(|_| "the altitude is out of range".to_owned())?;
    let mut sizes = DEFAULTS;
    for size in &mut sizes {
        let Some(token) = tokens.next() else { break };
        *size = power(centimetres(token)?).ok_or_else(|| format!("`{}` is out of range", shown(token)))?;
    }
    if let Some(more) = tokens.next() {
        return Err(format!("`{}` is more than was expected", shown(more)));
    }
    let mut bytes = vec![0];
    bytes.extend(sizes);
    for number in [latitude, longitude, altitude] {
        bytes.extend(number.to_be_bytes());
    }
    Ok(bytes)
}

fn angle<'a>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    degrees_max: i64,
    [positive, negative]: [&str; 2],
) -> Result<u32, String> {
    let expected = || format!("expected degrees, minutes, seconds and {positive} or {negative}");
    let mut thousandths = 0;
    for unit in [3_600_000, 60_000, 1000] {
        let token = tokens.next().ok_or_else(expected)?;
        if token.eq_ignore_ascii_case(positive) || token.eq_ignore_ascii_case(negative) {
            if unit == 3_600_000 {
                return Err(expected());
            }
            return placed(thousandths, token.eq_ignore_ascii_case(negative), degrees_max);
        }
        let most = if unit == 3_600_000 { degrees_max } else { 59 };
        let (whole, fraction) = decimal(token, if unit == 1000 { 3 } else { 0 }).ok_or_else(expected)?;
        if whole > most {
            return Err(format!("`{}` is more than {most}", shown(token)));
        }
        thousandths += whole * unit + fraction;
    }
    let token = tokens.next().ok_or_else(expected)?;
    let is_negative = token.eq_ignore_ascii_case(negative);
    if !is_negative && !token.eq_ignore_ascii_case(positive) {
        return Err(expected());
    }
    placed(thousandths, is_negative, degrees_max)
}

fn placed(thousandths: i64, is_negative: bool, degrees_max: i64) -> Result<u32, String> {
    if thousandths > degrees_max * 3_600_000 {
        return Err(format!("more than {degrees_max} degrees"));
    }
    let at = MIDDLE + if is_negative { -thousandths } else { thousandths };
    u32::try_from(at).map_err(|_| "out of range".to_owned())
}

/// A number without a sign, and its fraction in units of 10^-`digits`.
fn decimal(text: &str, digits: usize) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 12
        || !is_number(whole)
        || !is_number(fraction)
        || fraction.len() > digits
    {
        return None;
    }
    let padded = format!("{fraction:0<digits$}");
    Some((whole.parse().ok()?, if digits == 0 { 0 } else { padded.parse().ok()? }))
}

/// Metres with at most two decimals, with or without `m`, as centimetres.
fn centimetres(token: &str) -> Result<i64, String> {
    let wrong = || format!("expected metres such as 12.5m, found `{}`", shown(token));
    let text = token.strip_suffix(['m', 'M']).unwrap_or(token);
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, fraction) = decimal(text, 2).ok_or_else(wrong)?;
    Ok(sign * (whole * 100 + fraction))
}

/// Centimetres as a digit and a power of ten, four bits each (section 2); what is between is cut.
fn power(centimetres: i64) -> Option<u8> {
    let mut digit = u64::try_from(centimetres).ok().filter(|size| *size <= SIZE_CENTIMETRES_MAX)?;
    let mut exponent = 0;
    while digit > 9 {
        digit /= 10;
        exponent += 1;
    }
    (exponent <= 9).then_some((digit as u8) << 4 | exponent)
}
