//! Real servers and builders for the tests and the demo of lockstep.
//!
//! # A control plane for a test
//!
//! [`shared`] gives every test of one test binary the same control plane, with the controller manager and lockstep's
//! CustomResourceDefinitions in it. It is started by the first test that asks, in some three seconds, and ends with the
//! test binary. Each test works in a namespace of its own, and takes its own client:
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
//! A test that stops or restarts servers, or needs flags of its own, starts one for itself with
//! [`ControlPlane::builder`]. [`OpenBao`] is the same for a store.
//!
//! # What ends when
//!
//! Servers end with the value that holds them and, whatever happens, with the test process: see [`process`].
//!
//! # Where the programs come from
//!
//! See [`tools`]. `cargo xtask setup` gets them all; a test that finds one missing gets it by itself.
//!
//! # Environment
//!
//! `KUBEBUILDER_ASSETS` names a folder with ready-made control plane binaries; `LOCKSTEP_BIN` the lockstep binary that
//! end-to-end tests run; `LOCKSTEP_TEST_KEEP` keeps the servers' folders with their logs.

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
    control_plane::{ControlPlane, ControlPlaneBuilder},
    moto::Moto,
    openbao::OpenBao,
    operator::Operator,
    postgresql::PostgreSql,
    process::{Process, ProcessSpec},
    scratch::Scratch,
};

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// The control plane that all tests of this test binary share: with controller manager and CustomResourceDefinitions.
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

/// Makes aws-lc-rs the TLS provider of this process; every start function of this crate calls it. Call it first in a
/// test that uses TLS without a server of this crate. Calling it twice does no harm.
pub fn init() {
    // An error says that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
