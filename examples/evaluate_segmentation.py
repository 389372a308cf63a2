"""mIoU of a model that labels pixels: `amct_onnx compare --evaluator examples/evaluate_segmentation.py`.

The first output holds scores [samples, classes, height, width], the labels are classes [samples, height, width]; pixels
of the class IGNORED do not count. Needs `pip install 'amct_onnx[metrics]'` (pycocotools).
"""

import numpy as np
from pycocotools import mask

IGNORED = 255


def evaluate(outputs, feeds, labels):
    """Pixels in which prediction and label agree, and pixels that either of them has, of each class and sample."""
    scores = next(iter(outputs.values()))
    found = np.where(labels == IGNORED, IGNORED, scores.argmax(axis=1))
    areas = {}
    for number in range(scores.shape[1]):
        pairs = [(_encoded(a == number), _encoded(b == number)) for a, b in zip(found, labels, strict=True)]
        areas[f"both {number}"] = [mask.area(mask.merge(list(pair), intersect=True)) for pair in pairs]
        areas[f"either {number}"] = [mask.area(mask.merge(list(pair))) for pair in pairs]
    return areas


def finish(sums, samples):
    """The mean over the classes that occur of agreeing pixels / pixels of either."""
    classes = len(sums) // 2
    shares = [sums[f"both {n}"] / sums[f"either {n}"] for n in range(classes) if sums[f"either {n}"]]
    return {"mIoU": sum(shares) / len(shares) if shares else 0.0}


def _encoded(pixels):
    return mask.encode(np.asfortranarray(pixels, np.uint8))
