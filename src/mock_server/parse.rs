//! Reading what clients send: one JSON object, not nested without end, and no secrets in what is said about it.

use serde::de::DeserializeOwned;

/// Reads an object; the error is for the client.
pub(super) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if depth(bytes) > GREATEST_DEPTH {
        return Err("exceeded max depth".to_owned());
    }
    // A list of all fields in order would be taken for the object.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err("json: cannot unmarshal array into an object".to_owned());
    }
    match bytes.trim_ascii() {
        b"" => return Err("EOF".to_owned()),
        b"null" => return serde_json::from_slice(b"{}").map_err(|error| describe(&error)),
        [first, ..] if !b"{\"-tfn".contains(first) && !first.is_ascii_digit() && first.is_ascii_graphic() => {
            return Err(format!("invalid character '{}' looking for beginning of value", char::from(*first)));
        }
        _ => {}
    }
    serde_json::from_slice(bytes).map_err(|error| describe(&error))
}

/// A decoding error without the values it met, which may be secret.
pub(super) fn describe(error: &serde_json::Error) -> String {
    if error.is_data() {
        // Such a message may quote the value.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        return text.split_once(": string \"").map_or(text.to_owned(), |(start, _)| format!("{start}: string"));
    }
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    error.to_string()
}

/// How deep objects and lists are nested; fields that nobody reads count too.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut greatest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in bytes {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true | false, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => {
                now += 1;
                greatest = greatest.max(now);
            }
            (false, b'}' | b']') => now = now.saturating_sub(1),
            (true | false, _) => {}
        }
    }
    greatest
}

/// No document comes near this.
const GREATEST_DEPTH: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nesting_outside_of_texts_counts() {
        assert_eq!(depth(br#"{"a": [1, {"b": "[[[\"[["}], "c": {}}"#), 3);
        assert_eq!(depth(b"]]}}[[]"), 2);
        assert_eq!(depth(b""), 0);
    }
}
