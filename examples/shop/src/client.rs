//! One request to another part of the shop. A part that is being replaced is waited for: whoever looks at the page then waits a
//! little, and sees no error.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longer than a part takes to be replaced that there is only one of.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(3);
/// The part that is asked may be waiting for another.
const ANSWER: Duration = Duration::from_secs(15);

/// Nothing was said yet: to try again does nothing twice.
fn reach(address: &str) -> Result<TcpStream, String> {
    let begun = Instant::now();
    loop {
        match connect(address) {
            Err(_) if begun.elapsed() < PATIENCE => std::thread::park_timeout(RETRY),
            result => return result,
        }
    }
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let at = address
        .to_socket_addrs()
        .map_err(|e| format!("{address}: {e}"))?
        .next()
        .ok_or_else(|| format!("{address} has no address"))?;
    TcpStream::connect_timeout(&at, CONNECT).map_err(|e| format!("{address}: {e}"))
}

/// `address` is `host:port`; the body of a success, or what went wrong.
pub fn call(method: &str, address: &str, path: &str, password: &str, body: &str) -> Result<String, String> {
    let mut stream = reach(address)?;
    let failed = |e: std::io::Error| format!("{address}: {e}");
    stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {password}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address}: not an HTTP answer"))?;
    match head.split_whitespace().nth(1) {
        Some(code) if code.starts_with('2') => Ok(body.to_owned()),
        Some(code) => Err(format!("{address}: {code} {body}")),
        None => Err(format!("{address}: not an HTTP answer")),
    }
}
