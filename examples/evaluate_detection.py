"""COCO's mAP of a detector: `amct_onnx compare --evaluator examples/evaluate_detection.py`.

The first output is that of the YOLO family without its NMS: [samples, 4 + classes, boxes], each box as centre x, centre
y, width and height in pixels, then a score in 0 to 1 for each class. The labels are [samples, boxes, 5]: class, left,
top, width, height in pixels; rows of class -1 fill up. Needs `pip install 'amct_onnx[metrics]'` (pycocotools).
"""

import contextlib
import io

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

LEAST_SCORE = 0.001
MAX_BOXES = 100
OVERLAP = 0.7


def collect(outputs, feeds, labels):
    """What is kept of each image: its boxes after NMS, and those that it should have."""
    return [
        {"found": _boxes(o), "true": t[t[:, 0] >= 0]} for o, t in zip(next(iter(outputs.values())), labels, strict=True)
    ]


def score(records):
    """mAP over IoU 0.5 to 0.95, and at 0.5; 0 when nothing was found."""
    truth = [(i, *box) for i, record in enumerate(records) for box in record["true"]]
    found = [(i, *box) for i, record in enumerate(records) for box in record["found"]]
    if not truth or not found:
        return {"mAP": 0.0, "mAP50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints tables
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(records))],
            "categories": [{"id": n} for n in sorted({int(t[1]) for t in truth})],
            "annotations": [
                {"id": n, "image_id": i, "category_id": int(c), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                for n, (i, c, *box) in enumerate(truth, 1)
            ],
        }
        coco.createIndex()
        results = [{"image_id": i, "category_id": int(c), "score": s, "bbox": box} for i, c, s, *box in found]
        evaluated = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return {"mAP": evaluated.stats[0], "mAP50": evaluated.stats[1]}


def _boxes(output):
    """[class, score, left, top, width, height] of one image, the best first."""
    scores, classes = output[4:].max(axis=0), output[4:].argmax(axis=0)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= LEAST_SCORE]
    boxes = np.concatenate([output[:2] - output[2:4] / 2, output[2:4]]).T[order].astype(np.float64)
    kept = []
    for n, box in enumerate(boxes):
        same = [k for k in kept if classes[order[k]] == classes[order[n]]]
        if not same or mask.iou(box[None], boxes[same], [0] * len(same)).max() <= OVERLAP:
            kept.append(n)
        if len(kept) == MAX_BOXES:
            break
    return [[int(classes[order[n]]), float(scores[order[n]]), *boxes[n].tolist()] for n in kept]
