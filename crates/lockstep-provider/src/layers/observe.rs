use super::outcome;
use crate::{
    Context, Provider,
    call::{Answers, Request, Service},
    metrics::StoreMetrics,
};

/// Counts and measures every request.
#[derive(Debug)]
pub struct Observe<S> {
    inner: S,
    metrics: StoreMetrics,
}

impl<S> Observe<S> {
    /// Counts the requests to `inner` as those of one store.
    pub fn new(inner: S, metrics: StoreMetrics) -> Self {
        Self { inner, metrics }
    }
}

impl<R: Request, S: Service<R>> Service<R> for Observe<S> {
    fn provider(&self) -> &dyn Provider {
        self.inner.provider()
    }

    async fn call(&self, cx: &Context, requests: &[R]) -> Answers<R> {
        let timer = self.metrics.begin(R::OPERATION);
        let answers = self.inner.call(cx, requests).await;
        timer.end(outcome(&answers).map(|error| error.kind));
        self.metrics.notice(self.inner.provider().notice().as_ref());
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use crate::{
        ErrorKind, FindQuery, MemoryBackend, RemoteRef,
        call::Direct,
        layers::testing::{Requests as _, measured},
    };

    #[tokio::test]
    async fn each_request_is_counted_with_its_outcome_and_duration() {
        let (backend, measured) = (MemoryBackend::new(), measured());
        backend.put("a", "canary");
        let provider = Observe::new(Direct(backend.provider()), measured.store.clone());
        let cx = Context::default();
        let _ = provider.fetch(&cx, &[RemoteRef::current(at("a"))]).await;
        let _ = provider.fetch(&cx, &[RemoteRef::current(at("missing"))]).await;
        backend.fail_next(1, ErrorKind::Unavailable, None);
        let _ = provider.find(&cx, &FindQuery::default()).await;
        let _ = provider.check(&cx).await;
        let lines = measured.lines("lockstep_provider_requests_total");
        let line = |operation: &str, outcome: &str| {
            format!(
                "lockstep_provider_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\",provider=\"memory\",store=\"shop/vault\"}} 1"
            )
        };
        for expected in [
            line("read", "ok"),
            line("read", "not_found"),
            line("find", "unavailable"),
            line("check", "ok"),
        ] {
            assert!(lines.contains(&expected), "{expected}");
        }
        assert_eq!(lines.len(), 4);
        let counts = measured.lines("lockstep_provider_request_duration_seconds_count");
        assert!(
            counts
                .iter()
                .any(|line| line.contains("\"read\"") && line.ends_with(" 2"))
        );
        assert!(measured.lines("lockstep_provider_in_flight")[0].ends_with(" 0"));
    }
}
