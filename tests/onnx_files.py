"""Reads and runs ONNX files, for tests marked `own_process`: onnxruntime starts a thread as soon as it is imported."""

import json

import torch


def onnx_session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


def about_onnx(session):
    """What the file says of itself."""
    return {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}


def run_onnx(session, images):
    """The logits (N, classes) of images (N, C, H, W)."""
    return torch.from_numpy(session.run(['logits'], {'images': images.numpy()})[0])
