"""The core runs where PyTorch and NumPy are the only packages: in a child process that finds no other."""

import os
import subprocess
import sys
from pathlib import Path

from mmcls_kd.files.paths import TOOLBOX

#: PyTorch, NumPy, and what these need.
NEEDED = 'torch torchgen functorch numpy typing_extensions sympy mpmath networkx jinja2 markupsafe filelock fsspec triton'
PROGRAM = """
import logging
import os
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, fullname, *args):
        found = fullname.partition('.')[0] in allowed or fullname.startswith('_sysconfigdata')
        return PathFinder.find_spec(fullname, *args) if found else None

messages = []
class Listener(logging.Handler):
    def emit(self, record):
        messages.append(record)

allowed = {*sys.stdlib_module_names, *sys.argv[1].split(), 'mmcls_kd', 'small_networks'}
sys.meta_path[:] = [Installed if finder is PathFinder else finder for finder in sys.meta_path]
logging.basicConfig(level=0, handlers=[Listener()])

import mmcls_kd.patches
assert not {'torch', 'numpy'} & set(sys.modules)
import torch
modules = set(sys.modules)
messages.clear()
import mmcls_kd.dis_losses
assert not messages and not os.listdir()
others = {name.partition('.')[0] for name in set(sys.modules) - modules} - set(sys.stdlib_module_names)
assert others <= {'mmcls_kd', 'torch', 'numpy'}, others

from mmcls_kd import Distiller, losses
from small_networks import ViT, batch, pair

student, teacher = pair()
loader = [batch()] * 2
weights = {name: weight.clone() for name, weight in student.state_dict().items()}
frozen = {name: weight.clone() for name, weight in teacher.state_dict().items()}

distiller = Distiller(student, teacher=teacher, losses=dict(nkd=losses.NKDLoss(), mgd=losses.MGDLoss))
optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
for images, labels in loader:
    out = distiller(images, labels)
    out['loss'].backward()
    optimizer.step()
    optimizer.zero_grad()
torch.save(student.state_dict(), 'student.pth')

assert sorted(out) == ['loss', 'mgd', 'nkd', 'task'] and out['loss'].isfinite()
saved = torch.load('student.pth')
assert all(torch.equal(saved[name], weight) for name, weight in student.state_dict().items())
assert not any(torch.equal(saved[name], weights[name]) for name in saved if name.endswith('layer4.0.weight'))
assert not torch.equal(saved['fc.weight'], weights['fc.weight'])
assert all(torch.equal(weight, frozen[name]) for name, weight in teacher.state_dict().items())

out = Distiller(*pair(ViT), losses=['vitkd', 'dist'])(*batch())
out['loss'].backward()
assert not messages
"""


def test_the_ten_lines_train_where_nothing_else_is_installed(tmp_path):
    """The child is a process of its own, as this one has imported all of it; torch's import takes most of its time."""
    paths = (TOOLBOX, Path(__file__).parents[1])
    result = subprocess.run(
        [sys.executable, '-c', PROGRAM, NEEDED],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, paths)), 'PYTHONDONTWRITEBYTECODE': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')
    assert [path.name for path in tmp_path.iterdir()] == ['student.pth']
