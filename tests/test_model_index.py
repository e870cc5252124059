"""The model index: it names every method and config, and its figures are those of the manuals."""

import re

import pytest
import yaml
from mmengine.config import Config
from mmengine.hub import get_config

from mmcls_kd.files.paths import TOOLBOX
from mmcls_kd.recipe.methods import MethodList

INDEX = [TOOLBOX / path for path in yaml.safe_load((TOOLBOX / 'model-index.yml').read_text())['Import']]
METAFILES = [yaml.safe_load(path.read_text()) for path in INDEX]
#: Each collection has a method, and each model is in a collection of its file.
COLLECTIONS = {
    collection['Metadata']['Method']: collection for content in METAFILES for collection in content['Collections']
}
MODELS = [
    (collection['Metadata']['Method'], model)
    for content in METAFILES
    for model in content['Models']
    for collection in content['Collections']
    if model['In Collection'] == collection['Name']
]
AUTHORS = "the authors', with cls_KD; not measured with this toolbox"
#: What the columns of the manuals' tables are, as --methods has it.
COLUMNS = {
    'NKD': ('nkd',),
    'USKD': ('uskd',),
    'tf-NKD': ('tfnkd',),
    'ViTKD': ('vitkd',),
    'ViTKD + NKD': ('vitkd', 'nkd'),
}


def tables(manual):
    """Each row of each table of a manual, by the names of its columns."""
    for table in re.findall(r'(?:^\|.*\n)+', (TOOLBOX / manual).read_text(), re.MULTILINE):
        names, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def published():
    """The authors' figures by config and methods, as the manuals have them."""
    figures = {}
    for row in [*tables('nkd.md'), *tables('vitkd.md')]:
        config = re.search(r'\((configs/distillers/.*\.py)\)', row.get('config', ''))
        if config is None:
            continue
        for column, methods in COLUMNS.items():
            if (figure := row.get(column, '–')) != '–':
                figures.setdefault((config[1], methods), set()).add(float(figure))
        if own := re.match(r'(\w+) ([\d.]+) \(the authors', row.get('result', '')):
            figures[config[1], COLUMNS[own[1]]] = {float(own[2])}
    return figures


def top_1(model):
    (result,) = model['Results']
    assert result['Task'] == 'Image Classification'
    assert result['Dataset'] == model['Metadata']['Training Data']
    return result['Metrics']['Top 1 Accuracy']


def test_every_metafile_is_in_the_index_once():
    assert sorted(INDEX) == sorted((TOOLBOX / 'configs/distillers/metafiles').glob('*.yml'))


def test_every_method_of_readme_has_a_collection_with_its_paper():
    rows = [row for row in tables('README.md') if 'paper' in row]
    papers = {row['method'].strip('`'): re.findall(r'https?://[^)]*', row['paper']) for row in rows}
    assert set(papers) == set(COLLECTIONS)
    assert len(COLLECTIONS) == sum(len(content['Collections']) for content in METAFILES)
    for key, collection in COLLECTIONS.items():
        assert collection['Paper']['Title']
        assert collection['Paper']['URL'] in papers[key] or not papers[key]
        assert (TOOLBOX / collection['README']).is_file()
    assert len({collection['Name'] for collection in COLLECTIONS.values()}) == len(COLLECTIONS)
    assert len(MODELS) == sum(len(content['Models']) for content in METAFILES)


def test_every_config_is_there_once_with_its_own_methods():
    default = [model['Config'] for _, model in MODELS if model['Name'] == model['Config'].split('/')[-1].removesuffix('.py')]
    folders = ('cifar100', 'fashion_mnist', 'imagenet')  # docs/ lists the others: recipes, and the benchmark's pairs
    shipped = [path for folder in folders for path in TOOLBOX.glob(f'configs/distillers/{folder}/*.py')]
    assert sorted(default) == sorted(str(path.relative_to(TOOLBOX)) for path in shipped)
    names = [model['Name'] for _, model in MODELS]
    assert len(names) == len(set(names))
    assert names == [name.lower() for name in names]  # mim finds no other


@pytest.mark.parametrize(('key', 'model'), MODELS, ids=[model['Name'] for _, model in MODELS])
def test_a_model_is_what_its_config_trains(key, model):
    cfg = Config.fromfile(TOOLBOX / model['Config'])
    about, stem = model['Metadata'], model['Config'].split('/')[-1].removesuffix('.py')
    assert key in about['Methods']
    assert set(about['Methods']) <= set(MethodList(cfg.model.distill_cfg).names)
    assert model['Name'] == (stem if about['Methods'] == cfg.methods else f'{stem}_{"_".join(about["Methods"])}')
    assert about['Epochs'] == cfg.train_cfg.max_epochs
    assert ('Teacher' in about) == (cfg.model.teacher_cfg is not None)
    assert about['Training Data'].split('-1k')[0].lower().replace('-', '') in model['Config'].replace('_', '')


def test_the_figures_are_those_of_the_manuals():
    figures = {
        (model['Config'], tuple(model['Metadata']['Methods'])): {top_1(model)}
        for _, model in MODELS
        if model['Metadata'].get('Figures') == AUTHORS
    }
    assert len(figures) > 20
    assert figures == published()


def test_the_only_figure_of_ones_own_is_readmes():
    ((key, model),) = [(k, m) for k, m in MODELS if 'Results' in m and m['Metadata'].get('Figures') != AUTHORS]
    assert model['Metadata']['Figures'] == 'measured with this toolbox, seed 0'
    (row,) = [row for row in tables('README.md') if row.get('') == f'student with {key.upper()}']
    assert top_1(model) == float(row['seed 0'])


def test_the_hub_finds_a_config_by_its_name_in_the_index():
    cfg = get_config('mmcls_kd::distillers/imagenet/regnet-1.6gf_sd_img.py')
    assert cfg.model.type == 'ClassificationDistiller'
    assert cfg.train_cfg.max_epochs == 100
