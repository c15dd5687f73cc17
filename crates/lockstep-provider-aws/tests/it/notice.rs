//! An identity that may not read several values in one call.

use std::time::Duration;

use lockstep_testkit::aws::{Aws, Trouble};

use crate::bench::{Store, text};

async fn stocked() -> (Aws, Store) {
    let aws = Aws::start().await.unwrap();
    for number in 0..30 {
        aws.put_secret(&format!("shop/{number}"), "CANARY");
    }
    let store = Store::of("SecretsManager", &aws).await;
    (aws, store)
}

fn keys() -> Vec<String> {
    (0..30).map(|number| format!("shop/{number}")).collect()
}

async fn read_all(store: &Store) {
    let keys = keys();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let results = store.fetch_all(&keys).await;
    assert!(results.iter().all(|result| text(result) == "CANARY"));
}

#[tokio::test]
async fn denied_batches_are_not_tried_again_at_every_refresh() {
    let (aws, store) = stocked().await;
    aws.deny_action("BatchGetSecretValue");
    assert_eq!((store.0.capability().batch, store.0.notice()), (20, None));
    read_all(&store).await;
    let tried = aws.count("BatchGetSecretValue");
    assert_eq!((tried, aws.count("GetSecretValue")), (2, 30));
    read_all(&store).await;
    assert_eq!(aws.count("BatchGetSecretValue"), tried);
    assert_eq!(store.0.capability().batch, 1);
    let notice = store.0.notice().unwrap();
    assert_eq!(notice.reason, "batch_denied");
    assert!(
        notice.message.contains("secretsmanager:BatchGetSecretValue"),
        "{}",
        notice.message
    );
}

#[tokio::test]
async fn check_of_a_new_store_detects_denied_batches_in_one_call() {
    let (aws, store) = stocked().await;
    aws.deny_action("BatchGetSecretValue");
    store.check().await.unwrap();
    assert_eq!((aws.count("BatchGetSecretValue"), aws.calls().len()), (1, 1));
    assert!(store.0.notice().is_some());
    store.check().await.unwrap();
    assert_eq!(
        aws.count("BatchGetSecretValue"),
        1,
        "a denial is not asked for again"
    );
}

/// Advances the clock by an hour.
async fn an_hour_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3601)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn notice_stays_after_an_hour_until_a_batch_succeeds() {
    let (aws, store) = stocked().await;
    aws.deny_action("BatchGetSecretValue");
    store.check().await.unwrap();
    let notice = store.0.notice();
    assert!(notice.is_some());
    an_hour_later().await;
    assert_eq!(store.0.notice(), notice, "nobody has tried yet");
    assert_eq!(store.0.capability().batch, 20, "and it is time to");
    aws.forget_calls();
    read_all(&store).await;
    assert!(aws.count("BatchGetSecretValue") > 0);
    assert_eq!(
        (store.0.notice(), store.0.capability().batch),
        (notice.clone(), 1)
    );
    an_hour_later().await;
    aws.trouble(Some(Trouble::Broken));
    store.check().await.unwrap_err();
    aws.trouble(None);
    assert_eq!(store.0.notice(), notice, "a failure says nothing of rights");
    aws.allow_action("BatchGetSecretValue");
    store.check().await.unwrap();
    assert_eq!((store.0.notice(), store.0.capability().batch), (None, 20));
}

#[tokio::test]
async fn granted_batches_need_no_notice_and_no_later_check() {
    let (aws, store) = stocked().await;
    store.check().await.unwrap();
    assert_eq!(store.0.notice(), None);
    read_all(&store).await;
    aws.forget_calls();
    store.check().await.unwrap();
    assert!(aws.calls().is_empty(), "the reads are the check");
}
