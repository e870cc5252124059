"""Work directories as trainings leave them, made by hand in no time, and a comparison of made-up outputs."""

import json

import torch
from commands import DISTILLER, STUDENT, data_options
from kit import seeded
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mmcls_kd.analysis.compare import Comparison, Point
from mmcls_kd.analysis.outputs import Outputs
from mmcls_kd.analysis.runs import Run
from mmcls_kd.command.arguments import training_parser
from mmcls_kd.engine.config import training_config
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.networks.sources import network_cfg


def records(epochs=(1, 2), batches=4, **terms):
    """What a training logs, two lines an epoch and one of its validation."""
    found = []
    for epoch in epochs:
        for iteration in (2, 4):
            step = (epoch - 1) * batches + iteration
            values = {name: value / step for name, value in (terms or dict(loss=3.0)).items()}
            found.append({'lr': 0.1, 'loss': 2.0 / step, **values, 'epoch': epoch, 'iter': step, 'step': step})
        found.append({'accuracy/top1': 20.0 * epoch, 'time': 0.1, 'step': epoch})
    return found


def write_lines(folder, lines):
    """A part's log."""
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def write_run(folder, data, methods=(), epochs=(1, 2), seed=0, options=(), student=None):
    """A work directory of the demo's student, alone or distilled by ``methods``, with random weights."""
    config = DISTILLER if methods else STUDENT
    words = [str(TOOLBOX / config), '--work-dir', str(folder), '--cfg-options', *data_options(data), *options]
    words += ['--methods', *methods] if methods else []
    cfg = training_config(training_parser(None).parse_args([str(word) for word in words]))
    if student:
        cfg.merge_from_dict(student)
    part = folder / '20300101_000000' / 'vis_data'
    terms = dict(ori_loss=2.0, **{f'loss_{name}': 1.0 for name in methods}) if methods else dict()
    write_lines(part, records(epochs, **terms))
    cfg.dump(part / 'config.py')
    for epoch in epochs:
        torch.manual_seed(100 * seed + epoch)
        network = MODELS.build(network_cfg(cfg.model.student_cfg if methods else cfg.model))
        weights = {('student.' if methods else '') + name: value for name, value in network.state_dict().items()}
        meta = dict(epoch=epoch, iter=4 * epoch)
        torch.save(dict(meta=meta, state_dict=weights), folder / f'epoch_{epoch}.pth')
    return folder


def made_up(*names, classes=4, images=200, teacher=True, width=6):
    """A comparison of runs of these names, of random outputs; the first is a student alone, the others are distilled."""
    generator = seeded(0)
    label = torch.arange(images) % classes

    def outputs(sharp):
        logit = sharp * torch.nn.functional.one_hot(label, classes) + torch.randn(images, classes, generator=generator)
        return Outputs(logit, label, torch.randn(images, width, generator=generator))

    runs = []
    for i, name in enumerate(names):
        model = dict(student_cfg='s', teacher_cfg='t') if i else dict(type='ImageClassifier')
        logged = records(**dict(ori_loss=2.0, **{f'loss_{name}': 1.0}) if i else {})
        training = [line for line in logged if 'loss' in line]
        validation = [line for line in logged if 'loss' not in line]
        runs.append(Run(name, TOOLBOX / name, Config(dict(model=model)), 'epoch', {1: '', 2: ''}, training, validation, 4.0))
    found = Comparison(runs, class_names=[f'class {i}' for i in range(classes)])
    if teacher:
        found.outputs['teacher'] = outputs(4.0)
        found.teacher_of = dict.fromkeys(names, 'teacher')
    for i, name in enumerate(names):
        found.outputs[name] = outputs(2.0 + i)
        close = (0.5, 1.0) if teacher else (None, None)
        found.history[name] = [Point(1, 0.4, *close), Point(2, 0.6, *close)]
    return found
