#!/usr/bin/env bash
# Guess: a WeightAveraging callback of Lightning that begins to average at step 100 (the example of its documentation), or
# EMAWeightAveraging(update_starting_at_epoch=3), leaves the training alone until then: validations measure the network that is being trained.
# Behaviour: each validation, and the state_dict of each checkpoint, have the weights of the copy that the callback makes before the training.
# Until the averaging begins, these are the ones that the network began with. The logged accuracy stands still, at chance for a new network;
# EarlyStopping ends the training before the averaging begins, and the network in memory then has its first weights again. The trained ones are
# in the checkpoint under another key (current_model_state), which load_from_checkpoint does not read. No warning. Why it matters: averaging is
# usually begun late (SWA: over the last quarter), and until then hours of training are validated, stopped and saved as if they had not been.
# Packages: lightning 2.6.6, torch 2.14.1.
# Seen on 2026-11-30, six epochs, averaging from the fourth on, accuracies (of the checkpoint: by state_dict, and by current_model_state):
#   weights before the training: 0.04
#   no averaging: validated [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], afterwards 1.0; checkpoint of the second epoch 1.0
#   averaging: validated [0.04, 0.04, 0.04, 1.0, 1.0, 1.0], afterwards 1.0; checkpoint of the second epoch 0.04 and 1.0
#   averaging, early stopping: validated [0.04, 0.04, 0.04], afterwards 0.04; checkpoint of the second epoch 0.04 and 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 lightning==2.6.6
cat > "$folder/look.py" <<'END'
import logging
import sys
import tempfile

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

CLASSES, EPOCHS, START = 5, 6, 3
torch.manual_seed(0)
centres = 2 * torch.randn(CLASSES, 16)
labels = torch.arange(400) % CLASSES
images = centres[labels] + torch.randn(400, 16)


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.network = torch.nn.Linear(16, CLASSES)
        self.accuracies = []

    def loader(self):
        return DataLoader(TensorDataset(images, labels), batch_size=20)

    train_dataloader = val_dataloader = loader

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log('accuracy', (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def on_validation_epoch_end(self):
        self.accuracies.append(round(self.trainer.callback_metrics['accuracy'].item(), 2))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def accuracy(weights):
    network = Classifier()
    network.load_state_dict(weights)
    return round((network.network(images).argmax(1) == labels).float().mean().item(), 2)


def train(*callbacks):
    """Return the accuracies of the validations, that of the network after all, and those of the second epoch's checkpoint."""
    module = Classifier()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator='cpu',
            max_epochs=EPOCHS,
            callbacks=[*callbacks, ModelCheckpoint(folder, filename='{epoch}', save_top_k=-1)],
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module)
        saved = torch.load(f'{folder}/epoch=1.ckpt')
    weights = [accuracy(saved[key]) for key in ('state_dict', 'current_model_state') if key in saved]
    return module.accuracies, accuracy(module.state_dict()), weights


logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)


def averaging():
    return EMAWeightAveraging(decay=0.9, update_starting_at_epoch=START, update_starting_at_step=START * len(images) // 20)


def stopping():
    return EarlyStopping('accuracy', mode='max', patience=2)


first = accuracy(Classifier().state_dict())
print(f'weights before the training: {first}')
found = []
for title, callbacks in (
    ('no averaging', []),
    ('averaging', [averaging()]),
    ('averaging, early stopping', [averaging(), stopping()]),
):
    validated, after, saved = train(*callbacks)
    found.append((validated, after, saved))
    print(f"{title}: validated {validated}, afterwards {after}; checkpoint of the second epoch {' and '.join(map(str, saved))}")
(plain, after, _), (averaged, _, saved), (stopped, last, _) = found
trained = min(*plain, after) > first + 0.3
stays = averaged[:START] == [first] * START and min(averaged[START:]) > first + 0.3 and saved[0] == first < saved[1] - 0.3
if not trained or not stays or len(stopped) != START or last != first:
    sys.exit('changed: other weights are validated now before the averaging begins')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
