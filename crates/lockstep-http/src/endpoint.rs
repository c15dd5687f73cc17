//! The check of every connection against the store's [`EndpointPolicy`]. Names are resolved here and nowhere else, so the
//! address that is checked is the address that is connected to.

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

/// How long connecting may take by default, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection was not attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The host name has no address.
    #[error("the host name could not be resolved")]
    NameNotResolved,
    /// The policy permits no address of the host.
    #[error("the endpoint policy permits no address of the host")]
    Blocked,
    /// The policy does not permit plain `http`.
    #[error("the endpoint policy does not permit plain http")]
    PlainHttp,
}

/// How the clients of a store connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connect {
    /// Where to.
    pub endpoints: EndpointPolicy,
    /// How long it may take, TLS included.
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
    /// The minimum duration of a failure to connect, for a store whose addresses a tenant chooses. A tenant who sees how soon a
    /// connection fails could tell a closed port from a dropped packet.
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

/// Checks what a URL shows without resolving its host: the scheme, and the address where the host is one. HTTP clients resolve
/// names only, so this is the only check of an address that a URL contains.
///
/// # Errors
/// `PlainHttp`, or `Blocked` for an address or a URL without a host.
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

/// The addresses of a host that the policy permits.
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

/// Whether a client may connect to that address. Beyond what the policy says of addresses, the machine's own addresses count as
/// loopback: whatever listens on all addresses listens on them too.
fn permits(policy: EndpointPolicy, address: IpAddr) -> bool {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    policy.permits(address) && (policy.permits(loopback) || !is_own(address))
}

/// Whether an address is one of this machine's. A datagram socket that is connected to one has it as its own end; nothing is sent.
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

/// Resolves names for `reqwest`.
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
    fn every_spelling_of_a_local_address_is_blocked() {
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
    fn a_tenant_cannot_use_plain_http() {
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
    async fn a_name_is_judged_by_its_addresses() {
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
    fn an_address_of_the_machine_itself_counts_as_loopback() {
        assert!(is_own(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!is_own("192.0.2.7".parse().unwrap()));
        // the address by which this machine would reach another one
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.7:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(is_own(own), "{own}");
            assert!(!permits(EndpointPolicy::Tenant, own), "{own}");
            assert!(permits(EndpointPolicy::Unrestricted, own), "{own}");
        }
    }
}
