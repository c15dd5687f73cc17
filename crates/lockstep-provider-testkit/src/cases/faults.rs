use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lockstep_provider::{
    Context, ErrorKind, FindQuery, RemoteRef,
    call::{Direct, Request, Service as _},
    layers::Timeout,
};

use crate::{
    Skip, Subject,
    assert::{Client, assert_clean, client},
    at,
};

const KEY: &str = "shop/database";

/// The time is what the backend said; afterwards the value is answered.
///
/// # Errors
/// Where the backend never asks to slow down.
pub async fn a_throttled_request_tells_when_to_come_back(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let key = RemoteRef::current(at(KEY));
    subject.put(KEY, &[("value", "CANARY")]).await;
    client.read(&key).await;
    subject.throttle(1, Duration::from_secs(7)).await?;
    let error = client.refuse(&key, ErrorKind::RateLimited).await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    subject.heal().await;
    client.read(&key).await;
    Ok(())
}

/// Through the layer that ends requests: the provider must let itself be given up, and work again afterwards.
///
/// # Errors
/// Where the backend cannot hang.
pub async fn a_hung_backend_ends_in_a_time_out(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let key = RemoteRef::current(at(KEY));
    subject.put(KEY, &[("value", "CANARY")]).await;
    client.read(&key).await;
    subject.hang().await?;
    let limited = Timeout::new(Direct(Arc::clone(&client.0)), Duration::from_millis(300));
    let start = Instant::now();
    assert_timed_out(&limited, key.clone()).await;
    if client.0.capability().find {
        assert_timed_out(&limited, FindQuery::default()).await;
    }
    assert!(start.elapsed() < Duration::from_secs(5), "a time-out is kept");
    subject.heal().await;
    heals(&client, &key).await;
    Ok(())
}

async fn assert_timed_out<R: Request>(limited: &Timeout<Direct>, request: R) {
    let error = limited
        .call(&Context::default(), &[request])
        .await
        .remove(0)
        .err();
    let Some(error) = error else {
        panic!("a hung backend must end in an error")
    };
    assert_clean(&error);
    assert_eq!(
        (error.kind, error.operation),
        (ErrorKind::Timeout, R::OPERATION),
        "{error}"
    );
}

/// Reading, searching and checking all say so; afterwards the same client works.
///
/// # Errors
/// Where the backend is always there.
pub async fn an_unavailable_backend_is_told_and_heals(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let key = RemoteRef::current(at(KEY));
    subject.put(KEY, &[("value", "CANARY")]).await;
    client.read(&key).await;
    subject.unavailable().await?;
    client.refuse(&key, ErrorKind::Unavailable).await;
    if client.0.capability().find {
        client
            .refuse_find(&FindQuery::default(), ErrorKind::Unavailable)
            .await;
    }
    match client.0.check(&Context::default()).await {
        Ok(()) => panic!("the check must fail"),
        Err(error) => {
            assert_clean(&error);
            assert_eq!(error.kind.label(), ErrorKind::Unavailable.label(), "{error}");
        }
    }
    subject.heal().await;
    heals(&client, &key).await;
    Ok(())
}

/// Whatever the answer is, it is not shown.
///
/// # Errors
/// Where any bytes are a value.
pub async fn garbage_is_malformed(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let key = RemoteRef::current(at(KEY));
    subject.put(KEY, &[("value", "CANARY")]).await;
    client.read(&key).await;
    subject.garbage().await?;
    client.refuse(&key, ErrorKind::Malformed).await;
    if client.0.capability().find {
        client
            .refuse_find(&FindQuery::default(), ErrorKind::Malformed)
            .await;
    }
    subject.heal().await;
    heals(&client, &key).await;
    Ok(())
}

/// It ends by its size, or by the time-out.
///
/// # Errors
/// Where no answer can be endless.
pub async fn an_endless_answer_is_an_error(subject: &impl Subject) -> Result<(), Skip> {
    let client = client(subject).await;
    let key = RemoteRef::current(at(KEY));
    subject.put(KEY, &[("value", "CANARY")]).await;
    subject.endless(KEY).await?;
    let limited = Timeout::new(Direct(Arc::clone(&client.0)), Duration::from_secs(5));
    let result = limited.call(&Context::default(), &[key]).await.remove(0);
    let kind = result.err().inspect(assert_clean).map(|error| error.kind);
    assert!(
        matches!(kind, Some(ErrorKind::Malformed | ErrorKind::Timeout)),
        "an endless answer must be an error, not {}",
        kind.map_or("a value", ErrorKind::label),
    );
    Ok(())
}

/// A client may take a moment to find out that its backend is back, and no help.
async fn heals(client: &Client, key: &RemoteRef) {
    for _ in 0..50 {
        if client.fetch(std::slice::from_ref(key)).await.remove(0).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.read(key).await;
}
