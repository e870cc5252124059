"""Hooks of the site: documents outside of docs/ become pages, links into the code become text, roles become Markdown."""

import logging
import os
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
#: Documents outside of docs/ and their pages.
PAGES = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'nkd.md': 'nkd.md', 'vitkd.md': 'vitkd.md'}
LINK = re.compile(r'\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)')
#: Code blocks stay as they are.
BLOCKS = re.compile(r'^(```.*?^```$)', re.MULTILINE | re.DOTALL)


def on_files(files, config):
    """Add the documents outside of docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, **_):
    """Rewrite the links of a page, which are relative to its document in the repository."""
    folder = Path(page.file.abs_src_path).parent

    def rewrite(link):
        text, target, anchor = link[1], (folder / link[2]).resolve(), link[3] or ''
        if not target.exists():
            logging.getLogger('mkdocs').warning("%s links to '%s', which does not exist", page.file.src_uri, link[2])
        path = str(target.relative_to(ROOT))
        if path in PAGES or (path.startswith('docs/') and target.is_file()):
            return f'[{text}]({os.path.relpath(PAGES.get(path, path[5:]), page.file.src_uri + "/..")}{anchor})'
        return text if path.endswith(text.strip('`')) else f'{text} (`{path}`)'

    parts = BLOCKS.split(markdown)
    return ''.join(part if part.startswith('```') else LINK.sub(rewrite, part) for part in parts)


class Roles(griffe.Extension):
    """Replace the roles of docstrings by Markdown."""

    def on_object(self, *, obj, **_):
        """Rewrite the docstring of an object."""
        if obj.docstring:
            text = re.sub(r':math:`(.*?)`', r'$\1$', obj.docstring.value, flags=re.DOTALL)
            text = re.sub(r'^\.\. math::\s*((?:.+\n)*.+)', r'$$\n\1\n$$', text, flags=re.MULTILINE)
            text = re.sub(r'^Example:$', 'Examples:', text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r':\w+:`~?\.?(?:\w+\.)*(\w+)`', r'`\1`', text)
