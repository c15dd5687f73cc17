use std::sync::atomic::AtomicBool;

use futures::future::join_all;

use super::*;
use crate::{ErrorKind, Operation, SecretValue};

#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Credentials for Nobody {
    async fn secret(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(refused())
    }

    async fn config_map(&self, _: &str, _: &str) -> Result<String, ProviderError> {
        Err(refused())
    }

    async fn service_account_token(&self, _: &str, _: &str) -> Result<SecretValue, ProviderError> {
        Err(refused())
    }

    async fn service_account_annotation(&self, _: &str, _: &str) -> Result<Option<String>, ProviderError> {
        Err(refused())
    }
}

fn refused() -> ProviderError {
    ProviderError::new(
        ErrorKind::Unauthenticated,
        Operation::Login,
        "the service refused the login",
    )
}

/// Counts logins, each of which takes a second and lives for a hundred.
#[derive(Default, Clone)]
struct Counter {
    logins: Arc<AtomicU64>,
    refused: Arc<AtomicBool>,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the counter")
    }
}

#[async_trait]
impl Door for Counter {
    type Grant = u64;

    async fn log_in(&self, _: &dyn Credentials) -> Result<(u64, Option<Duration>), ProviderError> {
        let number = self.logins.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if self.refused.load(Ordering::SeqCst) {
            return Err(refused());
        }
        Ok((number, Some(Duration::from_secs(100))))
    }
}

fn identity() -> (Counter, Identity<Counter>) {
    let counter = Counter::default();
    (counter.clone(), Identity::new(counter, Arc::new(Nobody)))
}

impl Counter {
    fn logins(&self) -> u64 {
        self.logins.load(Ordering::SeqCst)
    }

    fn refuse(&self, refused: bool) {
        self.refused.store(refused, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_at_once_log_in_once() {
    let (counter, identity) = identity();
    let sessions = join_all((0..1000).map(|_| identity.session())).await;
    assert!(sessions.into_iter().all(|session| session.unwrap().grant == 1));
    assert_eq!(counter.logins(), 1);
    assert_eq!(format!("{identity:?}"), "Identity(as the counter)");
}

#[tokio::test(start_paused = true)]
async fn one_request_renews_and_the_others_go_on_with_what_they_have() {
    let (counter, identity) = identity();
    identity.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(81)).await;
    let sessions = join_all((0..100).map(|_| identity.session())).await;
    let renewed = sessions
        .into_iter()
        .filter(|session| session.as_ref().unwrap().grant == 2);
    assert_eq!(renewed.count(), 1);
    assert_eq!(counter.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_harms_nobody_and_is_not_tried_by_everybody() {
    let (counter, identity) = identity();
    identity.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(81)).await;
    counter.refuse(true);
    for _ in 0..3 {
        assert_eq!(identity.session().await.unwrap().grant, 1);
    }
    assert_eq!(counter.logins(), 2);
    tokio::time::advance(Duration::from_secs(20)).await;
    let error = identity.session().await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_is_replaced_once_for_all_who_had_it() {
    let (counter, identity) = identity();
    let old = identity.session().await.unwrap();
    let fresh = join_all((0..50).map(|_| identity.replace(old.generation))).await;
    assert!(fresh.into_iter().all(|session| session.unwrap().grant == 2));
    assert_eq!(counter.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_a_login_that_failed_is_told_and_the_next_one_tries_again() {
    let (counter, identity) = identity();
    counter.refuse(true);
    let sessions = join_all((0..50).map(|_| identity.session())).await;
    assert!(sessions.iter().all(Result::is_err));
    assert_eq!(counter.logins(), 1);
    counter.refuse(false);
    assert_eq!(identity.session().await.unwrap().grant, 2);
}
