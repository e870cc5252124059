#!/usr/bin/env bash
# Guess: SwitchRecipeHook with batch_augments in its recipe begins mixup at that epoch, whatever the preprocessor began with.
# Behaviour: the data preprocessor mixes images only together with one-hot labels. It turns these on (to_onehot) if it is built with
# batch_augments, and by nothing else. A preprocessor that begins without them gets the augmentation from the hook, which logs the switch,
# and leaves every batch as it is: the images stay, the labels stay class indices, and nothing is said.
# Packages: onedl-mmpretrain 1.3.6, onedl-mmengine 0.10.12, onedl-mmcv 2.3.6, torch 2.14.1.
# Seen on 2026-11-28:
#   begun with mixup:    images mixed True, one-hot labels True
#   begun without:       images mixed False, one-hot labels False; logged the switch: True
#   begun with to_onehot: images mixed True, one-hot labels True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmpretrain==1.3.6
cat > "$folder/look.py" <<'END'
import logging
import sys
from types import SimpleNamespace

import torch
from mmengine.logging import MMLogger
from mmpretrain.engine import SwitchRecipeHook
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

MIXUP = dict(augments=[dict(type='Mixup', alpha=1.0)])
logged = []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logger = MMLogger.get_current_instance()
logger.addHandler(handler)


def after_the_switch(**keywords):
    """Return whether a batch is mixed, and whether its labels are one-hot, once the hook has switched to mixup."""
    preprocessor = ClsDataPreprocessor(num_classes=2, **keywords)
    runner = SimpleNamespace(
        epoch=0, logger=logger, model=SimpleNamespace(data_preprocessor=preprocessor), train_loop=SimpleNamespace(max_epochs=2)
    )
    SwitchRecipeHook([dict(action_epoch=1, batch_augments=MIXUP)]).before_train_epoch(runner)
    torch.manual_seed(0)
    images = [torch.full((3, 4, 4), float(value)) for value in range(8)]
    samples = [DataSample().set_gt_label(value % 2) for value in range(8)]
    made = preprocessor(dict(inputs=images, data_samples=samples), training=True)
    mixed = not torch.equal(made['inputs'], torch.stack(images))
    return mixed, 'gt_score' in made['data_samples'][0]


with_mixup = after_the_switch(batch_augments=MIXUP)
logged.clear()
without = after_the_switch()
told = any('batch augments' in text.lower() for text in logged)
one_hot = after_the_switch(to_onehot=True)
print('begun with mixup:    images mixed {}, one-hot labels {}'.format(*with_mixup))
print('begun without:       images mixed {}, one-hot labels {}; logged the switch: {}'.format(*without, told))
print('begun with to_onehot: images mixed {}, one-hot labels {}'.format(*one_hot))
if (with_mixup, without, told, one_hot) != ((True, True), (False, False), True, (True, True)):
    sys.exit('changed: a switch to batch augmentation is heeded now, or is logged otherwise')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
