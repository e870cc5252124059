#!/usr/bin/env bash
# Guess: with Hugging Face's Trainer, four batches of 4 images and gradient_accumulation_steps=4 train as one batch of 16: same loss, same step.
# Behaviour: with ResNet, RegNet, BEiT and, by their code, 28 more of the 46 image classifiers of transformers, the gradient is four times too
# large, with class indices as labels and no loss of one's own. The Trainer leaves the division by the number of batches to a model whose forward
# takes further keywords. These take them, and drop the one that matters (num_items_in_batch; huggingface/transformers#47688). ViT, DeiT, DINOv2
# and Swin divide, but not the loss of float labels, nor, in a subclass with its own compute_loss, a loss that is made of the logits, as in
# distillation. ConvNeXt says that it does not divide, and is right; so are all of them in a Trainer with loss_is_scaled_for_ga = False.
# No warning. Why it matters: SGD steps four times too far; AdamW's steps forget a common factor, but the usual clipping at norm 1
# (max_grad_norm) cuts four times as much; the logged loss of the training is four times too high, that of the evaluation is not.
# Packages: transformers 5.24.0, accelerate 1.15.0, torch 2.14.1, torchvision 0.29.1.
# Seen on 2026-11-30, of 16 equal images in 4 batches, the length of SGD's first step and the logged loss, each divided by that of one batch of 16:
#   Trainer, hard labels:                        ViT 1.00 1.00  ResNet 4.00 4.00  RegNet 4.00 4.00  BEiT 4.00 4.00  ConvNeXt 1.00 1.00
#   Trainer, soft labels:                        ViT 4.00 4.00  ResNet 4.00 4.00  RegNet 4.00 4.00  BEiT 4.00 4.00  ConvNeXt 1.00 1.00
#   own compute_loss:                            ViT 4.00 4.00  ResNet 4.00 4.00  RegNet 4.00 4.00  BEiT 4.00 4.00  ConvNeXt 1.00 1.00
#   own compute_loss, loss_is_scaled_for_ga off: ViT 1.00 1.00  ResNet 1.00 1.00  RegNet 1.00 1.00  BEiT 1.00 1.00  ConvNeXt 1.00 1.00
#   classes that take further keywords, do not say that they need the division, and do not hand them to their loss: 31 of 46
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 transformers==5.24.0 accelerate==1.15.0
cat > "$folder/look.py" <<'END'
import inspect
import re
import sys
import tempfile

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

CLASSES, IMAGES = 5, 16
TRANSFORMER = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
)
SETTINGS = dict(
    ViT=dict(**TRANSFORMER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    ResNet=dict(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type='basic'),
    RegNet=dict(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], groups_width=8),
    Beit=dict(**TRANSFORMER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, drop_path_rate=0.0),
    ConvNext=dict(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], drop_path_rate=0.0),
)


class Distillation(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(pixel_values=inputs['pixel_values'])
        loss = cross_entropy(outputs.logits, inputs['labels'])
        return (loss, outputs) if return_outputs else loss


class Divided(Distillation):
    loss_is_scaled_for_ga = False


def train_a_step(trainer, name, soft, accumulated):
    """Return the length of the first step of SGD, and the loss that is logged."""
    torch.manual_seed(0)
    network = getattr(transformers, f'{name}ForImageClassification')(
        getattr(transformers, f'{name}Config')(**SETTINGS[name], num_labels=CLASSES)
    )
    image = torch.randn(3, 32, 32)
    label = torch.softmax(torch.randn(CLASSES), 0) if soft else torch.tensor(3)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=IMAGES // accumulated,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            learning_rate=1e-3,
            optim='sgd',
            lr_scheduler_type='constant',
            max_grad_norm=0.0,
            save_strategy='no',
            logging_strategy='no',
            report_to='none',
            use_cpu=True,
            disable_tqdm=True,
        )
        data = [dict(pixel_values=image, labels=label)] * IMAGES
        training = trainer(model=network, args=arguments, train_dataset=data)
        training.remove_callback(PrinterCallback)
        loss = training.train().training_loss
    step = sum((now - then).square().sum() for now, then in zip(network.parameters(), before)).sqrt()
    return step.item(), loss


def drops_the_number(name):
    """Return whether a class takes further keywords, does not ask for the division, and does not hand the number of labels to its loss."""
    network = getattr(transformers, name)
    takes = any(one.kind == one.VAR_KEYWORD for one in inspect.signature(network.forward).parameters.values())
    code = inspect.getsource(network.forward)
    hands_on = 'loss' not in code or re.search(r'loss_function\([^)]*\*\*kwargs', code)
    return takes and getattr(network, 'accepts_loss_kwargs', True) and not hands_on


expected = [(1, 4, 4, 4, 1), (4, 4, 4, 4, 1), (4, 4, 4, 4, 1), (1, 1, 1, 1, 1)]
seen = []
for title, trainer, soft in (
    ('Trainer, hard labels:', Trainer, False),
    ('Trainer, soft labels:', Trainer, True),
    ('own compute_loss:', Distillation, False),
    ('own compute_loss, loss_is_scaled_for_ga off:', Divided, False),
):
    factors, texts = [], []
    for name in SETTINGS:
        whole, parts = (train_a_step(trainer, name, soft, accumulated) for accumulated in (1, 4))
        of_step, of_loss = (part / one for part, one in zip(parts, whole))
        texts.append(f'{dict(Beit="BEiT", ConvNext="ConvNeXt").get(name, name)} {of_step:.2f} {of_loss:.2f}')
        factors.append(round(of_step) if abs(of_step - of_loss) < 0.05 and abs(of_step - round(of_step)) < 0.05 else None)
    print(f'{title:45}{"  ".join(texts)}')
    seen.append(tuple(factors))
names = sorted({name for names in CLASSIFIERS.values() for name in ([names] if isinstance(names, str) else names)})
dropping = [name for name in names if drops_the_number(name)]
print(
    'classes that take further keywords, do not say that they need the division, and do not hand them to their loss: '
    f'{len(dropping)} of {len(names)}'
)
if seen != expected or len(dropping) < 20:
    sys.exit('changed: the Trainer or these models divide accumulated losses otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" 2> "$folder/errors" || { cat "$folder/errors"; exit 1; }
