use crate::{CANARY, Skip, Subject, logs::Logs};

/// Runs one case against a new subject.
///
/// # Panics
/// Panics when the case fails, when it is skipped but not listed, when it is listed but not
/// skipped, and when a stored value was logged.
#[expect(clippy::print_stdout, reason = "a skip must be seen in the test's output")]
pub async fn run<S: Subject>(
    case: &str,
    subject: impl Future<Output = S>,
    body: impl AsyncFnOnce(&S) -> Result<(), Skip>,
) {
    let subject = subject.await;
    let logs = Logs::capture(subject.log_directives());
    let outcome = body(&subject).await;
    let leaks = logs.text().lines().filter(|line| line.contains(CANARY)).count();
    assert!(
        leaks == 0,
        "{leaks} lines with a stored value were logged in the case \"{case}\""
    );
    let may_skip = subject.skips().contains(&case);
    match outcome {
        Err(Skip { reason }) => {
            assert!(
                may_skip,
                "the case \"{case}\" was skipped ({reason}), and is not among the skips of this subject"
            );
            println!("skipped \"{case}\": {reason}");
        }
        Ok(()) => assert!(
            !may_skip,
            "the case \"{case}\" is among the skips of this subject, but passes"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use async_trait::async_trait;
    use lockstep_provider::{MemoryBackend, Provider};

    use super::*;

    struct Idle;

    #[async_trait]
    impl Subject for Idle {
        async fn provider(&self) -> Arc<dyn Provider> {
            MemoryBackend::new().provider()
        }
        fn skips(&self) -> &'static [&'static str] {
            &["may skip"]
        }
        async fn put(&self, _: &str, _: &[(&str, &str)]) -> Option<String> {
            None
        }
        async fn put_raw(&self, _: &str, _: &[u8]) -> Result<(), Skip> {
            Ok(())
        }
        async fn tag(&self, _: &str, _: &str, _: &str) -> Result<(), Skip> {
            Ok(())
        }
        async fn delete(&self, _: &str) {}
        async fn deny(&self, _: &str) -> Result<(), Skip> {
            Ok(())
        }
        async fn throttle(&self, _: usize, _: Duration) -> Result<(), Skip> {
            Ok(())
        }
        async fn hang(&self) -> Result<(), Skip> {
            Ok(())
        }
        async fn unavailable(&self) -> Result<(), Skip> {
            Ok(())
        }
        async fn garbage(&self) -> Result<(), Skip> {
            Ok(())
        }
        async fn endless(&self, _: &str) -> Result<(), Skip> {
            Ok(())
        }
        async fn heal(&self) {}
    }

    #[tokio::test]
    async fn listed_skip_passes() {
        run("may skip", async { Idle }, async |_| Skip::because("it cannot")).await;
    }

    #[tokio::test]
    #[should_panic(expected = "not among the skips")]
    async fn unlisted_skip_fails() {
        run("must run", async { Idle }, async |_| Skip::because("it cannot")).await;
    }

    #[tokio::test]
    #[should_panic(expected = "but passes")]
    async fn listed_case_that_is_not_skipped_fails() {
        run("may skip", async { Idle }, async |_| Ok(())).await;
    }

    #[tokio::test]
    #[should_panic(expected = "1 lines with a stored value were logged")]
    async fn logged_value_fails() {
        run("must run", async { Idle }, async |_| {
            tracing::trace!(value = CANARY, "read");
            Ok(())
        })
        .await;
    }
}
