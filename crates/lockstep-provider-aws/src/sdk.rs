//! How clients of the SDK are made.

/// What every client of the SDK is made with, whose builders are types of their own.
macro_rules! common {
    ($sdk:ident, $region:expr, $endpoint:expr, $http:expr) => {{
        let mut config = $sdk::config::Builder::new()
            .behavior_version($sdk::config::BehaviorVersion::v2026_01_12())
            .region($sdk::config::Region::new($region.to_string()))
            .http_client($http.client.clone())
            .identity_cache($sdk::config::IdentityCache::no_cache())
            .retry_config($sdk::config::retry::RetryConfig::disabled())
            .timeout_config($http.timeouts())
            .stalled_stream_protection($sdk::config::StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url($endpoint.map(str::to_owned));
        config
    }};
}
pub(crate) use common;
