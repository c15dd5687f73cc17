//! Checks every connection against the store's [`EndpointPolicy`]. Names are resolved only here, so
//! the address that is checked is the address that the client connects to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use lockstep_provider::{EndpointPolicy, StoreConfig};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Default connect timeout, including the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a connection was not attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The host name has no address.
    #[error("the host name could not be resolved")]
    NameNotResolved,
    /// The policy blocks every address of the host.
    #[error("the endpoint policy blocks every address of the host")]
    Blocked,
    /// The policy does not permit plain `http`.
    #[error("the endpoint policy does not permit plain http")]
    PlainHttp,
}

/// Defines where the clients of a store connect, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connect {
    /// The addresses that the clients may connect to.
    pub endpoints: EndpointPolicy,
    /// The connect timeout, including the TLS handshake.
    pub timeout: Duration,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            endpoints: EndpointPolicy::default(),
            timeout: CONNECT_TIMEOUT,
        }
    }
}

impl Connect {
    /// Returns the minimum time after which a failed connection is reported, for a store whose
    /// addresses a tenant chooses. Without it, a tenant could tell a closed port from a dropped
    /// packet by how soon the connection fails.
    pub fn failure_after(&self) -> Option<Duration> {
        (self.endpoints == EndpointPolicy::Tenant).then_some(self.timeout)
    }
}

impl From<&StoreConfig> for Connect {
    fn from(config: &StoreConfig) -> Self {
        Self {
            endpoints: config.endpoints,
            timeout: config.connect_timeout(),
        }
    }
}

/// Parses the address of a service in the configuration of a store. `example` is one, for messages.
///
/// # Errors
/// What is wrong with it. The text continues a sentence after the name of the field.
pub fn parse(text: &str, example: &str) -> Result<Url, String> {
    // The URL parser would silently drop these.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("has white space or control characters in it".to_owned());
    }
    let url = Url::parse(text).map_err(|_| format!("is not a URL such as {example}"))?;
    let fault = if !matches!(url.scheme(), "http" | "https") {
        "must begin with https:// or http://"
    } else if url.host_str().is_none_or(str::is_empty) {
        "has no host"
    } else if text.contains('@') {
        "must not hold credentials"
    } else if url.query().is_some() || url.fragment().is_some() {
        "must not have a query or a fragment"
    } else {
        return Ok(url);
    };
    Err(fault.to_owned())
}

/// Checks a URL without resolving its host: the scheme, and the host if it is an address. HTTP
/// clients only resolve names, so an address in a URL is checked nowhere else.
///
/// # Errors
/// `PlainHttp`, or `Blocked` for a forbidden address or a URL without a host.
pub fn check(policy: EndpointPolicy, url: &Url) -> Result<(), EndpointError> {
    let host = url.host_str().ok_or(EndpointError::Blocked)?;
    if url.scheme() != "https" && !policy.permits_plain_http(host) {
        return Err(EndpointError::PlainHttp);
    }
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse() {
        Ok(address) if !permits(policy, address) => {
            tracing::info!(%host, "the endpoint policy blocks the address of a store");
            Err(EndpointError::Blocked)
        }
        _ => Ok(()),
    }
}

/// Resolves a host and returns the addresses that the policy permits.
///
/// # Errors
/// `NameNotResolved`, or `Blocked` when none of its addresses is permitted.
pub async fn resolve(policy: EndpointPolicy, name: &str) -> Result<Vec<IpAddr>, EndpointError> {
    let found = tokio::net::lookup_host((name, 0)).await;
    let all: Vec<IpAddr> = found
        .map_err(|_| EndpointError::NameNotResolved)?
        .map(|address| address.ip())
        .collect();
    if all.is_empty() {
        return Err(EndpointError::NameNotResolved);
    }
    let (permitted, blocked): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|address| permits(policy, *address));
    if !blocked.is_empty() {
        tracing::info!(host = name, addresses = ?blocked, "the endpoint policy blocks addresses of a store");
    }
    if permitted.is_empty() {
        return Err(EndpointError::Blocked);
    }
    Ok(permitted)
}

