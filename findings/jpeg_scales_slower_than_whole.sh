#!/usr/bin/env bash
# Guess: a JPEG that is decoded at a smaller size takes less time than the whole image, the less the smaller it becomes: simplejpeg's
# min_height and min_width, which choose the smallest of libjpeg-turbo's scales (k/8) that is large enough, save time in a loader that
# resizes afterwards.
# Behaviour: 5/8, 6/8 and 7/8 take longer than the whole image, 7/8 twice as long, and 3/8 longer than 4/8: only 1/8, 2/8, 4/8 and 8/8 have
# vector code. A minimum just below the image's size, such as 330 for images of 375 rows, doubles the time. Most of the time of 4/8 is
# the Huffman code, which is read whole at every scale.
# Packages: simplejpeg 1.9.0, numpy 2.2.6.
# Seen on 2026-11-29 (time in shares of the whole image's):
#   1/8 0.60, 2/8 0.69, 3/8 0.89, 4/8 0.79, 5/8 1.39, 6/8 1.64, 7/8 2.08, 8/8 1.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q simplejpeg==1.9.0 numpy==2.2.6
cat > "$folder/look.py" <<'END'
import sys
import time

import numpy as np
import simplejpeg

height, width = 384, 512
y, x = np.mgrid[:height, :width]
random = np.random.default_rng(0)
waves = [127 + 60 * np.sin(x / a + y / b) for a, b in ((31, 17), (23, 41), (53, 29))]
image = np.clip(np.stack(waves, 2) + random.normal(0, 5, (height, width, 3)), 0, 255).astype(np.uint8)
content = simplejpeg.encode_jpeg(image, quality=90, colorsubsampling='420')


def took(k):
    start = time.process_time()
    for _ in range(20):
        found = simplejpeg.decode_jpeg(content, min_height=height * k // 8, min_width=width * k // 8)
    assert found.shape[:2] == (height * k // 8, width * k // 8)
    return time.process_time() - start


rounds = [[took(k) for k in range(1, 9)] for _ in range(9)]
least = np.min(rounds, axis=0)
shares = least / least[-1]
print(', '.join(f'{k}/8 {share:.2f}' for k, share in enumerate(shares, start=1)))
if not (shares[4:7] > 1.1).all() or not (shares[[0, 1, 3]] < 0.95).all():
    sys.exit('changed: the times of the scales have another order')
END
"$folder/venv/bin/python" "$folder/look.py"
