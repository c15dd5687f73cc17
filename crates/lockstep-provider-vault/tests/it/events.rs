//! The events of Vault Enterprise, from a scripted server: OpenBao has none.

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use lockstep_provider::{ErrorKind, EventKind, EventSource};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use crate::bench::{CANARY, Objects, Store, bao, stocked};

/// What the server does with the next connection.
enum Script {
    /// It becomes a WebSocket over which these come, and stays.
    Say(Vec<String>),
    /// The same, and it ends after that.
    SayAndClose(Vec<String>),
    /// It is answered in this way.
    Answer(u16, &'static str),
}

/// A server that follows a script, connection by connection; who it was asked as, and for what.
async fn server(scripts: Vec<Script>) -> (String, mpsc::UnboundedReceiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "it stands for a server elsewhere")]
    tokio::spawn(async move {
        let mut held = Vec::new();
        for script in scripts {
            let (stream, _) = listener.accept().await.unwrap();
            let (says, closes) = match script {
                Script::Say(says) => (says, false),
                Script::SayAndClose(says) => (says, true),
                Script::Answer(status, body) => {
                    answer(stream, status, body).await;
                    continue;
                }
            };
            let asked = asked.clone();
            #[expect(clippy::result_large_err, reason = "the library's own type")]
            let note = move |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
                let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
                let _ = asked.send((header("x-vault-token"), request.uri().to_string()));
                Ok(response)
            };
            let mut socket = accept_hdr_async(stream, note).await.unwrap();
            for text in says {
                socket.send(Frame::Text(text.into())).await.unwrap();
            }
            if closes {
                let _ = socket.close(None).await;
                while let Some(Ok(_)) = socket.next().await {}
            } else {
                held.push(socket);
            }
        }
        std::future::pending::<()>().await;
    });
    (address, questions)
}

async fn answer(mut stream: TcpStream, status: u16, body: &str) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await;
    let text = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn listen(address: &str) -> Arc<dyn EventSource> {
    let vault = json!({
        "server": address, "path": "secret", "auth": { "tokenSecretRef": { "name": "token", "key": "token" } },
    });
    let objects = Objects::default().with("token", "token", "s.CANARY-token");
    let events = json!({ "vault": {} });
    let store = Store::build_hearing(vault, Some(events), &objects).await.unwrap();
    store.0.events().unwrap()
}

fn written(key: &str, version: u64) -> String {
    let path = format!("secret/data/{key}");
    json!({
        "time": "2026-11-27T07:00:00Z",
        "data": {
            "event": { "metadata": {
                "current_version": version.to_string(), "data_path": path, "path": path, "modified": "true",
            } },
            "event_type": "kv-v2/data-write", "plugin_info": { "mount_path": "secret/" },
        },
    })
    .to_string()
}

async fn all(source: &dyn EventSource, count: usize) -> Vec<EventKind> {
    let mut kind = Vec::new();
    while kind.len() < count {
        let messages = source.receive().await.unwrap();
        assert!(messages.iter().all(|message| message.receipt.is_none()));
        kind.extend(messages.into_iter().map(|message| message.kind));
    }
    kind
}

#[tokio::test]
async fn a_connection_says_that_anything_may_have_changed_and_then_what_does() {
    let says = vec![
        written("shop/database", 7),
        CANARY.to_owned(),
        written("shop/cache", 1),
    ];
    let (address, mut asked) = server(vec![Script::Say(says)]).await;
    let source = listen(&address).await;
    let kind = all(source.as_ref(), 4).await;
    assert_eq!(kind[0], EventKind::Anything);
    assert!(kind[1].keys().contains(&"shop/database".to_owned()), "{kind:?}");
    assert_eq!(kind[2], EventKind::Malformed);
    assert!(kind[3].keys().contains(&"shop/cache".to_owned()), "{kind:?}");
    let (token, path) = asked.recv().await.unwrap();
    assert_eq!(token, "s.CANARY-token");
    assert_eq!(path, "/v1/sys/events/subscribe/kv*?json=true");
    assert!(!format!("{source:?} {kind:?}").contains(CANARY));
}

#[tokio::test]
async fn a_connection_that_ends_is_made_anew_and_says_so() {
    let (address, _asked) = server(vec![
        Script::SayAndClose(vec![written("shop/a", 1)]),
        Script::Say(vec![written("shop/b", 1)]),
    ])
    .await;
    let source = listen(&address).await;
    let kind = all(source.as_ref(), 2).await;
    assert_eq!(kind[0], EventKind::Anything);
    let error = source.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let kind = all(source.as_ref(), 2).await;
    assert_eq!(
        kind[0],
        EventKind::Anything,
        "what happened meanwhile, nobody knows"
    );
    assert!(kind[1].keys().contains(&"shop/b".to_owned()));
}

#[tokio::test]
async fn a_server_without_events_is_told_from_one_that_denies_them() {
    // what a server says to a path that it does not have, and to a token without the right
    let none = r#"{"errors":["CANARY unsupported path"]}"#;
    let denied = r#"{"errors":["1 error occurred:\n\t* CANARY permission denied\n\n"]}"#;
    let known = r#"{"data":{"id":"x"}}"#;
    let (address, _asked) = server(vec![
        Script::Answer(404, none),
        Script::Answer(403, denied),
        // it is asked whether it still knows the token
        Script::Answer(200, known),
    ])
    .await;
    let source = listen(&address).await;
    let error = source.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("Enterprise"), "{error}");
    let error = source.receive().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("sys/events/subscribe/kv*"), "{error}");
    assert!(!format!("{error} {error:?}").contains(CANARY));
}

#[tokio::test]
async fn openbao_has_no_events_and_the_error_says_what_to_do() {
    let bao = bao().await;
    let (mount, policy) = stocked(bao).await;
    let token = bao.create_token(&[&policy, "default"]).await.unwrap();
    let vault: Value = json!({
        "server": bao.address(), "path": mount, "auth": { "tokenSecretRef": { "name": "token", "key": "token" } },
    });
    let objects = Objects::default().with("token", "token", token);
    let store = Store::build_hearing(vault, Some(json!({ "vault": {} })), &objects)
        .await
        .unwrap();
    let error = store.0.events().unwrap().receive().await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Unsupported | ErrorKind::PermissionDenied),
        "{error}"
    );
}
