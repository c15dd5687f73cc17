use std::sync::atomic::AtomicBool;

use futures::future::join_all;

use super::*;

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
    type Key = u64;

    async fn log_in(&self) -> Result<Grant<u64>, ProviderError> {
        let number = self.logins.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if self.refused.load(Ordering::SeqCst) {
            return Err(refused());
        }
        Ok((number, Some(Duration::from_secs(100))))
    }
}

fn login() -> (Counter, Login<Counter>) {
    let counter = Counter::default();
    (counter.clone(), Login::new(counter))
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
    let (counter, login) = login();
    let sessions = join_all((0..1000).map(|_| login.session())).await;
    assert!(sessions.into_iter().all(|session| session.unwrap().key == 1));
    assert_eq!(counter.logins(), 1);
    assert_eq!(format!("{login:?}"), "Login(as the counter)");
}

#[tokio::test(start_paused = true)]
async fn one_request_renews_and_the_others_go_on_with_what_they_have() {
    let (counter, login) = login();
    login.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(81)).await;
    let sessions = join_all((0..100).map(|_| login.session())).await;
    let renewed = sessions
        .into_iter()
        .filter(|session| session.as_ref().unwrap().key == 2);
    assert_eq!(renewed.count(), 1);
    assert_eq!(counter.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_harms_nobody_and_is_not_tried_by_everybody() {
    let (counter, login) = login();
    login.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(81)).await;
    counter.refuse(true);
    for _ in 0..3 {
        assert_eq!(login.session().await.unwrap().key, 1);
    }
    assert_eq!(counter.logins(), 2);
    tokio::time::advance(Duration::from_secs(20)).await;
    let error = login.session().await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_is_replaced_once_for_all_who_had_it() {
    let (counter, login) = login();
    let old = login.session().await.unwrap();
    let fresh = join_all((0..50).map(|_| login.replace(old.generation()))).await;
    assert!(fresh.into_iter().all(|session| session.unwrap().key == 2));
    assert_eq!(counter.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_a_login_that_failed_is_told_and_the_next_one_tries_again() {
    let (counter, login) = login();
    counter.refuse(true);
    let sessions = join_all((0..50).map(|_| login.session())).await;
    assert!(sessions.iter().all(Result::is_err));
    assert_eq!(counter.logins(), 1);
    counter.refuse(false);
    assert_eq!(login.session().await.unwrap().key, 2);
}

/// Counts logins, each of which has expired when its answer arrives.
#[derive(Default)]
struct Expired(AtomicU64);

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the counter")
    }
}

#[async_trait]
impl Door for Expired {
    type Key = u64;

    async fn log_in(&self) -> Result<Grant<u64>, ProviderError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok((number, Some(Duration::from_secs(number % 2))))
    }
}

#[tokio::test(start_paused = true)]
async fn login_that_has_expired_is_malformed_and_shared() {
    let login = Login::new(Expired::default());
    let sessions = join_all((0..100).map(|_| login.session())).await;
    for session in sessions {
        let error = session.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Malformed);
        assert!(error.message.contains("expires 0 seconds"), "{error}");
    }
    assert_eq!(login.door().0.load(Ordering::SeqCst), 1);
}
