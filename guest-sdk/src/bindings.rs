//! The bindings to `tidegate:ingest@1.1.0`, generated from `wit/`.

wit_bindgen::generate!({
    path: "../wit/tidegate-ingest-1.1.0",
    world: "decoder",
    pub_export_macro: true,
    export_macro_name: "export_decoder",
    default_bindings_module: "tidegate_guest::bindings",
});
