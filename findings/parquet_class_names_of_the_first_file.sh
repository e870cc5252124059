#!/usr/bin/env bash
# Guess: parquet files that datasets has written carry the class names of their ClassLabel column. If several are loaded together and their names
# differ, the labels are either joined by name, or refused, as concatenate_datasets refuses them.
# Behaviour: load_dataset takes the names of the first file for all, and says nothing: labels of the others get other names than they were
# written with. So do splits: files of training with three classes and of validation with two of them, in one folder, load as one data
# set whose validation is labelled wrongly. Each file alone loads right. Why it matters: parts that were made one by one (a class folder each
# time, a validation without some class) train and validate on wrong labels.
# Packages: datasets 5.2.0, pyarrow 26.0.1.
# Seen on 2026-11-29:
#   second file alone: ['dog', 'emu']
#   second file after the first: ['cat', 'dog']
#   validation alone: ['cat', 'emu']
#   validation beside training: ['cat', 'dog']
#   concatenate_datasets: ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1
cat > "$folder/look.py" <<'END'
import sys

import datasets

folder = sys.argv[1]
datasets.disable_progress_bars()


def write(path, names):
    features = datasets.Features(label=datasets.ClassLabel(names=sorted(names)))
    made = datasets.Dataset.from_dict(dict(label=[features['label'].str2int(name) for name in names]), features)
    made.to_parquet(path)
    return made


def names(rows):
    return [rows.features['label'].int2str(label) for label in rows['label']]


def load(*paths):
    return datasets.load_dataset('parquet', data_files=list(paths), split='train', cache_dir=f'{folder}/cache')


def concatenated(*parts):
    try:
        return names(datasets.concatenate_datasets(list(parts)))
    except ValueError as error:
        return type(error).__name__


a, b = (f'{folder}/{name}.parquet' for name in 'ab')
first, second = write(a, ['cat', 'dog']), write(b, ['dog', 'emu'])
write(f'{folder}/pets/train.parquet', ['cat', 'dog', 'emu'])
write(f'{folder}/pets/validation.parquet', ['cat', 'emu'])
pets = datasets.load_dataset(f'{folder}/pets', cache_dir=f'{folder}/cache')
seen = {
    'second file alone': names(load(b)),
    'second file after the first': names(load(a, b))[2:],
    'validation alone': names(load(f'{folder}/pets/validation.parquet')),
    'validation beside training': names(pets['validation']),
    'concatenate_datasets': concatenated(first, second),
}
for how, what in seen.items():
    print(f'{how}: {what}')
expected = [['dog', 'emu'], ['cat', 'dog'], ['cat', 'emu'], ['cat', 'dog'], 'ValueError']
if list(seen.values()) != expected:
    sys.exit('changed: datasets treats class names of several parquet files otherwise now')
END
mkdir "$folder/pets"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
