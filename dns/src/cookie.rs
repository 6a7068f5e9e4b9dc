//! DNS cookies (RFC 7873), with server cookies as every server of a fleet can check them (RFC 9018): a client that
//! sends one back has shown that its address is its own.
//!
//! ```text
//!  client cookie (8) │ version 1 │ reserved (3) │ time, s (4) │ SipHash-2-4 of all before and the address (8)
//! ```

use std::fmt;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::wire::ClientCookie;

/// The version of RFC 9018.
const VERSION: u8 = 1;
/// Older ones are not accepted, seconds (RFC 9018 section 4.3).
const AGE_MAX_SECONDS: u32 = 3600;
/// Nor those from the future, seconds.
const AHEAD_MAX_SECONDS: u32 = 300;
/// Those older than this are accepted, and renewed, seconds.
const RENEW_SECONDS: u32 = 1800;
/// Secrets at once: one that signs, and those that it follows.
const SECRETS_MAX: usize = 4;

/// The secrets of a fleet: the first signs, all are accepted, so that one can follow another.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<[u8; 16]>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// What a cookie proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The client has its address.
    pub is_valid: bool,
    /// The option to answer with: the client's cookie and ours.
    pub reply: [u8; 24],
}

impl Secrets {
    /// Secrets from a file of one per line, 32 hexadecimal digits each, the signing one first.
    ///
    /// # Errors
    /// The line that is none, and what was expected. The line itself is not repeated: it may be a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let secret =
                u128::from_str_radix(line, 16).ok().filter(|_| line.len() == 32 && !line.starts_with('+'));
            let wrong = || format!("line {}: expected a secret of 32 hexadecimal digits", number + 1);
            secrets.push(secret.ok_or_else(wrong)?.to_be_bytes());
        }
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            return Err(format!(
                "has {} secrets, expected 1 to {SECRETS_MAX}, a line each; `openssl rand -hex 16` makes one",
                secrets.len()
            ));
        }
        Ok(Self(secrets))
    }

    /// One secret.
    pub fn one(secret: [u8; 16]) -> Self {
        Self(vec![secret])
    }

    /// Checks the cookie of a query from `address` at `now`, seconds of Unix time.
    pub fn check(&self, cookie: &ClientCookie, address: IpAddr, now: u32) -> Checked {
        let signed = self.0.iter().position(|secret| is_signed(cookie, address, secret));
        // Serial numbers (RFC 1982): the clock of RFC 9018 goes round in 2106.
        let age = cookie.server.get(4..8).and_then(|time| time.try_into().ok()).map(u32::from_be_bytes);
        let age = age.map_or(i32::MIN, |time| now.wrapping_sub(time).cast_signed());
        let is_in_time = (-AHEAD_MAX_SECONDS.cast_signed()..=AGE_MAX_SECONDS.cast_signed()).contains(&age);
        let is_valid = signed.is_some() && is_in_time;
        let is_fresh = signed == Some(0) && (0..=RENEW_SECONDS.cast_signed()).contains(&age);
        let mut reply = [0; 24];
        reply[..8].copy_from_slice(&cookie.client);
        match <&[u8; 16]>::try_from(cookie.server.as_slice()) {
            Ok(server) if is_valid && is_fresh => reply[8..].copy_from_slice(server),
            _ => {
                reply[8] = VERSION;
                reply[12..16].copy_from_slice(&now.to_be_bytes());
                let hash = hash(&reply[..16], address, &self.0[0]);
                reply[16..].copy_from_slice(&hash);
            }
        }
        Checked { is_valid, reply }
    }
}

fn is_signed(cookie: &ClientCookie, address: IpAddr, secret: &[u8; 16]) -> bool {
    let Ok(server) = <&[u8; 16]>::try_from(cookie.server.as_slice()) else { return false };
    let signed = [&cookie.client[..], &server[..8]].concat();
    let expected = hash(&signed, address, secret);
    // In the same time wherever they differ.
    let differ = expected.iter().zip(&server[8..]).fold(0, |differ, (a, b)| differ | (a ^ b));
    server[0] == VERSION && differ == 0
}

