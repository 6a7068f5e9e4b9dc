//! Who may ask the admin listener: who can read the token's file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Json, Response};

/// Bytes of randomness of a token that we make.
const TOKEN_BYTES: usize = 24;
/// A shorter one can be guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;

/// The token in a file; made, for its owner alone to read, if there is no such file.
pub(crate) fn read_or_make(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => checked(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = make()?;
            let making = || format!("making the admin token {}", path.display());
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(making)?;
            }
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            opened.and_then(|mut file| writeln!(file, "{token}")).with_context(making)?;
            Ok(token)
        }
        Err(error) => Err(error).with_context(|| format!("reading the admin token {}", path.display())),
    }
}

/// The token in a file that must be there.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("reading the admin token {}", path.display()))?;
    checked(path, &text)
}

fn checked(path: &Path, text: &str) -> anyhow::Result<String> {
    let token = text.trim();
    if token.len() < TOKEN_CHARACTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(anyhow!(
            "{}: an admin token is one word of at least {TOKEN_CHARACTERS_MIN} letters, digits and signs; without the file \
             the next start makes one",
            path.display()
        ));
    }
    Ok(token.to_owned())
}

/// A new token.
pub(crate) fn make() -> anyhow::Result<String> {
    let mut random = [0; TOKEN_BYTES];
    let source = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut random).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Lets through who shows the token, and who only asks for metrics, which hold no secret.
pub(super) async fn check(
    State(token): State<std::sync::Arc<str>>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if request.uri().path() == "/metrics" || shown.is_some_and(|shown| is_same(shown, token.as_bytes())) {
        return next.run(request).await;
    }
    let error = "the admin token is missing or wrong: `Authorization: Bearer TOKEN`; the command line takes \
                 --token-file, and the process made its token in its data directory, admin.token";
    (StatusCode::UNAUTHORIZED, Json(serde_json::json!({ "error": error }))).into_response()
}

/// Compares in a time that does not tell how much is right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_a_weak_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("admin.token");
        assert!(read(&path).is_err());
        let made = read_or_make(&path).unwrap();
        assert_eq!((made.len(), read_or_make(&path).unwrap()), (48, made.clone()));
        assert_eq!(read(&path).unwrap(), made);
        fs::write(&path, "short\n").unwrap();
        assert!(read_or_make(&path).unwrap_err().to_string().contains("at least 16"));
        assert!(is_same(b"abc", b"abc") && !is_same(b"abc", b"abd") && !is_same(b"abc", b"ab"));
    }
}
