"""Methods on embeddings alone: for teachers without classes, for any others, and for images without labels.

The kind of `embedding` is UNIC's; the temperature and the size of the queue are LightlyTrain's first method's. `rkd`, `pkt` and
`cc` of any_pair.py and the methods of maps.py need no classes either.
"""

on_embeddings = dict(
    embedding=dict(type='EmbeddingLoss', kind='both'),
    queue=dict(type='QueueLoss', queue_size=8192, tau=0.07),
)
