//! Which paths may be included. What they lead to is for the config to say.

/// Longer paths are refused by many servers.
const PATH_BYTES_MAX: usize = 2048;

/// Why a path cannot be included.
pub(super) fn problem(path: &[u8]) -> Option<&'static str> {
    let resource = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let Ok(decoded) = decode(resource) else { return Some("a path with a bad % in it") };
    let mut segments = decoded.split(|byte| *byte == b'/');
    match path {
        [b'/', b'/', ..] => Some("a path that begins with //, which would be a host"),
        [b'/', ..] if path.len() > PATH_BYTES_MAX => Some("a path that is too long"),
        [b'/', ..] if path.contains(&b'\\') || decoded.contains(&b'\\') => Some("a path with a backslash"),
        [b'/', ..] if !path.iter().all(u8::is_ascii_graphic) || path.contains(&b'#') => {
            Some("a path with a character that has to be written with %")
        }
        [b'/', ..] if decoded.iter().any(u8::is_ascii_control) => Some("a path with a control character"),
        [b'/', ..] if segments.any(|segment| segment == b".." || segment == b".") => {
            Some("a path with . or .. in it")
        }
        [b'/', ..] => None,
        _ => Some("a path that does not begin with /"),
    }
}

/// Decoded once, as the server will.
fn decode(path: &[u8]) -> Result<Vec<u8>, ()> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, others @ ..] = rest else { return Err(()) };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(()) };
        decoded.push(high << 4 | low);
        rest = others;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn what_may_be_included() {
        for good in ["/", "/a", "/a/b.html?c=d&e=../f", "/%C3%BC/a%20b", "/a/..b/.c", "/~a;b=c:d@e"] {
            assert_eq!(problem(good.as_bytes()), None, "{good}");
        }
        let bad = [
            ("", "begin"),
            ("a", "begin"),
            ("http://a/b", "begin"),
            ("?a", "begin"),
            ("//host/a", "host"),
            ("/a/../b", ".."),
            ("/..", ".."),
            ("/a/./b", ".."),
            ("/a/%2e%2E/b", ".."),
            ("/a%2f..%2Fb", ".."),
            ("/a\\..\\b", "backslash"),
            ("/a%5cb", "backslash"),
            ("/a?b\\c", "backslash"),
            ("/a\0b", "%"),
            ("/a%00", "control"),
            ("/a%0d%0ab", "control"),
            ("/a b", "%"),
            ("/a\r\nHost: b", "%"),
            ("/ü", "%"),
            ("/a#b", "%"),
            ("/a%", "bad %"),
            ("/a%2", "bad %"),
            ("/a%zz", "bad %"),
        ];
        for (path, word) in bad {
            let found = problem(path.as_bytes());
            assert!(found.is_some_and(|what| what.contains(word)), "{path}: {found:?}");
        }
        assert!(problem(&[b"/".as_slice(), &[b'a'; 2048]].concat()).is_some());
        assert!(problem(&[b"/".as_slice(), &[b'a'; 2047]].concat()).is_none());
    }
}
