#!/usr/bin/env bash
# Guess: a folder of class folders gives the same labels to every library that reads it: the folders' names in alphabetical order, as in
# torchvision's ImageFolder (datasets' imagefolder and mmpretrain number likewise).
# Behaviour: timm sorts without case, and digits in a name by their number: 2 comes before 10, and 'american_bulldog' before 'Bengal'. So does
# its training script; its other reader, 'torch/image_folder', gives torchvision's labels. A file of class names (class_map) sets them. Names
# in lower case without numbers, and numbers with leading zeros, agree. Checkpoints of timm hold no class names, shapes and strict loads fit.
# Why it matters: a teacher that timm has trained on a folder teaches a student of a torchvision loader wrong classes: the task loss and the
# distillation pull apart, and measured by that loader even the teacher seems to know nothing.
# Packages: timm 1.0.31, torchvision 0.29.1, torch 2.14.1.
# Seen on 2026-11-30:
#   1 to 100:
#     timm               2 is 1, 10 is 9, 100 is 99; other than torchvision: 89 of 100
#     torch/image_folder 2 is 12, 10 is 1, 100 is 2; other than torchvision: 0 of 100
#     class_map          2 is 12, 10 is 1, 100 is 2; other than torchvision: 0 of 100
#   breeds:
#     timm               Bengal is 4, beagle is 3; other than torchvision: 7 of 8
#     torch/image_folder Bengal is 1, beagle is 6; other than torchvision: 0 of 8
#     class_map          Bengal is 1, beagle is 6; other than torchvision: 0 of 8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat > "$folder/look.py" <<'END'
import sys
import tempfile
from pathlib import Path

from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder

NUMBERED = [str(number) for number in range(1, 101)]
BREEDS = ['Abyssinian', 'Bengal', 'Bombay', 'Ragdoll', 'american_bulldog', 'basset_hound', 'beagle', 'pug']


def folders(names):
    """Return a new folder with a folder for each class, with an image."""
    root = Path(tempfile.mkdtemp(dir=Path(__file__).parent))
    for name in names:
        (root / name).mkdir()
        Image.new('RGB', (8, 8)).save(root / name / 'image.png')
    return root


def labels(root):
    """Return each library's number of each class."""
    (root / 'classes.txt').write_text('\n'.join(ImageFolder(root).classes))
    return {
        'timm': create_dataset('', root).reader.class_to_idx,
        'torch/image_folder': create_dataset('torch/image_folder', root).class_to_idx,
        'class_map': create_dataset('', root, class_map=str(root / 'classes.txt')).reader.class_to_idx,
        'torchvision': ImageFolder(root).class_to_idx,
    }


changed = False
for title, names, shown in (('1 to 100', NUMBERED, ('2', '10', '100')), ('breeds', BREEDS, ('Bengal', 'beagle'))):
    found = labels(folders(names))
    print(f'{title}:')
    differing = {}
    for library in ('timm', 'torch/image_folder', 'class_map'):
        differing[library] = sum(found[library][name] != found['torchvision'][name] for name in names)
        told = ', '.join(f'{name} is {found[library][name]}' for name in shown)
        print(f'  {library:18} {told}; other than torchvision: {differing[library]} of {len(names)}')
    changed |= differing['timm'] < len(names) / 2 or differing['torch/image_folder'] + differing['class_map'] > 0
if changed:
    sys.exit('changed: timm and torchvision number class folders alike now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
