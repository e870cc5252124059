"""The logits and features of a teacher on disk, one record for each view of an image in a training.

A store is a folder:

======================================  ==========================================================================
``manifest.json``                       fingerprint of the views and the teacher, and the layout of the records
``teacher_weight.npy``                  weight of the linear classifier; its checksum is in the manifest
``teacher_bias.npy``                    its bias, if its input is the pooled map of the last stage
``epoch_E/rank_R/00000.npy``, ...       records of epoch E that process R made, in the order of its sampler; plain
                                        NumPy files of a structured type, see :mod:`mmcls_kd.teachers.records`
``epoch_E/rank_R/SHA256SUMS``           their checksums, as ``sha256sum -c`` takes them; a file is whole if it is here
======================================  ==========================================================================
"""

from ..teachers.store import TeacherStore

__all__ = ['TeacherStore']
