//! A proxy on loopback in front of a server. It counts requests, and responds instead of the server
//! when a test wants a fault.

#![expect(
    clippy::unwrap_used,
    reason = "what the proxy of a test cannot do fails the test"
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The outcome of a request.
#[derive(Clone)]
pub enum Fate {
    /// The server responds.
    Pass,
    /// The server receives this body instead of the original one.
    PassBody(String),
    /// These bytes are the response; then the connection ends.
    Answer(Vec<u8>),
    /// The server's response arrives complete, but with this delay.
    Late(Duration),
    /// The response is cut off: its head announces the whole length, but only half of the body
    /// arrives before the connection ends.
    CutOff,
    /// The response arrives one byte at a time, with pauses.
    Trickle,
    /// There is no response.
    Hang,
    /// The response never ends.
    Endless,
}

impl Fate {
    /// Creates an HTTP response.
    pub fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut head = format!("HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        Self::Answer(format!("{head}Connection: close\r\n\r\n{body}").into_bytes())
    }

    /// Creates the response of a sealed server.
    pub fn sealed() -> Self {
        Self::answer(503, &[], r#"{"errors":["Vault is sealed CANARY"]}"#)
    }
}

/// A request that the proxy received.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query, such as `/v1/secret/data/shop?version=1`.
    pub target: String,
    /// The request line and the headers.
    pub head: String,
    /// The body, as text.
    pub body: String,
}

type Rule = Box<dyn FnMut(&Request) -> Fate + Send>;

/// The proxy. It stops when it is dropped.
pub struct Proxy {
    address: String,
    rule: Arc<Mutex<Rule>>,
    requests: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy for a server at this address (`http://127.0.0.1:28200`). Every request
    /// passes.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| Fate::Pass)));
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (rules, seen) = (Arc::clone(&rule), Arc::clone(&requests));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (rules, seen, upstream) = (Arc::clone(&rules), Arc::clone(&seen), upstream.clone());
                connections.spawn(async move {
                    // Broken connections are intended in these tests.
                    let _ = serve(client, &upstream, &rules, &seen).await;
                });
            }
        });
        Self {
            address,
            rule,
            requests,
            _tasks: tasks,
        }
    }

    /// Returns its address, such as `http://127.0.0.1:40123`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sets the function that decides on further requests.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Fate + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// Sets the outcome of all further requests.
    pub fn all(&self, fate: Fate) {
        self.rule(move |_| fate.clone());
    }

    /// Returns the number of requests whose target contains this text.
    pub fn count(&self, text: &str) -> usize {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.target.contains(text))
            .count()
    }

    /// Returns every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Serves one request of a connection, then closes it.
async fn serve(
    mut client: TcpStream,
    upstream: &str,
    rule: &Mutex<Rule>,
    requests: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(length) = head_length(&bytes) {
            break length - 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    while bytes.len() < head_end + 4 + length {
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let request = Request {
        target,
        body: String::from_utf8_lossy(&bytes[head_end + 4..]).into_owned(),
        head,
    };
    requests.lock().unwrap().push(request.clone());
    let fate = (rule.lock().unwrap())(&request);
    match fate {
        Fate::Answer(answer) => client.write_all(&answer).await?,
        Fate::Hang => tokio::time::sleep(Duration::from_secs(600)).await,
        Fate::Endless => {
            client
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"data\":{\"CANARY\":\"")
                .await?;
            loop {
                client.write_all(&[b'C'; 8192]).await?;
            }
        }
        Fate::Pass => client.write_all(&forward(upstream, &request).await?).await?,
        Fate::PassBody(body) => {
            let request = with_body(&request, body);
            client.write_all(&forward(upstream, &request).await?).await?;
        }
        Fate::Late(time) => {
            let answer = forward(upstream, &request).await?;
            tokio::time::sleep(time).await;
            client.write_all(&answer).await?;
        }
        Fate::CutOff => {
            let answer = forward(upstream, &request).await?;
            let body = head_length(&answer).unwrap_or(answer.len());
            client
                .write_all(&answer[..body + (answer.len() - body) / 2])
                .await?;
        }
        Fate::Trickle => {
            for byte in forward(upstream, &request).await? {
                client.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    client.shutdown().await
}

/// Returns the request with another body.
fn with_body(request: &Request, body: String) -> Request {
    let kept = request
        .head
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
    let head = kept.collect::<Vec<_>>().join("\r\n");
    Request {
        target: request.target.clone(),
        head: format!("{head}\r\nContent-Length: {}", body.len()),
        body,
    }
}

/// Returns the length of a message's head in bytes, including the empty line that ends it.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

/// Returns the server's response, which ends with the connection.
async fn forward(upstream: &str, request: &Request) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    let message = format!("{}\r\nConnection: close\r\n\r\n{}", request.head, request.body);
    server.write_all(message.as_bytes()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}
