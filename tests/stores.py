"""Makes stores of a teacher's logits and trains from them: the tools, run in this process, on a few images."""

import itertools
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import commands
import pytest
import torch
from interruption import fork
from processes import free_port

from mmcls_kd.distillers.teacher import StoredTeacher, Teacher
from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.teachers.records import decode, encode

IMAGES = 101  # which neither batches nor two processes divide evenly
CONFIG = """
_base_ = '{base}'
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
train_dataloader = dict(batch_size=32, dataset=dict(data_root='{data}', indices={images}))
val_cfg, val_dataloader, val_evaluator = None, None, None
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2), logger=dict(interval=1))
randomness = dict(_delete_=True, seed=7)
"""
MIXUP = "model = dict(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))"

_numbers = itertools.count()


def write_config(path, data, more='', images=IMAGES):
    """The demo's config for a few images, with more lines of one's own."""
    base = path.with_name(f'base_of_{path.name}')
    base.write_text(CONFIG.format(base=TOOLBOX / commands.DISTILLER, data=data, images=images))
    path.write_text(f"_base_ = '{base}'\n{more}\n")
    return path


def run(tool, config, work_dir, *arguments, options=()):
    """Run a tool in this process, with ``options`` as its ``--cfg-options``; returns what it logged."""
    options = ['--cfg-options', f'experiment_name=run{next(_numbers)}', *options]
    words = [f'{tool}.py', config, '--work-dir', work_dir, *arguments, *options]
    before = {path.read_text() for path in work_dir.glob('*/*.log')}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(word) for word in words])
        commands.tool(tool)()
    # texts, not paths: of two runs that start within one second the later one takes the file of the other
    return '\n'.join(text for path in sorted(work_dir.glob('*/*.log')) if (text := path.read_text()) not in before)


def make(config, folder, epochs=2, *arguments, options=()):
    """Make a store; returns what the tool logged."""
    words = ['--epochs', epochs, '--store', folder, *arguments]
    return run('store_teacher', config, folder.with_name(f'{folder.name}_log'), *words, options=options)


def train(config, work_dir, store=None, *arguments, options=()):
    """Train, from a store if one is given, and then without any trace of a teacher; returns what was logged."""
    stored = [f'model.teacher_store={store}', 'model.teacher_cfg=None', 'model.teacher_pretrained=nowhere.pth']
    return run('train', config, work_dir, *arguments, options=[*(stored if store else []), *options])


def refused(tool, config, work_dir, *arguments, options=()):
    """What a tool says that must refuse, in one line, before it trains or stores anything."""
    with pytest.raises(SystemExit) as stopped:
        run(tool, config, work_dir, *arguments, options=options)
    message = str(stopped.value.code)
    assert message.startswith(f'{tool}.py: error: ')
    assert '\n' not in message
    assert not [*work_dir.rglob('*.pth'), *work_dir.rglob('*.npy')]
    return message


def run_both(tool, config, work_dir, *arguments):
    """Run a tool in two child processes joined over gloo; returns what they printed."""
    log = work_dir.with_suffix('.log')
    words = [config, '--work-dir', work_dir, '--launcher', 'pytorch', *arguments]
    shared = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE='2')
    children = [fork(words, log, {**shared, 'RANK': r, 'LOCAL_RANK': r}, tool=f'tools/{tool}.py') for r in '01']
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], log.read_text()
    return log.read_text()


class Watched:
    """Puts teachers into distillers whose logits and vectors can be looked at, and those of live ones rounded.

    Attributes:
        seen: For each batch: the views, the images and the teacher's logits, None where no loss reads them.
        path: Where to write views and logits too, with the process's rank behind; None for nowhere.
        k: To how many logits a live teacher is reduced, as a store would; 'float16' to round all of them by torch; None to
            leave them as they are.
    """

    def __init__(self):
        self.seen, self.path, self.k = [], None, None

    def install(self, patch):
        """Put them in the place of both teachers."""
        watched = self

        class Live(Teacher):
            def __call__(self, inputs, data_samples, names, *view):
                tensors = super().__call__(inputs, data_samples, names, *view)
                if watched.k == 'float16':
                    tensors = {name: rounded(read) for name, read in tensors.items()}
                elif watched.k is not None:
                    tensors['logit'] = decode(encode(tensors['logit'], watched.k), tensors['logit'].shape[1])
                return watched.note(inputs, data_samples, tensors, *view)

        class Stored(StoredTeacher):
            def __call__(self, inputs, data_samples, names, *view):
                return watched.note(inputs, data_samples, super().__call__(inputs, data_samples, names, *view), *view)

        patch.setattr('mmcls_kd.distillers.recipe.Teacher', Live)
        patch.setattr('mmcls_kd.distillers.recipe.StoredTeacher', Stored)
        return self

    def note(self, inputs, data_samples, tensors, *view):
        """Keep what a teacher was given and gave."""
        views, logits = [(*sample.view, *view) for sample in data_samples], tensors.get('logit')
        kept = None if logits is None else logits.clone()
        self.seen.append(SimpleNamespace(views=views, images=inputs.clone(), logits=kept))
        if self.path:
            with Path(f'{self.path}.{os.environ.get("RANK", 0)}').open('ab') as file:
                pickle.dump((views, logits.numpy()), file)
        return tensors

    def logits(self):
        """The logits of all views."""
        return {view: row for batch in self.seen for view, row in zip(batch.views, batch.logits, strict=True)}

    def written(self):
        """The logits of all views that each of two processes saw."""
        return [dict(_read(Path(f'{self.path}.{rank}'))) for rank in '01']


def rounded(read):
    """Logits or vectors as float16 has them; of several teachers each one's."""
    return read.half().float() if isinstance(read, torch.Tensor) else tuple(map(rounded, read))


def _read(path):
    with path.open('rb') as file:
        while file.peek(1):
            views, logits = pickle.load(file)
            yield from zip(views, torch.from_numpy(logits), strict=True)
