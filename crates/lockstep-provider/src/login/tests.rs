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

impl CallError for ProviderError {
    fn is_of_credentials(&self) -> bool {
        self.kind == ErrorKind::Unauthenticated
    }

    fn is_an_answer(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }
}

/// Counts logins. Each takes a second and is valid for a hundred.
#[derive(Default, Clone)]
struct Counter {
    logins: Arc<AtomicU64>,
    renewals: Arc<AtomicU64>,
    refused: Arc<AtomicBool>,
    /// Whether a credential is renewed at half of its lifetime, without a login.
    renews: bool,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as the counter")
    }
}

#[async_trait]
impl Authenticator for Counter {
    type Credential = u64;

    async fn log_in(&self) -> Result<Grant<u64>, ProviderError> {
        let number = self.logins.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if self.refused.load(Ordering::SeqCst) {
            return Err(refused());
        }
        Ok((number, Some(Duration::from_secs(100))))
    }

    async fn renew(&self, current: &u64) -> Result<Grant<u64>, ProviderError> {
        if !self.renews {
            return self.log_in().await;
        }
        self.renewals.fetch_add(1, Ordering::SeqCst);
        let is_refused = self.refused.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if is_refused {
            return Err(refused());
        }
        Ok((*current, Some(Duration::from_secs(100))))
    }

    fn renewal_age(&self, lifetime: Duration) -> Duration {
        if self.renews {
            lifetime / 2
        } else {
            lifetime / 5 * 4
        }
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
async fn concurrent_requests_share_one_login() {
    let (counter, login) = login();
    let sessions = join_all((0..1000).map(|_| login.session())).await;
    assert!(
        sessions
            .into_iter()
            .all(|session| session.unwrap().credential == 1)
    );
    assert_eq!(counter.logins(), 1);
    assert_eq!(format!("{login:?}"), "Login(as the counter)");
}

#[tokio::test(start_paused = true)]
async fn one_request_renews_while_others_use_the_old_session() {
    let (counter, login) = login();
    login.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(81)).await;
    let sessions = join_all((0..100).map(|_| login.session())).await;
    let renewed = sessions
        .into_iter()
        .filter(|session| session.as_ref().unwrap().credential == 2);
    assert_eq!(renewed.count(), 1);
    assert_eq!(counter.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn failed_renewal_keeps_the_session_and_is_not_repeated() {
    let (counter, login) = login();
    login.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(81)).await;
    counter.refuse(true);
    for _ in 0..3 {
        assert_eq!(login.session().await.unwrap().credential, 1);
    }
    assert_eq!(counter.logins(), 2);
    tokio::time::advance(Duration::from_secs(20)).await;
    let error = login.session().await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unauthenticated, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn rejected_session_is_replaced_once() {
    let (counter, login) = login();
    let old = login.session().await.unwrap();
    let fresh = join_all((0..50).map(|_| login.replace(old.generation()))).await;
    assert!(fresh.into_iter().all(|session| session.unwrap().credential == 2));
    assert_eq!(counter.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn failed_login_is_shared_and_the_next_request_retries() {
    let (counter, login) = login();
    counter.refuse(true);
    let sessions = join_all((0..50).map(|_| login.session())).await;
    assert!(sessions.iter().all(Result::is_err));
    assert_eq!(counter.logins(), 1);
    counter.refuse(false);
    assert_eq!(login.session().await.unwrap().credential, 2);
}

#[tokio::test(start_paused = true)]
async fn renewed_credential_needs_no_login() {
    let counter = Counter {
        renews: true,
        ..Counter::default()
    };
    let login = Login::new(counter.clone());
    for _ in 0..5 {
        let session = login.session().await.unwrap();
        assert_eq!(session.credential, 1);
        assert_eq!(session.generation(), login.generation());
        tokio::time::advance(Duration::from_secs(51)).await;
    }
    assert_eq!(
        (counter.logins(), counter.renewals.load(Ordering::SeqCst)),
        (1, 4)
    );
}

#[tokio::test(start_paused = true)]
async fn failed_renewal_is_not_a_failed_login() {
    let counter = Counter {
        renews: true,
        ..Counter::default()
    };
    let login = Login::new(counter.clone());
    let session = login.session().await.unwrap();
    tokio::time::advance(Duration::from_secs(51)).await;
    counter.refuse(true);
    let rejected = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        counter.refuse(false);
        let replaced = login.replace(session.generation()).await;
        replaced.unwrap().credential
    };
    let (replaced, kept) = futures::join!(rejected, login.session());
    assert_eq!((replaced, kept.unwrap().credential), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn rejected_credential_is_replaced_and_the_request_repeated() {
    let (counter, login) = login();
    let send = |credential| async move {
        if credential == 1 {
            Err(refused())
        } else {
            Ok(credential)
        }
    };
    assert_eq!(login.send(send).await, Ok(2));
    assert_eq!(login.send(send).await, Ok(2));
    assert_eq!(counter.logins(), 2);
    assert!(!login.works(), "no request of the store was sent");
}

#[tokio::test(start_paused = true)]
async fn store_works_for_five_minutes_after_a_success() {
    let (_, login) = login();
    let call = |outcome: Result<(), ErrorKind>| {
        let outcome = outcome.map_err(|kind| ProviderError::new(kind, Operation::Read, "canary"));
        login.call(move |_| std::future::ready(outcome.clone()))
    };
    assert!(call(Ok(())).await.is_ok() && login.works());
    assert!(call(Err(ErrorKind::NotFound)).await.is_err() && login.works());
    assert!(call(Err(ErrorKind::Unavailable)).await.is_err() && !login.works());
    assert!(call(Err(ErrorKind::NotFound)).await.is_err() && !login.works());
    assert!(call(Ok(())).await.is_ok() && login.works());
    tokio::time::advance(WORKS_FOR).await;
    assert!(!login.works());
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
impl Authenticator for Expired {
    type Credential = u64;

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
    assert_eq!(login.authenticator().0.load(Ordering::SeqCst), 1);
}
