"""docs/training_loops.md: each loop trains the student as a loop by hand does, saves no teacher, and resumes."""

import copy
import re

import pytest
import safetensors.torch
import torch
from torch.utils.data import DataLoader, SequentialSampler

from mmcls_kd.files.paths import TOOLBOX

TEXT = (TOOLBOX / 'docs' / 'training_loops.md').read_text()
SHARED, *LOOPS = re.findall(r'^```python\n(.*?)^```', TEXT, re.MULTILINE | re.DOTALL)
BY_NAME = {loop.splitlines()[0].removeprefix('# '): loop for loop in LOOPS}
pytestmark = pytest.mark.filterwarnings('ignore')


class Page:
    """The page's code, run in an empty folder.

    Attributes:
        names: What it has defined.
        expected: The states of the distiller after each epoch of a loop by hand, batch by batch in the order of the data.
    """

    def __init__(self):
        torch.manual_seed(0)
        exec(SHARED, names := {})
        self.names, self.teacher = names, copy.deepcopy(names['teacher'].state_dict())
        distiller = self.fresh()
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
        self.expected = [self.epoch(distiller, optimizer) for _ in range(2)]
        self.before = self.fresh()

    def fresh(self):
        """The distiller before any training, with its own student; the teacher is shared."""
        return copy.deepcopy(self.names['distiller'])

    def epoch(self, distiller, optimizer):
        distiller.train()
        for images, labels in DataLoader(self.names['data'], batch_size=8):
            distiller(images, labels)['loss'].backward()
            optimizer.step()
            optimizer.zero_grad()
        return copy.deepcopy(distiller.state_dict())

    def run(self, library, old='', new=''):
        """Run the code of a library, with a change if any; check the student and that the teacher is as before."""
        pytest.importorskip(library)
        assert old in BY_NAME[library]
        exec(BY_NAME[library].replace(old, new), self.names)
        teacher = self.names['teacher']
        assert all(torch.equal(value, self.teacher[name]) for name, value in teacher.state_dict().items())
        assert not teacher.training

    def check(self, state, epochs=2, start=''):
        """Compare a state of a distiller with that of the loop by hand; so it holds nothing of the teacher."""
        expected = self.expected[epochs - 1]
        assert sorted(state) == sorted(start + name for name in expected)
        for name, value in expected.items():
            torch.testing.assert_close(state[start + name], value, rtol=1e-4, atol=1e-6)


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Page()


def test_the_page_has_three_loops():
    assert list(BY_NAME) == ['lightning', 'accelerate', 'transformers']


class TestLightning:
    def test_it_trains_as_by_hand(self, page):
        page.run('lightning')
        page.check(page.names['distiller'].state_dict())
        saved = torch.load('student.pth', weights_only=True)
        page.check({**page.names['distiller'].state_dict(), **{f'student.{name}': value for name, value in saved.items()}})

    def test_it_resumes(self, page):
        page.run('lightning', 'max_epochs=2', 'max_epochs=1')
        path = page.names['trainer'].checkpoint_callback.best_model_path
        page.check(torch.load(path, weights_only=False)['state_dict'], 1, 'distiller.')
        again = page.names['Distillation'](page.before)
        page.names['Trainer'](max_epochs=2).fit(again, page.names['loader'], ckpt_path=path)
        page.check(page.before.state_dict())


class TestAccelerate:
    def test_it_trains_as_by_hand(self, page):
        page.run('accelerate')
        page.check(page.names['distiller'].state_dict())
        page.check(safetensors.torch.load_file('state/model.safetensors'))

    def test_it_resumes(self, page):
        page.run('accelerate', 'range(2)', 'range(1)')
        accelerator = page.names['Accelerator']()
        optimizer = torch.optim.SGD(page.before.parameters(), lr=0.1)
        distiller, optimizer = accelerator.prepare(page.before, optimizer)
        accelerator.load_state('state')
        page.check(distiller.state_dict(), 1)
        page.epoch(distiller, optimizer)
        page.check(distiller.state_dict())


class TestTransformers:
    @pytest.fixture(autouse=True)
    def in_order(self, monkeypatch):
        """The library shuffles."""
        pytest.importorskip('transformers')
        monkeypatch.setattr('transformers.Trainer._get_train_sampler', lambda self, data: SequentialSampler(data))

    def test_it_trains_as_by_hand(self, page):
        page.run('transformers')
        page.check(page.names['distiller'].state_dict())
        page.check(safetensors.torch.load_file('checkpoints/checkpoint-8/model.safetensors'), 2, 'distiller.')
        [first, second] = [entry for entry in page.names['trainer'].state.log_history if 'eval_accuracy' in entry]
        images, labels = page.names['data'].tensors
        found = page.names['student'].eval()(images).argmax(1)
        assert second['eval_accuracy'] == pytest.approx((found == labels).float().mean().item())
        assert first['eval_loss'] != second['eval_loss']

    def test_it_resumes(self, page):
        page.run('transformers', 'num_train_epochs=2', 'num_train_epochs=1')
        settings = page.names['settings']
        settings.num_train_epochs = 2
        again = page.names['Trainer'](
            page.names['Distillation'](page.before),
            settings,
            train_dataset=page.names['data'],
            eval_dataset=page.names['data'],
            data_collator=page.names['batch_of'],
        )
        again.train(resume_from_checkpoint=True)
        page.check(page.before.state_dict())

    def test_accumulated_gradients_are_those_of_the_mean(self, page):
        distiller = page.fresh()
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
        for _ in range(2):
            distiller.train()
            for i, (images, labels) in enumerate(DataLoader(page.names['data'], batch_size=4)):
                (distiller(images, labels)['loss'] / 2).backward()
                if i % 2:
                    optimizer.step()
                    optimizer.zero_grad()
        page.expected = [{}, distiller.state_dict()]
        size = 'per_device_train_batch_size='
        page.run('transformers', f'{size}8', f'{size}4, gradient_accumulation_steps=2')
        page.check(page.names['distiller'].state_dict())

    @pytest.mark.parametrize(('scaled', 'factor'), [(None, 2), (False, 1)])
    def test_a_loss_of_a_subclass_is_divided_if_the_page_is_followed(self, scaled, factor, tmp_path):
        from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

        if not hasattr(Trainer, 'loss_is_scaled_for_ga'):
            pytest.skip('an older release has no such attribute')

        class Own(Trainer):
            loss_is_scaled_for_ga = scaled

            def compute_loss(self, model, inputs, **_):
                return model(inputs['pixel_values']).logits.square().mean()

        network = ViTForImageClassification(
            ViTConfig(
                hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
            )
        )
        images = torch.randn(4, 3, 8, 8)
        expected = network.eval()(images).logits.square().mean().item()
        settings = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=1,
            remove_unused_columns=False,
            save_strategy='no',
            report_to='none',
        )
        data = [dict(pixel_values=image, labels=0) for image in images]
        found = Own(network, settings, train_dataset=data).train().training_loss
        assert found == pytest.approx(factor * expected, rel=1e-3)
