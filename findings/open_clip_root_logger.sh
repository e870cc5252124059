#!/usr/bin/env bash
# Guess: a library that builds a model leaves the program's logging alone, so logging.basicConfig after it sets up the program's log file.
# Behaviour: open_clip reports by logging.info and logging.warning, the functions of the root logger. The first of these calls gives a root
# logger without handlers one for stderr. A later logging.basicConfig(filename=..., level=INFO) then does nothing and says nothing: there is
# no file, and messages of INFO are lost. Importing open_clip alone does not do it, create_model does.
# Packages: open_clip_torch 3.3.0, torch 2.14.1, torchvision 0.29.1.
# Seen on 2026-11-29:
#   handlers of the root logger: [] after the import, ['StreamHandler'] after create_model
#   after basicConfig: level WARNING, file exists: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 open_clip_torch==3.3.0
cat > "$folder/look.py" <<'END'
import json
import logging
import sys
from pathlib import Path

import open_clip
import torch

folder = Path(sys.argv[1])
text = dict(context_length=32, vocab_size=49408, width=32, heads=2, layers=1)
vision = dict(image_size=32, layers=1, width=32, head_width=16, patch_size=16)
cfg = dict(embed_dim=32, vision_cfg=vision, text_cfg=text)
(folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg)))
torch.save(open_clip.CLIP(**cfg).state_dict(), folder / 'open_clip_pytorch_model.bin')
kinds = [[type(handler).__name__ for handler in logging.getLogger().handlers]]
open_clip.create_model(f'local-dir:{folder}')
kinds.append([type(handler).__name__ for handler in logging.getLogger().handlers])
logging.basicConfig(filename=folder / 'run.log', level=logging.INFO)
logging.info('the training begins')
level, exists = logging.getLevelName(logging.getLogger().level), (folder / 'run.log').exists()
print(f'handlers of the root logger: {kinds[0]} after the import, {kinds[1]} after create_model')
print(f'after basicConfig: level {level}, file exists: {exists}')
if (kinds, level, exists) != ([[], ['StreamHandler']], 'WARNING', False):
    sys.exit('changed: open_clip leaves the root logger alone now')
END
mkdir "$folder/model"
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder/model"
