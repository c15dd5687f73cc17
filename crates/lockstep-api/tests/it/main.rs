//! temporary
#[test]
fn dump() {
    for crd in lockstep_api::crd::all() {
        std::fs::write(
            format!("/tmp/b/crds/{}_{}.yaml", crd.spec.group, crd.spec.names.plural),
            serde_yaml_ng::to_string(&crd).unwrap(),
        )
        .unwrap();
    }
}
