//! Restricts where the clients of a store may connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lockstep_api::StoreKind;

/// Restricts where the clients of a store may connect. Clients check every connection by the
/// address that they connect to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointPolicy {
    /// Forbids loopback, link-local, unspecified, multicast and cloud metadata addresses, and plain
    /// `http`. For stores that a tenant wrote.
    #[default]
    Tenant,
    /// Like `Tenant`, but allows loopback addresses, also over plain `http`. For tests.
    TenantOrLoopback,
    /// Allows every address, over `http` or `https`. For stores that a cluster administrator wrote.
    Unrestricted,
}

impl EndpointPolicy {
    /// Returns the policy for stores of this kind.
    pub const fn of(kind: StoreKind, allow_loopback: bool) -> Self {
        match (kind, allow_loopback) {
            (StoreKind::ClusterSecretStore, _) => Self::Unrestricted,
            (StoreKind::SecretStore, false) => Self::Tenant,
            (StoreKind::SecretStore, true) => Self::TenantOrLoopback,
        }
    }

    /// Returns whether a client may connect to the address.
    pub fn permits(self, address: IpAddr) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::TenantOrLoopback if address.is_loopback() => true,
            Self::Tenant | Self::TenantOrLoopback => !is_local(address),
        }
    }

    /// Returns whether a client may use plain `http` for a host, as it appears in the URL.
    pub fn permits_plain_http(self, host: &str) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Tenant => false,
            Self::TenantOrLoopback => {
                let literal = host.trim_start_matches('[').trim_end_matches(']');
                host == "localhost"
                    || literal
                        .parse::<IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

/// Returns whether an address belongs to the machine, its link, a multicast group, or a cloud's
/// metadata service.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_local_v4(address),
        IpAddr::V6(address) => is_local_v6(address) || embedded(address).into_iter().any(is_local_v4),
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    // Metadata services outside the link-local range: Azure, Alibaba Cloud.
    const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
    // Linux treats 0.0.0.0 as this machine. The rest of 0.0.0.0/8 is not a valid destination.
    address.octets()[0] == 0
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA.contains(&address)
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Metadata services at unique local addresses: AWS, Google Cloud.
    let is_metadata =
        segments[..2] == [0xfd00, 0x0ec2] || address == Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254);
    // NAT64 for local use (RFC 8215). The position of the IPv4 address in it depends on the prefix
    // length that the network chose.
    let is_local_nat64 = segments[..3] == [0x0064, 0xff9b, 0x0001];
    is_local_nat64
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || is_metadata
}

/// Returns the IPv4 addresses that an IPv6 address may be translated or tunnelled to.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let segments = address.segments();
    let at = |index: usize, mask: u16| {
        let [a, b] = (segments[index] ^ mask).to_be_bytes();
        let [c, d] = (segments[index + 1] ^ mask).to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    let mut all = Vec::new();
    // IPv4-mapped, IPv4-compatible and IPv4-translated; NAT64 (RFC 6052 and RFC 8215); ISATAP
    if let [0, 0, 0, 0, 0, 0 | 0xffff, _, _]
    | [0, 0, 0, 0, 0xffff, 0, _, _]
    | [0x64, 0xff9b, ..]
    | [_, _, _, _, 0 | 0x0200, 0x5efe, _, _] = segments
    {
        all.push(at(6, 0));
    }
    // 6to4
    if let [0x2002, ..] = segments {
        all.push(at(1, 0));
    }
    // Teredo: the server, and the client with inverted bits
    if let [0x2001, 0, ..] = segments {
        all.extend([at(2, 0), at(6, 0xffff)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOCAL: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "169.254.170.2",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "168.63.129.16",
        "100.100.100.200",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::127.0.0.1",
        "64:ff9b:1:a9fe:a9:fe00::",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:102:304:0:0:80ff:fffe",
        "2001:db8::5efe:7f00:1",
        // several combined: ISATAP within Teredo and within 6to4
        "2001:0:102:304:0:5efe:80ff:fffe",
        "2002:7f00:1:0:0:5efe:808:808",
    ];

    #[test]
    fn local_addresses_are_rejected_in_every_spelling() {
        for text in LOCAL {
            let address: IpAddr = text.parse().unwrap();
            assert!(!EndpointPolicy::Tenant.permits(address), "{text}");
            assert!(EndpointPolicy::Unrestricted.permits(address), "{text}");
            assert_eq!(
                EndpointPolicy::TenantOrLoopback.permits(address),
                address.is_loopback(),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_of_clusters_and_networks_are_permitted() {
        for text in [
            "10.0.0.7",
            "172.16.3.4",
            "192.168.1.1",
            "100.64.0.1",
            "203.0.113.9",
            "8.8.8.8",
            "fd12:3456::1",
            "2a00:1450::1",
            "::ffff:10.0.0.7",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(EndpointPolicy::Tenant.permits(address), "{text}");
        }
    }

    #[test]
    fn plain_http_is_limited_to_administrators_and_tests() {
        for (host, loopback) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("[::1]", true),
            ("vault.example.org", false),
            ("10.0.0.7", false),
            ("localhost.example.org", false),
            ("127.0.0.1.nip.io", false),
        ] {
            assert!(EndpointPolicy::Unrestricted.permits_plain_http(host));
            assert!(!EndpointPolicy::Tenant.permits_plain_http(host));
            assert_eq!(
                EndpointPolicy::TenantOrLoopback.permits_plain_http(host),
                loopback,
                "{host}"
            );
        }
    }

    #[test]
    fn only_stores_of_tenants_are_restricted() {
        let of = EndpointPolicy::of;
        assert_eq!(of(StoreKind::SecretStore, false), EndpointPolicy::Tenant);
        assert_eq!(of(StoreKind::SecretStore, true), EndpointPolicy::TenantOrLoopback);
        for allow_loopback in [false, true] {
            assert_eq!(
                of(StoreKind::ClusterSecretStore, allow_loopback),
                EndpointPolicy::Unrestricted
            );
        }
        assert_eq!(EndpointPolicy::default(), EndpointPolicy::Tenant);
    }

    proptest! {
        #[test]
        fn ipv4_addresses_get_the_same_verdict_inside_ipv6(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let permitted = EndpointPolicy::Tenant.permits(IpAddr::V4(address));
            let mapped = IpAddr::V6(address.to_ipv6_mapped());
            prop_assert_eq!(EndpointPolicy::Tenant.permits(mapped), permitted);
            let nat64 = Ipv6Addr::from((0x0064_ff9b_u128 << 96) | u128::from(bits));
            prop_assert_eq!(EndpointPolicy::Tenant.permits(IpAddr::V6(nat64)), permitted);
        }
    }
}
