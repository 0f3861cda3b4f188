"""A mask for a photo, by a model that `acclimate export RUN model.onnx` wrote; without PyTorch or Acclimate.

pip install numpy pillow onnxruntime
python onnx_predict.py model.onnx photo.jpg mask.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, photo, mask = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
width = int(about["width"])

image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
scaled = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BILINEAR)
(labels,) = session.run(["labels"], {"image": np.asarray(scaled)[None]})

picture = Image.fromarray(labels[0]).resize(image.size, Image.Resampling.NEAREST)
picture.putpalette(np.array(json.loads(about["colours"]), np.uint8).tobytes())
picture.save(mask)

classes = json.loads(about["classes"])
for number, pixels in enumerate(np.bincount(np.asarray(picture).ravel(), minlength=len(classes))):
    print(f"{classes[number]:<16} {100 * pixels / image.width / image.height:5.1f} %")
