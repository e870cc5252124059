"""Installs mmcls_kd; its configs and tools go along into mmcls_kd/.mim."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
ONNX = ['onnx', 'onnxscript', 'onnxruntime']


class BuildWithConfigs(build_py):
    """Copies configs and tools into the built package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # there the checkout itself is the toolbox
            for folder in ('configs', 'tools'):
                target = Path(self.build_lib, 'mmcls_kd', '.mim', folder)
                ignore = shutil.ignore_patterns('__pycache__')
                shutil.copytree(HERE / folder, target, ignore=ignore, dirs_exist_ok=True)


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
    install_requires=(HERE / 'requirements.txt').read_text().split(),
    extras_require={'dev': ['hypothesis', 'mypy', 'pytest', 'pytest-xdist', 'ruff', *ONNX], 'onnx': ONNX},
    cmdclass={'build_py': BuildWithConfigs},
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
