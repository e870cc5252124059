#!/usr/bin/env bash
# Guess: an image of 16 bits, decoded as 8-bit RGB, has the upper 8 bits of each value, whichever library decodes it.
# Behaviour: Pillow's convert('RGB') clips a 16-bit grey image at 255, so that nearly all of a usual one is white, without a word.
# OpenCV takes the upper 8 bits. Data sets that read by Pillow and convert (torchvision's ImageFolder, timm, transformers) train on
# white pictures where those that read by OpenCV (mmpretrain) see the content: a teacher of the one kind and a student of the other
# do not see the same images. A check that images can be opened, and one of their sizes, pass.
# Packages: pillow 12.0.0, opencv-python-headless 4.12.0.88, numpy 2.2.6.
# Seen on 2026-11-29:
#   16-bit values      0 1000 20000 40000 65535
#   Pillow, RGB        0 255 255 255 255
#   OpenCV, colour     0 3 78 156 255
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==12.0.0 opencv-python-headless==4.12.0.88 numpy==2.2.6
cat > "$folder/look.py" <<'END'
import sys

import cv2
import numpy as np
from PIL import Image

values = [0, 1000, 20000, 40000, 65535]
path = f'{sys.argv[1]}/grey.png'
Image.fromarray(np.array([values], np.uint16)).save(path)
with Image.open(path) as image:
    pillow = np.asarray(image.convert('RGB'))[0, :, 0].tolist()
opencv = cv2.imread(path, cv2.IMREAD_COLOR)[0, :, 0].tolist()
print('16-bit values     ', *values)
print('Pillow, RGB       ', *pillow)
print('OpenCV, colour    ', *opencv)
if pillow != [0, 255, 255, 255, 255] or opencv != [0, 3, 78, 156, 255]:
    sys.exit('changed: 16-bit images are decoded otherwise')
END
"$folder/venv/bin/python" "$folder/look.py" "$folder"
