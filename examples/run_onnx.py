"""An exported editor by onnxruntime alone:

    python examples/run_onnx.py editor.onnx face.png Eyeglasses=1,Male=0 edited.png

Of the picture it takes the middle, so that is to be cut closely around the face.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
size, names = int(about["image_size"]), about["attributes"].split(",")
photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
face = ImageOps.fit(photo, (size, size))
wanted = dict(edit.split("=") for edit in sys.argv[3].split(","))
if unknown := ", ".join(set(wanted) - set(names)):
    sys.exit(f"{unknown}: the model edits only {', '.join(names)}.")
edits = np.array([[{"1": 1, "0": -1}[wanted[name]] if name in wanted else 0 for name in names]], np.float32)
inputs = {"images": np.float32(face)[None] / 127.5 - 1, "edits": edits, "strength": np.array(1, np.float32)}
(edited,) = session.run(None, inputs)
Image.fromarray(np.uint8((edited[0] + 1) * 127.5 + 0.5)).save(sys.argv[4])
