//! Responses to another request than the one that was sent.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lockstep_provider::{ErrorKind, RemoteRef};
use lockstep_provider_testkit::at;
use serde_json::json;

use crate::bench::Scripted;

#[tokio::test]
async fn other_version_is_malformed() {
    let server = Scripted::start().await;
    let read = async |version: &str| {
        let reference = RemoteRef::version(at("a"), version);
        let results = server.store.fetch(&[reference]).await;
        results[0].as_ref().map(|_| ()).map_err(|error| error.kind)
    };
    let two = json!({
        "name": "projects/1/secrets/a/versions/2",
        "payload": { "data": BASE64_STANDARD.encode("a"), "dataCrc32c": "3251651376" },
    });
    server.answer(200, &two.to_string());
    assert_eq!(read("2").await, Ok(()));
    assert_eq!(read("latest").await, Ok(()));
    assert_eq!(read("1").await, Err(ErrorKind::Malformed));
}
