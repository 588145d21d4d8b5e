//! Which images' machines may join. The image that founded the cluster is the first.

use muster_wire::{Charter, Digest, Image, WireError, proto};

use super::Refusal;

/// Most accepted images: one a week for five years.
pub const IMAGES_MAX: usize = 256;

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Images(Vec<Image>);

impl Images {
    pub(super) fn founded(charter: &Charter) -> Self {
        Self(vec![Image { digest: charter.settings, kubernetes_version: charter.kubernetes_version.clone() }])
    }

    /// # Errors
    /// It is accepted already, or the list is full.
    pub(super) fn accept(&mut self, image: &Image) -> Result<(), Refusal> {
        if self.has(image.digest) {
            return Err(Refusal::AcceptedAlready(image.digest));
        }
        if self.0.len() >= IMAGES_MAX {
            return Err(Refusal::Full("too many images are accepted"));
        }
        self.0.push(image.clone());
        Ok(())
    }

    pub(super) fn has(&self, digest: Digest) -> bool {
        self.0.iter().any(|image| image.digest == digest)
    }

    pub(super) fn all(&self) -> &[Image] {
        &self.0
    }

    pub(super) fn to_proto(&self) -> Vec<proto::Image> {
        self.0.iter().map(Image::to_proto).collect()
    }

    pub(super) fn from_proto(images: Vec<proto::Image>) -> Result<Self, WireError> {
        if images.len() > IMAGES_MAX {
            return Err(WireError::Field { field: "ledger.images", rule: "has too many items" });
        }
        images.into_iter().map(Image::from_proto).collect::<Result<_, _>>().map(Self)
    }
}
