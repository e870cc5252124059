#!/usr/bin/env bash
# Guess: a data set with split='test' has the test images, and the warning that another setting gives is true.
# Behaviour: the MNIST and FashionMNIST classes of mmpretrain choose their files by test_mode alone. With split='test' and the
# default test_mode they have the training images, and nothing is said: a validation on them looks too good. With split='train' and
# test_mode=True they log 'The training set will be used' and have the test images. CIFAR10, whose code looks alike, goes by split.
# Packages: onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6, torch 2.14.1.
# Seen on 2026-11-28:
#   split=test, test_mode left out: labels [3, 3, 3]
#   split=train, test_mode=True: labels [7, 7]; warned that the training set will be used
# (the training file holds three images of class 3, the test file two of class 7)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmpretrain==1.3.6
cat > "$folder/look.py" <<'END'
import logging
import struct
import sys
from pathlib import Path

from mmengine.logging import MMLogger
from mmpretrain.datasets import FashionMNIST

root = Path(sys.argv[1])
for name, count, label in (('train', 3, 3), ('t10k', 2, 7)):
    (root / f'{name}-images-idx3-ubyte').write_bytes(struct.pack('>IIII', 0x803, count, 28, 28) + bytes(count * 784))
    (root / f'{name}-labels-idx1-ubyte').write_bytes(struct.pack('>II', 0x801, count) + bytes([label] * count))
logged = []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
MMLogger.get_current_instance().addHandler(handler)


def labels(**keywords):
    data = FashionMNIST(data_root=str(root), download=False, **keywords)
    return [int(data.get_data_info(i)['gt_label']) for i in range(len(data))]


test = labels(split='test')
logged.clear()
train = labels(split='train', test_mode=True)
warned = any('The training set will be used' in text for text in logged)
print(f'split=test, test_mode left out: labels {test}')
print(f'split=train, test_mode=True: labels {train}; warned that the training set will be used: {warned}')
if (test, train, warned) != ([3, 3, 3], [7, 7], True):
    sys.exit('changed: FashionMNIST goes by split now, or its warning is another one')
END
mkdir "$folder/data"
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder/data"
