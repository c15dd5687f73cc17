//! Computes how long one request to a store may take.

use std::time::Duration;

use crate::StoreConfig;

/// Default of `limits.timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connect timeouts, longest first. The set is small, so that stores can share clients.
const CONNECT_TIMEOUTS: [Duration; 8] = [
    Duration::from_secs(5),
    Duration::from_secs(2),
    Duration::from_secs(1),
    Duration::from_millis(500),
    Duration::from_millis(250),
    Duration::from_millis(100),
    Duration::from_millis(25),
    Duration::from_millis(5),
];

impl StoreConfig {
    /// Returns the connect timeout, including the TLS handshake: 5 s, or less if `limits.timeout`
    /// is short. It is at most half of `limits.timeout`, so that a dropped connection attempt ends
    /// with the same error as a refused one.
    pub fn connect_timeout(&self) -> Duration {
        let timeout = self
            .limits
            .timeout
            .map_or(DEFAULT_TIMEOUT, lockstep_api::Duration::to_std);
        let fits = |candidate: &Duration| *candidate <= timeout / 2;
        CONNECT_TIMEOUTS
            .into_iter()
            .find(fits)
            .unwrap_or(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use lockstep_api::{Limits, StoreKind, StoreProvider};

    use super::*;
    use crate::{EndpointPolicy, StoreKey};

    #[test]
    fn connect_timeout_is_shorter_than_the_request_timeout() {
        for (timeout, want) in [
            (None, "5s"),
            (Some("60s"), "5s"),
            (Some("9s"), "2s"),
            (Some("1s"), "500ms"),
            (Some("1ms"), "1ms"),
        ] {
            let config = StoreConfig {
                key: StoreKey {
                    kind: StoreKind::SecretStore,
                    namespace: Some("shop".to_owned()),
                    name: "vault".to_owned(),
                },
                provider: StoreProvider::default(),
                limits: Limits {
                    timeout: timeout.map(|text| text.parse().unwrap()),
                    ..Limits::default()
                },
                events: None,
                endpoints: EndpointPolicy::Tenant,
            };
            let want: lockstep_api::Duration = want.parse().unwrap();
            assert_eq!(config.connect_timeout(), want.to_std(), "{timeout:?}");
        }
    }
}