/// Returns whether a client may connect to the address. The machine's own addresses count as
/// loopback in addition to what the policy defines: a service that listens on all addresses listens
/// on them too.
fn permits(policy: EndpointPolicy, address: IpAddr) -> bool {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    policy.permits(address) && (policy.permits(loopback) || !is_own(address))
}

/// Returns whether an address belongs to this machine. A datagram socket connected to such an
/// address has the same address as its local end. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(address, 9))?;
        socket.local_addr()
    });
    socket.is_ok_and(|own| own.ip() == address)
}

/// Resolves names for `reqwest`, limited to the addresses that the policy permits.
#[derive(Clone, Copy)]
pub(crate) struct Resolver(pub(crate) EndpointPolicy);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolver({:?})", self.0)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0;
        Box::pin(async move {
            let addresses = resolve(policy, name.as_str()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(policy: EndpointPolicy, url: &str) -> Result<(), EndpointError> {
        check(policy, &Url::parse(url).unwrap())
    }

    #[test]
    fn local_addresses_are_blocked_in_every_spelling() {
        for url in [
            "https://127.0.0.1:8200",
            "https://127.1",
            "https://2130706433",
            "https://0x7f.0.0.1",
            "https://0177.0.0.1",
            "https://127.0.0.1.",
            "https://0",
            "https://[::1]:8200",
            "https://[::ffff:127.0.0.1]",
            "https://[::ffff:7f00:1]",
            "https://[64:ff9b::7f00:1]",
            "https://169.254.169.254/latest/meta-data",
            "https://[fe80::1]",
        ] {
            let verdict = checked(EndpointPolicy::Tenant, url);
            assert_eq!(verdict, Err(EndpointError::Blocked), "{url}");
            assert_eq!(checked(EndpointPolicy::Unrestricted, url), Ok(()), "{url}");
        }
        assert_eq!(checked(EndpointPolicy::Tenant, "https://192.0.2.7:8200"), Ok(()));
        assert_eq!(
            checked(EndpointPolicy::Tenant, "https://vault.example.org"),
            Ok(())
        );
    }

    #[test]
    fn tenants_cannot_use_plain_http() {
        for url in [
            "http://vault.example.org",
            "http://192.0.2.7",
            "http://localhost:8200",
        ] {
            let verdict = checked(EndpointPolicy::Tenant, url);
            assert_eq!(verdict, Err(EndpointError::PlainHttp), "{url}");
        }
        let with_flag = |url| checked(EndpointPolicy::TenantOrLoopback, url);
        assert_eq!(with_flag("http://127.0.0.1:8200"), Ok(()));
        assert_eq!(with_flag("http://192.0.2.7"), Err(EndpointError::PlainHttp));
        assert_eq!(checked(EndpointPolicy::Unrestricted, "http://192.0.2.7"), Ok(()));
    }

    #[tokio::test]
    async fn names_are_checked_by_their_addresses() {
        let blocked = resolve(EndpointPolicy::Tenant, "localhost").await;
        assert_eq!(blocked, Err(EndpointError::Blocked));
        let permitted = resolve(EndpointPolicy::TenantOrLoopback, "localhost")
            .await
            .unwrap();
        assert!(permitted.iter().all(IpAddr::is_loopback), "{permitted:?}");
        let missing = resolve(EndpointPolicy::Unrestricted, "no-such-host.invalid").await;
        assert_eq!(missing, Err(EndpointError::NameNotResolved));
    }

    #[test]
    fn addresses_of_this_machine_count_as_loopback() {
        assert!(is_own(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!is_own("192.0.2.7".parse().unwrap()));
        // the local address that this machine uses to reach another one
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.7:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(is_own(own), "{own}");
            assert!(!permits(EndpointPolicy::Tenant, own), "{own}");
            assert!(permits(EndpointPolicy::Unrestricted, own), "{own}");
        }
    }
}
