//! Imports an interface that Tidegate does not offer.

#[cfg(target_arch = "wasm32")]
mod component {
    wit_bindgen::generate!({
        inline: r"
            package test:foreign;
            interface clock { now: func() -> u64; }
            world decoder { import clock; export decode: func() -> u64; }
        ",
        world: "decoder",
    });

    struct Foreign;

    impl Guest for Foreign {
        fn decode() -> u64 {
            test::foreign::clock::now()
        }
    }

    export!(Foreign);
}
