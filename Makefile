# make demo | make test | make teacher | make glyphs_teacher | make docs      each on a fresh clone, with python3, make and pip alone
# PIP_ARGS=... are further words for pip, e.g. the index of torch's wheels without CUDA (the install page of torch names it).
# VENV=folder chooses the virtual environment, PYTHON=python3.11 the interpreter that makes it.
VENV ?= .venv
PYTHON ?= python3
PIP_ARGS ?=
BIN = $(VENV)/bin

.PHONY: demo test teacher glyphs_teacher docs

$(VENV)/installed: setup.py requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_ARGS) -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

teacher: $(VENV)/installed
	$(BIN)/python tools/fetch_fashion_mnist.py
	$(BIN)/python tools/train.py configs/fashion_mnist/resnet18-w16_9e.py --work-dir work_dirs/teacher
	cp "$$(ls -t work_dirs/teacher/epoch_9-*.pth | head -1)" configs/fashion_mnist/teacher.pth
	$(BIN)/python tools/train.py configs/fashion_mnist/vit-d64_8e.py --work-dir work_dirs/vit_teacher
	cp "$$(ls -t work_dirs/vit_teacher/epoch_8-*.pth | head -1)" configs/fashion_mnist/vit_teacher.pth
	$(BIN)/python tools/train.py configs/fashion_mnist/vit-d64_40e.py --work-dir work_dirs/vit_teacher_40e
	cp "$$(ls -t work_dirs/vit_teacher_40e/epoch_40-*.pth | head -1)" configs/fashion_mnist/vit_teacher_40e.pth

glyphs_teacher: $(VENV)/installed
	$(BIN)/python tools/make_glyphs.py
	$(BIN)/python tools/train.py configs/glyphs/teacher.py --work-dir work_dirs/glyphs_teacher
	cp "$$(ls -t work_dirs/glyphs_teacher/epoch_10-*.pth | head -1)" configs/glyphs/teacher.pth

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
