//! Tests which responses mean that a value is gone.

use lockstep_provider::ErrorKind;

use crate::bench::Scripted;

#[tokio::test]
async fn undocumented_404_is_malformed() {
    let server = Scripted::start().await;
    for (status, body) in [
        (404, ""),
        (404, "{}"),
        (404, "[]"),
        (404, "<html>not found</html>"),
        (404, r#"{"message":"not found"}"#),
        (404, r#"{"error":"no such route"}"#),
        (404, r#"{"error":{}}"#),
        (404, r#"{"error":{"message":"not found"}}"#),
        (404, r#"{"error":{"code":404,"message":"not found"}}"#),
        (404, r#"{"error":{"status":"NOT_FOUND"}}"#),
        (
            404,
            r#"{"error":{"code":"404","message":"a","status":"NOT_FOUND"}}"#,
        ),
        (
            404,
            r#"{"error":{"code":404,"message":"a","status":"UNKNOWN_ROUTE"}}"#,
        ),
        (
            404,
            r#"{"error":{"code":403,"message":"a","status":"NOT_FOUND"}}"#,
        ),
        (
            400,
            r#"{"error":{"code":404,"message":"a","status":"NOT_FOUND"}}"#,
        ),
        (
            403,
            r#"{"error":{"code":404,"message":"a","status":"NOT_FOUND"}}"#,
        ),
        (
            200,
            r#"{"error":{"code":404,"message":"a","status":"NOT_FOUND"}}"#,
        ),
    ] {
        server.answer(status, body);
        let error = server.store.refuse("a").await;
        assert_eq!(error.kind, ErrorKind::Malformed, "{status} {body}: {error}");
    }
    server.answer(
        404,
        r#"{"error":{"code":404,"message":"CANARY","status":"NOT_FOUND"}}"#,
    );
    assert_eq!(server.store.refuse("a").await.kind, ErrorKind::NotFound);
}
