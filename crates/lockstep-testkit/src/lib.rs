//! Real servers and builders for the tests and the demo of lockstep.
//!
//! # A control plane for a test
//!
//! [`shared`] returns the control plane that all tests of a test binary share, with the controller
//! manager and lockstep's CustomResourceDefinitions. The first call starts it, in about three
//! seconds, and it stops with the test binary. Each test creates its own namespace and client:
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! let plane = lockstep_testkit::shared().await?;
//! let namespace = plane.namespace("prices").await?;
//! let client = plane.client().await?;
//! let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(client, &namespace);
//! # Ok(())
//! # }
//! ```
//!
//! A test that stops or restarts servers, or needs other flags, starts its own control plane with
//! [`ControlPlane::builder`]. [`OpenBao`] is the equivalent for a store.
//!
//! # When servers stop
//!
//! A server stops when its value is dropped, and always with the test process: see [`process`].
//!
//! # Where the programs come from
//!
//! See [`tools`]. `cargo xtask setup` gets all of them. A test gets a missing program itself.
//!
//! # Environment
//!
//! - `KUBEBUILDER_ASSETS` is a folder with prebuilt control plane binaries.
//! - `LOCKSTEP_BIN` is the lockstep binary that end-to-end tests run.
//! - `LOCKSTEP_TEST_KEEP` keeps the servers' folders with their logs.

pub mod aws;
pub mod binaries;
pub mod certificates;
pub mod clock;
pub mod control_plane;
pub mod environment;
pub mod example;
pub mod fake_cluster;
pub mod gcp;
mod http;
pub mod moto;
pub mod openbao;
pub mod operator;
pub mod pods;
pub mod ports;
pub mod postgresql;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod scratch;
pub mod tools;

use anyhow::Result;
use tokio::sync::OnceCell;

pub use self::{
    clock::ManualClock,
    control_plane::{ControlPlane, ControlPlaneBuilder, service_account_token},
    moto::Moto,
    openbao::OpenBao,
    operator::Operator,
    postgresql::PostgreSql,
    process::{Process, ProcessSpec},
    scratch::Scratch,
};

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// Returns the control plane that all tests of this test binary share: with controller manager and
/// CustomResourceDefinitions.
///
/// # Errors
/// When it does not start; the next caller tries again.
pub async fn shared() -> Result<&'static ControlPlane> {
    SHARED
        .get_or_try_init(|| async {
            let plane = ControlPlane::builder().with_controller_manager().start().await?;
            plane.install_crds().await?;
            Ok(plane)
        })
        .await
}

/// Makes aws-lc-rs the TLS provider of this process. Every start function of this crate calls it.
/// Call it first in a test that uses TLS without a server of this crate. Further calls have no
/// effect.
pub fn init() {
    // An error only means that a provider is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
