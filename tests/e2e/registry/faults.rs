//! Stands between a client and a registry, sees every request, and misbehaves where it is told to.
//!
//! One request per connection, both plain HTTP. The client's `Host` is passed on, so that the addresses which the registry
//! names lead back here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request, as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// How many requests of this method for this path came before.
    pub(crate) n_before: usize,
}

impl Seen {
    /// Says whether this reads a blob, or asks for one.
    pub(crate) fn is_blob(&self) -> bool {
        self.path.contains("/blobs/sha256:")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// The registry answers.
    Pass,
    /// This is answered, and the registry never asked.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// The registry's answer breaks off after so many bytes of its body.
    Cut(usize),
    /// The request's body is passed on up to so many bytes, then both connections break off.
    CutUpload(usize),
    /// The registry's answer with its body changed, and its length with it.
    Change(fn(&mut Vec<u8>)),
}

impl Act {
    /// Returns an answer without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header to an answer.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }

    /// Gives an answer a body.
    pub(crate) fn body(mut self, text: impl Into<Vec<u8>>) -> Self {
        if let Self::Answer { body, .. } = &mut self {
            *body = text.into();
        }
        self
    }
}

/// The proxy; its threads end with the process.
pub(crate) struct Faults {
    /// Address and port.
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Decide = dyn Fn(&Seen) -> Act + Send + Sync;

impl Faults {
    /// Stands in front of `upstream` and does with each request what `decide` says.
    pub(crate) fn start(upstream: &str, decide: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (upstream, log, decide) = (upstream.to_owned(), Arc::clone(&seen), Arc::new(decide));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (upstream, log, decide) = (upstream.clone(), Arc::clone(&log), Arc::clone(&decide));
                // A client that goes away is its own business, and what the tests are about.
                std::thread::spawn(move || {
                    client.and_then(|client| serve(&client, &upstream, &log, &*decide))
                });
            }
        });
        Self { host, seen }
    }

    /// Returns all requests so far, and forgets them.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// Returns method and path of all requests so far, and forgets them.
    pub(crate) fn take_lines(&self) -> Vec<String> {
        let line = |seen: Seen| format!("{} {}", seen.method, seen.path);
        self.take().into_iter().map(line).collect()
    }
}

fn serve(client: &TcpStream, upstream: &str, log: &Mutex<Vec<Seen>>, decide: &Decide) -> std::io::Result<()> {
    let mut input = BufReader::new(client);
    let head = read_head(&mut input)?;
    let Some(seen) = record(&head, log) else {
        return Ok(());
    };
    let act = decide(&seen);
    if let Act::Answer {
        status,
        headers,
        body,
    } = &act
    {
        drain(&mut input, &seen)?;
        let mut answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n",
            body.len()
        );
        for (name, value) in headers {
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
        answer.push_str("\r\n");
        let mut client = client;
        client.write_all(answer.as_bytes())?;
        // `HEAD` has no body, whatever its headers say.
        return if seen.method == "HEAD" {
            Ok(())
        } else {
            client.write_all(body)
        };
    }
    let mut server = TcpStream::connect(upstream)?;
    for line in head
        .iter()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
    {
        write!(server, "{line}\r\n")?;
    }
    write!(server, "Connection: close\r\n\r\n")?;
    let limit = match act {
        Act::CutUpload(n_bytes) => n_bytes,
        _ => usize::MAX,
    };
    if !pass_on(&mut input, &mut server, &seen, limit)? {
        server.shutdown(std::net::Shutdown::Both)?;
        return client.shutdown(std::net::Shutdown::Both);
    }
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    reply(client, answer, &act)
}

/// Reads request line and headers, without the empty line.
fn read_head(input: &mut impl BufRead) -> std::io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Ok(head);
        }
        head.push(line);
    }
}

fn record(head: &[String], log: &Mutex<Vec<Seen>>) -> Option<Seen> {
    let mut words = head.first()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = head[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut log = log.lock().unwrap();
    let n_before = log
        .iter()
        .filter(|other| other.method == method && other.path == path)
        .count();
    let seen = Seen {
        method,
        path,
        headers,
        n_before,
    };
    log.push(seen.clone());
    Some(seen)
}

/// Passes a request's body on; false when it was cut at `limit` bytes.
fn pass_on(
    input: &mut impl BufRead,
    output: &mut impl Write,
    seen: &Seen,
    limit: usize,
) -> std::io::Result<bool> {
    let mut n_left = limit;
    if seen
        .headers
        .get("transfer-encoding")
        .is_some_and(|value| value == "chunked")
    {
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            input.read_exact(&mut chunk)?;
            if size > n_left {
                return Ok(false);
            }
            n_left -= size;
            output.write_all(line.as_bytes())?;
            output.write_all(&chunk)?;
            if size == 0 {
                return Ok(true);
            }
        }
    }
    let length: usize = seen
        .headers
        .get("content-length")
        .map_or(0, |value| value.parse().unwrap());
    let n_bytes = std::io::copy(&mut input.take(length.min(n_left) as u64), output)?;
    Ok(n_bytes == length as u64)
}

fn drain(input: &mut impl BufRead, seen: &Seen) -> std::io::Result<()> {
    pass_on(input, &mut std::io::sink(), seen, usize::MAX).map(|_| ())
}

/// Sends the registry's answer on, as `act` says.
fn reply(mut client: &TcpStream, mut answer: Vec<u8>, act: &Act) -> std::io::Result<()> {
    let head_end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(answer.len(), |at| at + 4);
    match act {
        Act::Cut(n_bytes) => answer.truncate(head_end + n_bytes),
        Act::Change(change) => {
            let mut body = answer.split_off(head_end);
            change(&mut body);
            let head = String::from_utf8_lossy(&answer).into_owned();
            let kept = head
                .lines()
                .filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("content-length:"));
            let mut head: String = kept.map(|line| format!("{line}\r\n")).collect();
            head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
            answer = head.into_bytes();
            answer.extend(body);
        }
        _ => {}
    }
    client.write_all(&answer)?;
    client.shutdown(std::net::Shutdown::Write)
}

#[test]
fn uploads_and_answers_are_cut_where_they_shall_be() {
    // The server behind: answers with what it was sent.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut input = BufReader::new(&stream);
            let _ = read_head(&mut input);
            let mut body = Vec::new();
            let _ = (&mut input).take(6).read_to_end(&mut body);
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
            let _ = (&stream).write_all(&body);
        }
    });
    let send = |act: Act| {
        let faults = Faults::start(&upstream, move |_| act.clone());
        let mut client = TcpStream::connect(&faults.host).unwrap();
        client
            .write_all(b"PUT /x HTTP/1.1\r\nContent-Length: 6\r\n\r\nabcdef")
            .unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        assert_eq!(faults.take_lines(), ["PUT /x"]);
        answer
    };
    assert!(send(Act::Pass).ends_with("\r\n\r\nabcdef"));
    assert!(send(Act::Cut(2)).ends_with("\r\n\r\nab"));
    assert_eq!(send(Act::CutUpload(3)), "");
    assert!(send(Act::Change(|body| body.push(b'!'))).ends_with("Content-Length: 7\r\n\r\nabcdef!"));
    assert!(send(Act::status(429).header("A", "b")).starts_with("HTTP/1.1 429"));
}
