//! The wire protocol: messages, clients and servers of the etcd v3 gRPC API.
//!
//! Everything below `gen/` is made from `proto/` by `cargo xtask codegen` and committed. Byte fields are
//! [`bytes::Bytes`], so a decoded request borrows from the buffer it arrived in. Wire types stop in `server::convert`;
//! nothing further inside may use this crate.

#![expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "the generator's style, not ours"
)]

/// Users, roles and permissions.
pub mod authpb {
    include!("gen/authpb.rs");
}

/// Key-value, watch, lease, cluster, maintenance and auth services.
pub mod etcdserverpb {
    include!("gen/etcdserverpb.rs");
}

/// Keys and events.
pub mod mvccpb {
    include!("gen/mvccpb.rs");
}

/// The election service.
pub mod v3electionpb {
    include!("gen/v3electionpb.rs");
}

/// The lock service.
pub mod v3lockpb {
    include!("gen/v3lockpb.rs");
}

/// The encoded descriptors of all of the above, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor.bin");
