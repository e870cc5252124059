"""A folder to a student in Python, at most ten lines; test_end_to_end.py runs it."""

import sys

import mmcls_kd

if __name__ == '__main__':
    data, weights, image = sys.argv[1:]
    student, result = mmcls_kd.distill(
        'timm:test_resnet', 'timm:resnet10t', data, teacher_weights=weights, size=32, epochs=4, baseline=True
    )
    predictor = mmcls_kd.Predictor(result.student_file)
    print(result.rows['alone'].top1, result.top1, predictor(image)[0][0], type(student).__module__)
