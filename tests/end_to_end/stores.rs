//! What a test asks of stores: as an application does, over HTTP.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::fleet::{Fleet, STORE_TOKEN, wait};

/// A connection to the store of one datacenter, kept open.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects to a store, wherever this thread is.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// One request: the status and the body of its answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: store\r\nauthorization: Bearer {STORE_TOKEN}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (mut status, mut length, mut line) = (None, 0, String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(number) = text.strip_prefix("content-length: ") {
                length = number.parse().map_err(io::Error::other)?;
            }
            if status.is_none() {
                status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, body))
    }
}

impl Fleet {
    /// Where a datacenter's store is.
    pub(crate) fn store(&self, name: &str) -> SocketAddr {
        (self.address(name), 7420).into()
    }

    /// One request to a store on a connection of its own.
    pub(crate) fn ask_store(
        &self,
        name: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        self.inside(name, || {
            Client::connect(self.store(name)).and_then(|mut client| client.ask(method, path, body)).ok()
        })
    }

    /// Writes a key, which must succeed.
    pub(crate) fn put(&self, name: &str, path: &str, value: &str) -> Value {
        let found = self.ask_store(name, "PUT", &format!("/v1/kv/{path}"), value.as_bytes());
        let (status, body) = found.expect("an answer");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// What a store has under a key.
    pub(crate) fn get(&self, name: &str, path: &str) -> Option<String> {
        let (status, body) = self.ask_store(name, "GET", &format!("/v1/kv/{path}"), b"")?;
        (status == 200).then(|| String::from_utf8(body).unwrap())
    }

    /// Waits until a store has this under a key.
    pub(crate) fn until_it_has(&self, name: &str, path: &str, value: &str) {
        wait(&format!("{name} to have {path}"), || (self.get(name, path)? == value).then_some(()));
    }

    /// How a store is.
    pub(crate) fn store_status(&self, name: &str) -> Option<Value> {
        let (status, body) = self.ask_store(name, "GET", "/v1/store", b"")?;
        (status == 200).then(|| serde_json::from_slice(&body).unwrap())
    }

    /// Waits until a store takes writes.
    pub(crate) fn until_store_open(&self, name: &str) {
        wait(&format!("the store of {name} to open"), || {
            self.store_status(name)?["is_open"].as_bool()?.then_some(())
        });
    }

    /// What a store says of its lag to another datacenter.
    pub(crate) fn lag(&self, name: &str, of: &str) -> Option<Value> {
        let status = self.store_status(name)?;
        status["lags"].as_array()?.iter().find(|lag| lag["datacenter"] == of).cloned()
    }
}
