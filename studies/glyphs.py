"""Every method on Glyphs, 100 classes of letters and digits: one pair, five seeds, whole trainings of eight epochs.

python tools/study.py studies/glyphs.py
"""

title = 'Glyphs'
report = '../docs/glyphs.md'
seeds = [0, 1, 2, 3, 4]
shared_teacher = 'maps'  # one stored teacher a seed for methods on logits or vectors, others for those on maps
pairs = dict(
    cnn=dict(
        title='ResNet-18 teaches a ResNet-18 of a third of its width',
        student='configs/glyphs/student.py',
        distillers=[
            'configs/distillers/glyphs/res18-w12_distill_res18-w4_glyphs.py',
            'configs/distillers/glyphs/res18-w12_distill_res18-w4_two-views_glyphs.py',
            'configs/distillers/glyphs/res18-w4_sd_glyphs.py',
        ],
        settings=dict(crd=dict(nce_k=1024)),  # the authors' 16,384 among 50,000 images would take hours here
    ),
)
