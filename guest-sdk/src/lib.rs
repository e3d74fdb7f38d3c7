//! The SDK for Tidegate decoders.
