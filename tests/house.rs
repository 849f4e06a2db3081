//! The rules of the house and the freshness of generated code, so that plain `cargo test` covers them.

#[test]
fn the_rules_of_the_house_hold() {
    if let Err(violations) = xtask::tidy::run(&xtask::root()) {
        panic!("{violations}");
    }
}

#[test]
fn generated_code_is_what_the_protocol_files_say() {
    if let Err(reason) = xtask::codegen::run(true) {
        panic!("{reason}");
    }
}
