#!/usr/bin/env bash
# Guess: WebDataset(shardshuffle=100) takes the shards in another order in each epoch; a seed makes the sequence of these orders repeatable;
# detshuffle=True, the "deterministic" one, is the one whose order stays.
# Behaviour: the other way round. The order of the shards is fixed when the data set is made, and each epoch repeats it, with a seed and
# without; detshuffle=True gives another one each epoch. But it counts the epochs in its process: in workers that are new in each epoch,
# as a DataLoader does without persistent_workers=True, it repeats as well. Samples alike: shuffle(n) differs between epochs but does
# not follow random.seed; shuffle(n, seed=0) repeats one order. (webdataset/webdataset#502 asks for a change.) Why it matters: shards often
# hold one source or one class each, and the buffer a few shards: then every epoch shows the same classes at the same steps, and a loop
# that breaks off each epoch at a number of steps never sees the last shards.
# Packages: webdataset 1.0.2, numpy 2.4.6.
# Seen on 2026-11-29, order of six shards in three epochs:
#   shardshuffle=100: 510342 510342 510342
#   with seed=1: 140532 140532 140532
#   with detshuffle=True: 140532 054132 145320
#   with detshuffle=True, a new process each epoch: 140532 140532 140532
#   orders of samples in three epochs: shuffle(100) 3 different, shuffle(100, seed=0) 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q webdataset==1.0.2 numpy==2.4.6
cat > "$folder/look.py" <<'END'
import multiprocessing
import random
import sys
from concurrent.futures import ProcessPoolExecutor

import webdataset

urls = [f'{sys.argv[1]}/{number}.tar' for number in range(6)]
for number, url in enumerate(urls):
    with webdataset.TarWriter(url) as writer:
        for i in range(4):
            writer.write({'__key__': f'{number}/{i}', 'cls': number})


def made(**keywords):
    random.seed(0)
    return webdataset.WebDataset(urls, shardshuffle=100, **keywords).decode()


def order(data):
    return ''.join(dict.fromkeys(str(sample['cls']) for sample in data))


def in_a_new_process():
    with ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool:
        return pool.submit(order_of_counted).result()


def order_of_counted():
    return order(counted)


def samples(**keywords):
    data = webdataset.WebDataset(urls, shardshuffle=False).shuffle(100, **keywords).decode()
    return [[sample['__key__'] for sample in data] for _ in range(3)]


counted = made(detshuffle=True, seed=1)
found = {}
for how, data in {'shardshuffle=100': made(), 'with seed=1': made(seed=1), 'with detshuffle=True': made(detshuffle=True, seed=1)}.items():
    found[how] = [order(data) for _ in range(3)]
found['with detshuffle=True, a new process each epoch'] = [in_a_new_process() for _ in range(3)]
for how, orders in found.items():
    print(f'{how}: {" ".join(orders)}')
different = [len({*map(tuple, samples(**keywords))}) for keywords in ({}, dict(seed=0))]
print('orders of samples in three epochs: shuffle(100) {} different, shuffle(100, seed=0) {}'.format(*different))
if [len(set(orders)) for orders in found.values()] != [1, 1, 3, 1] or different != [3, 1]:
    sys.exit('changed: webdataset shuffles otherwise between epochs now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder"
