"""The page: whole, with nothing beside it, and true to the numbers."""

import base64
import re
from html.parser import HTMLParser

import pytest
import torch
from analysis_kit import made_up

from mmcls_kd.analysis.figures import FIGURES
from mmcls_kd.analysis.page import cells, texts, write_page

#: A PNG of one pixel.
PNG = base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')


class Outline(HTMLParser):
    """Collects tags, checks that each is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ('meta', 'link', 'img'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def files(tmp_path):
    found = {name: tmp_path / f'{name}.png' for name, _, _ in FIGURES}
    for path in found.values():
        path.write_bytes(PNG)
    return found


def written(found, files, tmp_path):
    write_page(found, files, tmp_path / 'report.html')
    return (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_every_tag_is_closed_and_every_figure_is_inside(files, tmp_path):
    page = written(made_up('alone', 'kd'), files, tmp_path)
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    images = [attributes for tag, attributes in outline.found if tag == 'img']
    assert len(images) == len(FIGURES)
    assert all(base64.b64decode(image['src'].removeprefix('data:image/png;base64,')) == PNG for image in images)
    assert all((image['width'], image['height']) == ('1', '1') and image['alt'] for image in images)


def test_it_needs_nothing_from_elsewhere(files, tmp_path):
    page = written(made_up('alone', 'kd'), files, tmp_path)
    assert not re.search(r'https?://|<script|url\(|@import|javascript:', page)
    assert set(re.findall(r'(?:src|href)="(\w+):', page)) == {'data'}


def test_names_are_text_and_no_tags(files, tmp_path):
    page = written(made_up('a<b>', 'x&y'), files, tmp_path)
    assert '<b>' not in page
    assert 'a&lt;b&gt;' in page
    assert 'x&amp;y' in page


def test_the_table_has_the_numbers(files, tmp_path):
    found = made_up('alone', 'kd')
    page = written(found, files, tmp_path)
    for row in found.rows():
        assert ''.join(f'<td>{cell}</td>' for cell in cells(row, 'epoch')) in page


def test_every_figure_is_explained_and_only_those_that_there_are(files, tmp_path):
    found = made_up('alone', 'kd')
    assert set(texts(found)) == {name for name, _, _ in FIGURES}
    page = written(found, {'reliability': files['reliability']}, tmp_path)
    assert 'id="reliability"' in page
    assert page.count('<img') == 1


def test_notes_are_in_it(files, tmp_path):
    found = made_up('alone', 'kd')
    found.notes = ['kd kept one checkpoint']
    assert '<p>kd kept one checkpoint</p>' in written(found, files, tmp_path)


def test_many_classes_say_what_is_shown():
    found = texts(made_up('alone', 'kd', classes=50, images=500))
    assert 'those 30 are shown' in found['class_differences']
    assert 'ten are shown' in found['features']


def test_classes_without_images_are_counted():
    said = texts(made_up('kd'))['class_differences']
    assert 'With 200 images a class has 50 on average, so one image is 2.0 points' in said
    found = made_up('kd', classes=50, images=50)
    for outputs in found.outputs.values():
        outputs.label[5:] = torch.arange(45) % 2
    said = texts(found)['class_differences']
    assert ' 45 of 50 classes have no image here. With 50 images a class with images has 10 on average' in said
    assert 'one image is 10.0 points' in said
