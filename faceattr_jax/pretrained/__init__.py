"""Networks that others have trained, or a run of one's own, held frozen: their files, readers and modules.

Nothing is downloaded or read at import.
"""

from faceattr_jax.pretrained.faces import FaceNetwork, face_network
from faceattr_jax.pretrained.images import ImageNetwork, image_network

__all__ = ["FaceNetwork", "ImageNetwork", "face_network", "image_network"]
