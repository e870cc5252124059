# docker build -t mmcls_kd .
# docker run --rm -v "$PWD:/work" mmcls_kd train --help            with a GPU: --gpus all --shm-size 8g
#
# BASE     an image with Python 3.10 or newer. torch's own wheel brings CUDA's libraries along; a base that has torch already
#          (pytorch/pytorch:TAG) keeps it.
# EXTRAS   extras of docs/install.md
# PIP_ARGS further words for pip, such as the index of torch's wheels without CUDA
ARG BASE=python:3.11-slim
FROM ${BASE}

# OpenCV's wheel needs both
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

ARG EXTRAS=analysis,hf,onnx,timm
ARG PIP_ARGS=
COPY . /opt/mmcls_kd
RUN pip install --no-cache-dir ${PIP_ARGS} "/opt/mmcls_kd[${EXTRAS}]"

WORKDIR /work
ENTRYPOINT ["mmcls-kd"]
