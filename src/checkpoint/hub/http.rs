//! As much of HTTP/1.1 as fetching files takes: GET and HEAD over TCP or TLS, redirects, one request for each connection.
//!
//! A client of our own of this size costs less than the usual crates, whose features rebuild half of what we depend on. It knows no proxies.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of status line and headers.
const MOST_HEADERS: u64 = 64 << 10;
/// Redirects in a row.
const MOST_REDIRECTS: usize = 5;

/// An answer; its body is read from it.
pub(super) struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    /// Ends with this many bytes, or with the connection.
    Plain { stream: BufReader<Box<dyn Stream>>, left: Option<u64> },
    /// Pieces, each with its length before it.
    Chunked { stream: BufReader<Box<dyn Stream>>, left: u64, over: bool },
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

#[derive(Debug, PartialEq)]
struct Address<'a> {
    secure: bool,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl Answer {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Read for Answer {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        match &mut self.body {
            Body::Plain { stream, left: None } => stream.read(out),
            Body::Plain { stream, left: Some(left) } => {
                let most = out.len().min((*left).try_into().unwrap_or(usize::MAX));
                let count = stream.read(&mut out[..most])?;
                *left -= count as u64;
                Ok(count)
            }
            Body::Chunked { over: true, .. } => Ok(0),
            Body::Chunked { stream, left, over } => {
                if *left == 0 {
                    *left = chunk(stream)?;
                    if *left == 0 {
                        *over = true;
                        return Ok(0);
                    }
                }
                let most = out.len().min((*left).try_into().unwrap_or(usize::MAX));
                let count = stream.read(&mut out[..most])?;
                *left -= count as u64;
                if *left == 0 {
                    line(stream, 16)?;
                }
                Ok(count)
            }
        }
    }
}

/// Sends one request and follows redirects. Only the first server gets `secret` headers.
pub(super) fn send(method: &str, url: &str, headers: &[(&str, String)], secret: &[(&str, String)], redirects: bool) -> Result<Answer> {
    let mut url = url.to_string();
    let first = parse(&url).map(|a| (a.secure, a.host.to_string(), a.port)).ok_or_else(|| bad(format!("not a web address: {url}")))?;
    for _ in 0..=MOST_REDIRECTS {
        let address = parse(&url).ok_or_else(|| bad(format!("not a web address: {url}")))?;
        let same = (address.secure, address.host, address.port) == (first.0, first.1.as_str(), first.2);
        if first.0 && !address.secure {
            return Err(bad("a redirect from a secure to an open connection"));
        }
        let answer = once(method, &address, headers, if same { secret } else { &[] })?;
        let target = match answer.status {
            301 | 302 | 303 | 307 | 308 if redirects => answer.header("location").map(str::to_string),
            _ => None,
        };
        let Some(target) = target else { return Ok(answer) };
        url = if target.contains("://") {
            target
        } else {
            let scheme = if address.secure { "https" } else { "http" };
            format!("{scheme}://{}:{}/{}", address.host, address.port, target.trim_start_matches('/'))
        };
    }
    Err(bad("too many redirects"))
}

fn bad(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

fn parse(url: &str) -> Option<Address<'_>> {
    let (secure, rest) = match url.split_once("://")? {
        ("https", rest) => (true, rest),
        ("http", rest) => (false, rest),
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, if secure { 443 } else { 80 }),
    };
    let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    (!host.is_empty() && !host.contains('@') && clean(host) && clean(path)).then_some(Address { secure, host, port, path })
}

fn once(method: &str, address: &Address<'_>, headers: &[(&str, String)], secret: &[(&str, String)]) -> Result<Answer> {
    let mut stream = connect(address)?;
    let path = if address.path.is_empty() { "/" } else { address.path };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n", address.host, address.port);
    for (name, value) in headers.iter().chain(secret) {
        if value.bytes().any(|b| b < b' ') {
            return Err(bad(format!("a line break in the header {name}")));
        }
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let mut left = MOST_HEADERS;
    let mut next = |stream: &mut BufReader<Box<dyn Stream>>| {
        let text = line(stream, left)?;
        left -= text.len() as u64;
        Ok::<_, Error>(text)
    };
    let status = next(&mut stream)?;
    let status = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()).ok_or_else(|| bad("not an HTTP answer"))?;
    let mut headers = Vec::new();
    loop {
        let text = next(&mut stream)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or_else(|| bad("a damaged header"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        Body::Chunked { stream, left: 0, over: false }
    } else {
        Body::Plain { stream, left: header("content-length").and_then(|v| v.parse().ok()) }
    };
    Ok(Answer { status, headers, body })
}

fn connect(address: &Address<'_>) -> Result<Box<dyn Stream>> {
    let mut last = Error::new(ErrorKind::NotFound, format!("{}: no such server", address.host));
    for place in (address.host.trim_matches(['[', ']']), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, PATIENCE / 2) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return if address.secure { encrypted(stream, address.host) } else { Ok(Box::new(stream)) };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn encrypted(stream: TcpStream, host: &str) -> Result<Box<dyn Stream>> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).map_err(Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(Error::other)?;
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

/// A line without its end.
fn line(stream: &mut BufReader<Box<dyn Stream>>, most: u64) -> Result<String> {
    let mut text = String::new();
    stream.by_ref().take(most).read_line(&mut text)?;
    if !text.ends_with('\n') {
        return Err(Error::new(ErrorKind::UnexpectedEof, "an answer that breaks off or is too long"));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

/// The length of the next piece of a body; 0 at its end.
fn chunk(stream: &mut BufReader<Box<dyn Stream>>) -> Result<u64> {
    let text = line(stream, 1024)?;
    u64::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| bad("a damaged answer in pieces"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let full = Address { secure: true, host: "a.b", port: 443, path: "/x?y" };
        assert_eq!(parse("https://a.b/x?y"), Some(full));
        assert_eq!(parse("http://127.0.0.1:81"), Some(Address { secure: false, host: "127.0.0.1", port: 81, path: "" }));
        for other in ["ftp://a/b", "https:///x", "http://a b/", "http://a/\r\nx", "http://u@h/", "a/b", "http://h:x/"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
