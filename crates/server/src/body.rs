//! A response body that holds a permit until it is sent or dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::gateway::AnswerPermit;

/// `inner`, and the permit that ends with it.
pub(crate) struct Permitted {
    inner: tonic::body::Body,
    _permit: AnswerPermit,
}

impl Permitted {
    pub(crate) fn new(inner: tonic::body::Body, permit: AnswerPermit) -> Self {
        Self { inner, _permit: permit }
    }
}

impl Body for Permitted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
