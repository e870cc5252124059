#!/usr/bin/env bash
# Guess: class_encode_column turns a column of integers 0 to 11 into class labels 0 to 11; where the integers are labels already, only the
# column's type changes. It is the shortest way to a ClassLabel, which train_test_split(stratify_by_column=...) asks for.
# Behaviour: it makes texts of the integers and numbers these in alphabetical order: 10 becomes 2, 2 becomes 4, and of a hundred classes twelve
# keep their label. In a DatasetDict each split is numbered by the classes that it has, so a split that lacks one gets other labels than the
# rest. Nothing is said. cast_column with ClassLabel(num_classes=...) keeps the integers; of ten classes or fewer the two agree. Why it
# matters: the labels are still integers of the same range, so a student trains well by them, and a teacher, or stored logits, of the first
# labels teach it wrong classes.
# Packages: datasets 5.2.0.
# Seen on 2026-11-30:
#   integers 0 to 11: [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]; names ['0', '1', '10', '11'] ...
#   by cast_column: the same labels True
#   integers 0 to 99: 12 of 100 keep their label
#   label 2 of a dict whose test lacks class 10: train 4, test 3
#   strings '00' to '11': the same labels True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0
cat > "$folder/look.py" <<'END'
import sys

from datasets import ClassLabel, Dataset, DatasetDict


def data(labels):
    return Dataset.from_dict({'label': list(labels)})


labels = range(12)
encoded = data(labels).class_encode_column('label')
cast = data(labels).cast_column('label', ClassLabel(num_classes=12))
print(f'integers 0 to 11: {encoded["label"][:]}; names {encoded.features["label"].names[:4]} ...')
print(f'by cast_column: the same labels {cast["label"][:] == list(labels)}')
agree = sum(a == b for a, b in zip(data(range(100)).class_encode_column('label')['label'], range(100), strict=True))
print(f'integers 0 to 99: {agree} of 100 keep their label')
parts = DatasetDict(train=data(labels), test=data(label for label in labels if label != 10)).class_encode_column('label')
twos = {name: part['label'][labels.index(2)] for name, part in parts.items()}
print(f'label 2 of a dict whose test lacks class 10: train {twos["train"]}, test {twos["test"]}')
padded = data([f'{label:02}' for label in labels]).class_encode_column('label')
print(f"strings '00' to '11': the same labels {padded['label'][:] == list(labels)}")
if encoded['label'][:] == list(labels) or twos['train'] == twos['test'] or agree > 20:
    sys.exit('changed: integers keep their order now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py"
