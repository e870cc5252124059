#!/usr/bin/env bash
# Guess: Dataset.map of datasets takes its stored results only if data, function and arguments are the same as then. A function whose code has
# changed is run again, and so is one that calls a changed function: the name of the cache is a hash of the function with all that it uses.
# Behaviour: this holds for what stands in the program's main file. Functions and classes of any other file enter the hash by their names alone. If
# the file is edited, map returns what the old code gave, in every later run, without a warning: for a function that is imported, for an
# object with a method, for a function of the main file that calls one of the module, and for filter. The same text in the main file is noticed. Of
# a module that a main file's function uses, the numbers are hashed, so that a changed constant is noticed there, and a changed line of
# code is not; an imported function notices neither. (huggingface/datasets#3297, open since 2021.) load_from_cache_file=False helps.
# Why it matters: the logits of a teacher, resized images and cleaned labels are made by such functions, in projects that have a package of
# their own. After a mended mistake (a temperature, an order of channels), training goes on with the wrong ones, and the repair seems to do nothing.
# Packages: datasets 5.2.0, pyarrow 26.0.1, numpy 2.4.6.
# Seen on 2026-11-30, logit of the first image, or number of images that filter keeps; before the second run the code was edited (right are 20
# and 4 then), before the third a constant (right are 5 and 1):
#   at first   imported function 10.0, imported class 10.0, main function that calls it 10.0, main function 10.0, filter 3,
#              filter without the cache 3, map without the cache 10.0
#   code       imported function 10.0, imported class 10.0, main function that calls it 10.0, main function 20.0, filter 3,
#              filter without the cache 4, map without the cache 20.0
#   constant   imported function 10.0, imported class 10.0, main function that calls it 5.0, main function 5.0, filter 3,
#              filter without the cache 1, map without the cache 5.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6
cat > "$folder/teacher.py" <<'END'
TEMPERATURE = 1


def logits(row):
    return {'logit': row['image'] * 10 / TEMPERATURE}


class Teacher:
    def __call__(self, row):
        return logits(row)


def wanted(row):
    return row['image'] * 10 / TEMPERATURE > 15
END
cat > "$folder/look.py" <<'END'
import json

import datasets
import teacher

datasets.disable_progress_bars()
images = datasets.load_dataset('json', data_files='images.jsonl', split='train')


def calls_it(row):
    return teacher.logits(row)


def written_here(row):
    return {'logit': row['image'] * 10 / 1}


FUNCTIONS = {
    'imported function': teacher.logits,
    'imported class': teacher.Teacher(),
    'main function that calls it': calls_it,
    'main function': written_here,
}
seen = {name: images.map(function)['logit'][0] for name, function in FUNCTIONS.items()}
seen['filter'] = len(images.filter(teacher.wanted))
seen['filter without the cache'] = len(images.filter(teacher.wanted, load_from_cache_file=False, keep_in_memory=True))
seen['map without the cache'] = images.map(teacher.logits, load_from_cache_file=False, keep_in_memory=True)['logit'][0]
print(json.dumps(seen))
END
cat > "$folder/compare.py" <<'END'
import json
import os
import subprocess
import sys
from pathlib import Path

Path('images.jsonl').write_text(''.join(json.dumps(dict(image=image)) + '\n' for image in (1, 2, 3, 4)))
environment = dict(os.environ, HF_HOME=str(Path('cache').absolute()), HF_HUB_OFFLINE='1', PYTHONDONTWRITEBYTECODE='1')
runs = []


def run(told):
    command = [sys.executable, '-W', 'ignore', 'look.py']
    runs.append(json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout))
    values = [f'{name} {value}' for name, value in runs[-1].items()]
    print(f'{told:10} {", ".join(values[:5])},\n{"":10} {", ".join(values[5:])}')


def edit(file, old, new):
    path = Path(file)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


run('at first')
for file in ('teacher.py', 'look.py'):
    edit(file, "row['image'] * 10", "row['image'] * 20")
run('code')
edit('teacher.py', 'TEMPERATURE = 1', 'TEMPERATURE = 4')
edit('look.py', '* 20 / 1', '* 20 / 4')
run('constant')
right = {
    'imported function': (10, 10, 10),
    'imported class': (10, 10, 10),
    'main function that calls it': (10, 10, 5),
    'main function': (10, 20, 5),
    'filter': (3, 3, 3),
    'filter without the cache': (3, 4, 1),
    'map without the cache': (10, 20, 5),
}
changed = [name for name, values in right.items() if tuple(seen[name] for seen in runs) != values]
if changed:
    sys.exit(f'changed: map notices other changes of the code now ({", ".join(changed)})')
END
cd "$folder"
"$folder/venv/bin/python" compare.py
