use super::qualified;

#[test]
fn methods_are_named_with_their_type() {
    for (path, expected) in [
        ("a::free", "free"),
        ("free", "free"),
        ("a::Type::method", "Type::method"),
        ("a::<impl b::Type>::method", "Type::method"),
        ("<a::Type as b::Trait>::method", "Type::method"),
        ("a::<impl b::Trait for c::Type>::method", "Type::method"),
        ("a::<impl b::Type<T>>::method", "Type::method"),
    ] {
        assert_eq!(qualified(path), expected, "{path}");
    }
}
