//! The export macro.

/// Exports a decoder from the component: `tidegate_guest::export!(MyDecoder);`. Natively it does nothing.
///
/// It writes `name@version` of the crate into the custom section `tidegate:guest`. The gateway shows this
/// name.
#[macro_export]
macro_rules! export {
    ($decoder:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            const NAME: &str = concat!(env!("CARGO_PKG_NAME"), "@", env!("CARGO_PKG_VERSION"));

            #[used]
            #[unsafe(link_section = "tidegate:guest")]
            static SECTION: [u8; NAME.len()] = {
                let mut section = [0; NAME.len()];
                section.copy_from_slice(NAME.as_bytes());
                section
            };

            ::std::thread_local! {
                static DECODER: ::std::cell::RefCell<Option<$decoder>> = const { ::std::cell::RefCell::new(None) };
            }

            struct Component;

            impl $crate::bindings::Guest for Component {
                fn configure(route: $crate::bindings::Route) -> Result<(), String> {
                    let decoder = $crate::wasm::configure::<$decoder>(route)?;
                    DECODER.with_borrow_mut(|current| *current = Some(decoder));
                    Ok(())
                }

                fn decode(batch: $crate::bindings::Batch) -> $crate::bindings::Decoded {
                    DECODER.with_borrow_mut(|decoder| {
                        $crate::wasm::decode(decoder.as_mut().expect("configure comes first"), batch)
                    })
                }
            }

            $crate::bindings::export_decoder!(Component with_types_in $crate::bindings);
        };
    };
}
