//! Creates clients of the SDK, and sends their requests.

/// The settings of every SDK client. It is a macro because each SDK crate has its own builder type.
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
/// Sends a request of an SDK client with this credential. It is a macro for the same reason.
macro_rules! send {
    ($sdk:ident, $request:expr, $credential:expr) => {
        $request
            .customize()
            .config_override($sdk::config::Builder::new().credentials_provider($credential))
            .send()
    };
}

pub(crate) use {common, send};
