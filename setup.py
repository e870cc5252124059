"""Installs mmcls_kd; its configs, tools and model index go along into mmcls_kd/.mim."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
DOCS = ['mkdocs-material', 'mkdocstrings[python]']
ONNX = ['onnx', 'onnxscript', 'onnxruntime']


def copy_toolbox(target: Path, *without: str) -> None:
    """Copy what mim and mmengine look for: `configs/`, `tools/` and `model-index.yml`.

    Args:
        target: The folder to put them in; what an earlier build has left there goes.
        *without: Patterns of files that stay out.
    """
    shutil.rmtree(target, ignore_errors=True)
    for folder in ('configs', 'tools'):
        # the benchmark belongs to a clone, which it measures
        shutil.copytree(HERE / folder, target / folder, ignore=shutil.ignore_patterns('__pycache__', 'benchmark', *without))
    shutil.copy2(HERE / 'pth_transfer.py', target / 'tools')  # so that `mim run mmcls_kd pth_transfer` finds it
    shutil.copy2(HERE / 'model-index.yml', target)


class BuildWithToolbox(build_py):
    """Puts the toolbox into the built package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # there the checkout itself is the toolbox
            return
        copy_toolbox(Path(self.build_lib, 'mmcls_kd', '.mim'))
        # onedl-mim looks in the folder of the first installed file in alphabetical order, which would be that of the
        # console script, `../../../bin`. `+` sorts before `.`
        copy_toolbox(Path(self.build_lib, '+mmcls_kd'), '*.pth')


#: What needs a library of its own; where it is missing, an error names the extra.
EXTRAS = dict(
    analysis=['matplotlib', 'scikit-learn'],
    datasets=['datasets'],
    docs=DOCS,
    hf=['safetensors', 'transformers'],
    jpeg=['simplejpeg'],
    mim=['onedl-mim'],
    mlflow=['mlflow'],
    onnx=ONNX,
    open_clip=['open_clip_torch'],
    safetensors=['safetensors'],
    study=['matplotlib', 'pandas', 'pydantic', 'scipy'],
    tensorboard=['tensorboard'],
    timm=['safetensors', 'timm'],
    wandb=['wandb'],
    webdataset=['webdataset'],
    dev=[
        'accelerate',
        'albumentations',  # the pixels of its resizing are compared
        'datasets',
        'hypothesis',
        'ipykernel',
        'lightning',
        'matplotlib',
        'mypy',
        'nbmake',
        'open_clip_torch',
        'onedl-mim; python_version < "3.14"',  # it wants a pandas that is older
        'pandas',
        'pydantic',
        'pytest',
        'pytest-xdist',
        'ruff',
        'safetensors',
        'scikit-learn',
        'scipy',
        'simplejpeg',
        'setuptools>=77',  # builds a wheel in the tests
        'tensorboard',
        'timm',
        'transformers',
        'twine',
        'webdataset',
        *DOCS,
        *ONNX,
    ],
)

setup(
    name='mmcls_kd',
    version=re.search(r"__version__ = '(.+)'", (HERE / 'mmcls_kd' / '__init__.py').read_text())[1],
    description='Knowledge distillation for image classification, on MMEngine and mmpretrain',
    long_description=(HERE / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmcls_kd', 'mmcls_kd.*']),
    package_data={'mmcls_kd.teachers': ['*.txt']},
    install_requires=(HERE / 'requirements.txt').read_text().split(),
    extras_require=EXTRAS,
    entry_points=dict(console_scripts=['mmcls-kd = mmcls_kd.__main__:main']),
    cmdclass={'build_py': BuildWithToolbox},
    keywords='knowledge distillation, image classification, model compression, PyTorch, MMEngine, mmpretrain',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
