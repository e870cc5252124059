"""docs/labels.md: its config of several labels trains, with heads of mmpretrain and with classifiers of other libraries."""

import json
import re

import libraries
import numpy as np
import pytest
import stores
import torch
from mmpretrain.registry import MODELS
from PIL import Image

from mmcls_kd.files.paths import TOOLBOX

TEXT = (TOOLBOX / 'docs' / 'labels.md').read_text()
CONFIG = re.search(r'^```python\n(# multi_label\.py\n.*?)^```', TEXT, re.MULTILINE | re.DOTALL)[1]
STUDENTS = re.findall(r"^student_cfg = dict\(type='(\w+)'.*multi_label=True\)$", TEXT, re.MULTILINE)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the page's config, for images of 32 × 32, and data of the form that it states; of each label a bar."""
    (tmp_path / 'data' / 'mine' / 'images').mkdir(parents=True)
    example = json.loads(re.search(r'^```json\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)[1])
    random = np.random.RandomState(0)
    for split, count in (('train', 16), ('val', 8)):
        rows = []
        for i in range(count):
            labels = sorted(random.choice(20, random.randint(1, 4), replace=False).tolist())
            pixels = random.randint(0, 60, (32, 32, 3)).astype(np.uint8)
            pixels[[label + 6 for label in labels]] = 220
            Image.fromarray(pixels).save(tmp_path / 'data' / 'mine' / 'images' / f'{split}{i}.png')
            rows.append(dict(zip(example['data_list'][0], (f'{split}{i}.png', labels), strict=True)))
        about = dict(classes=[f'bar {i}' for i in range(20)])
        (tmp_path / 'data' / 'mine' / f'{split}.json').write_text(json.dumps(dict(metainfo=about, data_list=rows)))
    (tmp_path / 'multi_label.py').write_text(CONFIG.replace('224', '32'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(folder, *options):
    """The log of an epoch."""
    loaders = ('train_dataloader', 'val_dataloader')
    few = [f'{loader}.{key}' for loader in loaders for key in ('batch_size=8', 'num_workers=0')]
    options = [*few, 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', *options]
    return stores.run('train', folder / 'multi_label.py', folder / 'out', options=options)


@pytest.mark.own_process
@pytest.mark.filterwarnings('ignore')
def test_its_config_trains(desk):
    cfg = re.search(r'teacher_cfg=(dict\(.*?\n    \)),', CONFIG, re.DOTALL)[1]
    head = dict(type='MultiLabelLinearClsHead', num_classes=20)
    torch.manual_seed(0)
    torch.save(MODELS.build(eval(cfg, dict(head=head))).state_dict(), 'teacher.pth')
    log = trained(desk)
    assert len(re.findall(r'ori_loss: [\d.]+  loss_sigmoid_kd: [\d.]+', log)) == 2
    assert re.search(r'multi-label/mAP: [\d.]+  multi-label/precision', log)
    assert list((desk / 'out').glob('best_multi-label_mAP_epoch_1.pth'))


@pytest.mark.own_process
@pytest.mark.filterwarnings('ignore')
def test_a_student_of_timm_trains_under_it(desk):
    assert STUDENTS == ['TimmClassifier', 'HuggingFaceClassifier', 'TorchvisionClassifier', 'ModuleClassifier']
    student = libraries.timm_resnet(multi_label=True) | dict(num_classes=20)
    teacher = student | dict(model_name='test_vit', img_size=32)
    text = (desk / 'multi_label.py').read_text()
    text += f'\nmodel.update(student_cfg={student}, teacher_cfg={teacher}, teacher_pretrained=False)\n'
    (desk / 'multi_label.py').write_text(text)
    log = trained(desk)
    assert re.search(r'multi-label/mAP: [\d.]+', log)
    tested = stores.run('test', desk / 'multi_label.py', desk / 'tested', desk / 'out' / 'epoch_1.pth')
    of_both = [re.findall(r'multi-label/mAP: ([\d.]+)', text)[-1] for text in (log, tested)]
    assert of_both[0] == of_both[1]
