//! Doubles in the server's notation, as JSON and WKT have them. Knows nothing of either.

/// Appends the shortest digits that read back the same; fixed notation for numbers from 10⁻¹⁵ up to 10¹⁵, and
/// above that as long as there are digits behind the point. A number that is whole ends in `whole_end`: `.0` where it must
/// be told from an integer. None, and nothing is written, where it is not finite.
pub(super) fn write_double(number: f64, whole_end: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !number.is_finite() {
        return None;
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, length, point) = split_digits(buffer.format_finite(number.abs()))?;
    let digits = digits.get(..length)?;
    if number.is_sign_negative() {
        out.push(b'-');
    }
    if digits.is_empty() {
        out.push(b'0');
        out.extend_from_slice(whole_end);
        return Some(());
    }
    match point {
        -14..=0 => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + point.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        }
        _ if (1..=15).contains(&point) || (point > 0 && digits.len() > point as usize) => {
            let point = point as usize;
            match digits.split_at_checked(point) {
                Some((whole, fraction)) if !fraction.is_empty() => {
                    out.extend_from_slice(whole);
                    out.push(b'.');
                    out.extend_from_slice(fraction);
                }
                _ => {
                    out.extend_from_slice(digits);
                    out.resize(out.len() + point - digits.len(), b'0');
                    out.extend_from_slice(whole_end);
                }
            }
        }
        _ => {
            out.push(digits[0]);
            if digits.len() > 1 {
                out.push(b'.');
                out.extend_from_slice(&digits[1..]);
            }
            out.push(b'e');
            out.extend_from_slice(itoa::Buffer::new().format(point - 1).as_bytes());
        }
    }
    Some(())
}

/// Digits without zeros at either end, how many they are, and where the point stands: the number is
/// 0.DIGITS × 10^point.
fn split_digits(text: &str) -> Option<([u8; 32], usize, i32)> {
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
        None => (text, 0_i32),
    };
    let (mut digits, mut length, mut point) = ([0; 32], 0, exponent);
    let mut behind_point = false;
    for byte in mantissa.bytes() {
        if byte == b'.' {
            behind_point = true;
            continue;
        }
        if length == 0 && byte == b'0' {
            point -= i32::from(behind_point);
            continue;
        }
        *digits.get_mut(length)? = byte;
        length += 1;
        point += i32::from(!behind_point);
    }
    while length > 0 && digits[length - 1] == b'0' {
        length -= 1;
    }
    Some((digits, length, point))
}
