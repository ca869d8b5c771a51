use super::{Arguments, expand};

/// What the attribute makes of a function, or its complaint.
fn attempt(arguments: &str, function: &str) -> Result<String, String> {
    let arguments: Arguments = syn::parse_str(arguments).map_err(|error| error.to_string())?;
    let function = syn::parse_str(function).expect("a function");
    expand(&arguments, function)
        .map(|tokens| tokens.to_string())
        .map_err(|error| error.to_string())
}

const FUNCTION: &str = "fn f(&self) -> Result<(), E> { self.body() }";

#[test]
fn the_check_stands_before_the_body() {
    let code = attempt("ctx = self.faults, errors(EIO, ENOSPC)", FUNCTION).expect("expands");
    let check = code.find("(self . faults) . check").expect("a check");
    assert!(
        check < code.find("self . body").expect("the body"),
        "{code}"
    );
    assert!(
        code.contains("[EIO , ENOSPC]") && code.contains("can_wait : false"),
        "{code}"
    );
}

#[test]
fn an_async_function_can_wait_and_a_class_can_be_given() {
    let function = "async fn f(&self) -> io::Result<()> { Ok(()) }";
    let code =
        attempt("errors(EIO), class = \"a:b\", ctx = &self.faults", function).expect("expands");
    assert!(
        code.contains(". pass (& WEIR_FAULT_POINT) . await") && code.contains("can_wait : true"),
        "{code}"
    );
    assert!(code.contains("\"a:b\""), "{code}");
}

#[test]
fn every_refusal_says_what_was_expected() {
    let good = "ctx = self.faults, errors(EIO)";
    for (arguments, function, complaint) in [
        ("", FUNCTION, "missing ctx"),
        ("ctx = self.faults", FUNCTION, "missing errors"),
        ("ctx = self.faults, errors()", FUNCTION, "missing errors"),
        ("errors(EIO)", FUNCTION, "missing ctx"),
        (
            "ctx = a, ctx = b, errors(EIO)",
            FUNCTION,
            "`ctx` is given twice",
        ),
        (
            "context = a",
            FUNCTION,
            "`context`: expected ctx, errors or class",
        ),
        (good, "fn f() {}", "must return a Result"),
        (good, "fn f() -> u32 { 0 }", "must return a Result"),
        (good, "const fn f() -> Result<(), E> { Ok(()) }", "const fn"),
    ] {
        let error = attempt(arguments, function).expect_err(arguments);
        assert!(
            error.contains(complaint),
            "{arguments} on {function}: {error}"
        );
    }
}
