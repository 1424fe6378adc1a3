//! A small HTTP/1.1 server: a thread a connection, keep-alive, bodies by Content-Length. When the process is told to
//! end, readiness fails, open requests are answered, and connections are closed with their answer, never under it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::signals;

const BODY_LIMIT: usize = 1 << 20;
const HEAD_LIMIT: u64 = 16 << 10;
/// An idle connection is closed after this; a look at the signals happens as often as the tick.
const IDLE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(100);
/// After the signal, requests may still come for this long: whoever routes them has to hear of it first.
const DRAIN: Duration = Duration::from_secs(3);

#[derive(Debug, Default, PartialEq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub content_type: &'static str,
    pub location: Option<String>,
    pub body: String,
}

impl Answer {
    pub fn new(code: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { code, content_type, location: None, body: body.into() }
    }

    pub fn text(code: u16, body: impl Into<String>) -> Self {
        Self::new(code, "text/plain; charset=utf-8", body)
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::new(200, "application/json", value.to_string())
    }

    pub fn see(place: &str) -> Self {
        Self { location: Some(place.to_owned()), ..Self::text(303, "") }
    }
}

pub type Handler = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// Serves until told to end; `ready` is what `/readyz` asks.
pub fn serve(
    part: &'static str,
    port: u16,
    ready: fn() -> Result<(), String>,
    handler: Handler,
) -> Result<(), String> {
    signals::listen();
    let listener =
        TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("cannot listen on port {port}: {e}"))?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    println!("{}", serde_json::json!({"level": "info", "part": part, "message": "serving", "port": port}));
    let open = Arc::new(AtomicUsize::new(0));
    let mut told: Option<Instant> = None;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let (handler, open) = (Arc::clone(&handler), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    if let Err(error) = connection(&stream, ready, &handler) {
                        println!(
                            "{}",
                            serde_json::json!({"level": "debug", "part": part, "message": error.to_string()})
                        );
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::park_timeout(Duration::from_millis(2))
            }
            Err(error) => return Err(format!("cannot accept connections: {error}")),
        }
        if signals::ending() && told.is_none() {
            println!("{}", serde_json::json!({"level": "info", "part": part, "message": "draining"}));
            told = Some(Instant::now());
        }
        if told.is_some_and(|since| {
            since.elapsed() > DRAIN && open.load(Ordering::SeqCst) == 0 || since.elapsed() > 3 * DRAIN
        }) {
            return Ok(());
        }
    }
}

fn connection(
    stream: &TcpStream,
    ready: fn() -> Result<(), String>,
    handler: &Handler,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut answered = false;
    loop {
        if !wait_for_request(stream, &mut reader, answered)? {
            return Ok(());
        }
        let Some(request) = read(&mut reader)? else { return Ok(()) };
        let answer = match request.path.as_str() {
            "/healthz" => Answer::text(200, "ok"),
            "/readyz" if signals::ending() => Answer::text(503, "ending"),
            "/readyz" => ready().map_or_else(|error| Answer::text(503, error), |()| Answer::text(200, "ok")),
            _ => handler(&request),
        };
        let close = signals::ending()
            || request.headers.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        write(&mut &*stream, &answer, close)?;
        answered = true;
        if close {
            return Ok(());
        }
    }
}

/// Whether a request comes before the connection has been idle for too long or the process is to end. Whoever has just
/// connected is waited for also then: their request may be on its way.
fn wait_for_request(
    stream: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    answered: bool,
) -> std::io::Result<bool> {
    let since = Instant::now();
    stream.set_read_timeout(Some(TICK))?;
    loop {
        match reader.fill_buf() {
            Ok([]) => return Ok(false),
            Ok(_) => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if answered && signals::ending() || since.elapsed() > IDLE {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
    stream.set_read_timeout(Some(IDLE))?;
    Ok(true)
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let invalid = |what: &str| std::io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut head = reader.take(HEAD_LIMIT);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (Some(method), Some(path)) = (parts.next(), parts.next()) else {
        return Err(invalid("not an HTTP request"));
    };
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Default::default() };
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(invalid("the request's head does not end"));
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                drop(request.headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            }
            None => break,
        }
    }
    let length: usize = request.headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    if length > BODY_LIMIT {
        return Err(invalid("the request's body is too large"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(request))
}

fn write(stream: &mut impl Write, answer: &Answer, close: bool) -> std::io::Result<()> {
    let reason = match answer.code {
        200 => "OK",
        303 => "See Other",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    let location = answer.location.as_ref().map(|l| format!("Location: {l}\r\n")).unwrap_or_default();
    let connection = if close { "close" } else { "keep-alive" };
    // In one piece: a head without its body would wait for the peer's acknowledgement.
    let text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{location}Connection: {connection}\r\n\r\n{}",
        answer.code,
        answer.content_type,
        answer.body.len(),
        answer.body
    );
    stream.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_after_another() {
        let text =
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nConnection: close\r\n\r\n";
        let mut reader = BufReader::new(text.as_bytes());
        let first = read(&mut reader).expect("reads").expect("a request");
        assert_eq!((first.method.as_str(), first.path.as_str(), first.body.as_str()), ("POST", "/a", "abc"));
        let second = read(&mut reader).expect("reads").expect("a request");
        assert_eq!((second.path.as_str(), second.headers["connection"].as_str()), ("/b", "close"));
        assert_eq!(read(&mut reader).expect("reads"), None);
        assert!(read(&mut BufReader::new("nonsense\r\n\r\n".as_bytes())).is_err());
    }
}