fn hash(signed: &[u8], address: IpAddr, secret: &[u8; 16]) -> [u8; 8] {
    let mut bytes = signed.to_vec();
    match address {
        IpAddr::V4(v4) => bytes.extend(v4.octets()),
        IpAddr::V6(v6) => bytes.extend(v6.octets()),
    }
    SipHasher24::new_with_key(secret).hash(&bytes).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn cookie(text: &str) -> ClientCookie {
        let bytes = hex(text);
        ClientCookie { client: bytes[..8].try_into().unwrap(), server: bytes[8..].to_vec() }
    }

    /// RFC 9018 appendix A.
    #[test]
    fn vectors() {
        let secrets = Secrets::parse("e5e973e5a6b2a43f48e7dc849e37bfcf\n").unwrap();
        let address = "198.51.100.100".parse().unwrap();
        let learned = secrets.check(&cookie("2464c4abcf10c957"), address, 1_559_731_985);
        assert!(!learned.is_valid);
        assert_eq!(learned.reply.to_vec(), hex("2464c4abcf10c957010000005cf79f111f8130c3eee29480"));
        let back = cookie("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
        let renewed = secrets.check(&back, address, 1_559_734_385);
        assert!(renewed.is_valid, "40 minutes later");
        assert_eq!(renewed.reply.to_vec(), hex("2464c4abcf10c957010000005cf7a871d4a564a1442aca77"));
        // The reserved bytes are signed too, and renewed as 0. (The example is 1 h 52 min old, over the limit of the text.)
        let address = "203.0.113.203".parse().unwrap();
        let asked = cookie("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5");
        assert!(is_signed(&asked, address, &secrets.0[0]));
        let renewed = secrets.check(&asked, address, 1_559_734_700);
        assert_eq!(renewed.reply.to_vec(), hex("fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"));
    }

    /// RFC 9018 appendix A.4: IPv6, signed by the secret before.
    #[test]
    fn one_secret_follows_another() {
        let both = "445536bcd2513298075a5d379663c962\ndd3bdf9344b678b185a6f5cb60fca715\n";
        let secrets = Secrets::parse(both).unwrap();
        let address = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let asked = cookie("22681ab97d52c298010000005cf7c57926556bd0934c72f8");
        let renewed = secrets.check(&asked, address, 1_559_741_961);
        assert!(renewed.is_valid);
        assert_eq!(renewed.reply.to_vec(), hex("22681ab97d52c298010000005cf7c609a6bb79d16625507a"));
    }

    #[test]
    fn what_is_no_proof() {
        let secrets = Secrets::one([7; 16]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let given = secrets.check(&cookie("0102030405060708"), address, 1_000_000).reply;
        let back = ClientCookie { client: given[..8].try_into().unwrap(), server: given[8..].to_vec() };
        let at = |now| secrets.check(&back, address, now);
        assert!(at(1_000_000).is_valid && at(1_000_000).reply == given, "the same again");
        assert!(at(1_003_600).is_valid && !at(1_003_601).is_valid, "an hour");
        assert!(at(999_700).is_valid && !at(999_699).is_valid, "five minutes ahead");
        assert_ne!(at(1_001_801).reply, given, "renewed after half an hour");
        assert!(!secrets.check(&back, "192.0.2.2".parse().unwrap(), 1_000_000).is_valid, "another address");
        assert!(!Secrets::one([8; 16]).check(&back, address, 1_000_000).is_valid, "another secret");
        for bit in 0..128 {
            let mut forged = back.clone();
            forged.server[bit / 8] ^= 1 << (bit % 8);
            assert!(!secrets.check(&forged, address, 1_000_000).is_valid, "bit {bit}");
        }
    }

    #[test]
    fn files_of_secrets() {
        assert!(Secrets::parse("# new\n00112233445566778899aabbccddeeff\n\n").is_ok());
        for bad in ["", "0011", "+0112233445566778899aabbccddeeff", "zz112233445566778899aabbccddeeff"] {
            let said = Secrets::parse(bad).unwrap_err();
            assert!(said.contains("hexadecimal") || said.contains("openssl"), "{said}");
            assert!(bad.is_empty() || !said.contains(bad), "a secret in a message");
        }
    }
}
