#!/usr/bin/env bash
# Guess: a tokenizer of transformers that takes do_lower_case=True, saves it and has it again after loading makes the same tokens of 'A Dog'
# and 'a dog', as BERT's does.
# Behaviour: GemmaTokenizer keeps the setting, in memory and in tokenizer_config.json, and ignores it without a warning. It is the tokenizer
# of SigLIP 2, whose text half learned lower case only (huggingface/transformers#43101): class names with capitals become tokens that it
# has not seen. Siglip2Tokenizer lowers them, but AutoTokenizer takes it only for folders of the model type siglip2; one of the type siglip
# (SigLIP 2 for a fixed image size) whose tokenizer_config.json names GemmaTokenizer gets that.
# Packages: transformers 5.24.0.
# Seen on 2026-11-29:
#   BertTokenizer: do_lower_case in the loaded settings True, same tokens True
#   GemmaTokenizer: do_lower_case in the loaded settings True, same tokens False
#   in a folder of siglip: GemmaTokenizer, same tokens False; of siglip2: Siglip2Tokenizer, same tokens True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0
cat > "$folder/look.py" <<'END'
import json
import string
import sys
from pathlib import Path

from transformers import AutoTokenizer, BertTokenizer, GemmaTokenizer

root = Path(sys.argv[1])


def same(tokenizer):
    return tokenizer('A Dog')['input_ids'] == tokenizer('a dog')['input_ids']


def loaded(folder, tokenizer):
    tokenizer.save_pretrained(root / folder)
    return type(tokenizer).from_pretrained(root / folder)


def numbered(words):
    return {word: number for number, word in enumerate(words)}


bert = numbered(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'dog'])
gemma = numbered(['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', *string.ascii_letters, '▁'])
rows = []
for tokenizer in (BertTokenizer(vocab=bert, do_lower_case=True), GemmaTokenizer(vocab=gemma, merges=[], do_lower_case=True)):
    name = type(tokenizer).__name__
    again = loaded(name, tokenizer)
    rows.append((again.init_kwargs['do_lower_case'], same(again)))
    print(f'{name}: do_lower_case in the loaded settings {rows[-1][0]}, same tokens {rows[-1][1]}')
kinds = []
for kind in ('siglip', 'siglip2'):
    (root / 'GemmaTokenizer' / 'config.json').write_text(json.dumps(dict(model_type=kind)))
    tokenizer = AutoTokenizer.from_pretrained(root / 'GemmaTokenizer')
    kinds.append((type(tokenizer).__name__, same(tokenizer)))
print('in a folder of siglip: {}, same tokens {}; of siglip2: {}, same tokens {}'.format(*kinds[0], *kinds[1]))
if (rows, kinds) != ([(True, True), (True, False)], [('GemmaTokenizer', False), ('Siglip2Tokenizer', True)]):
    sys.exit('changed: these tokenizers treat do_lower_case otherwise now')
END
"$folder/venv/bin/python" -W ignore "$folder/look.py" "$folder" 2> "$folder/remarks"
