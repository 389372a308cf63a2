"""What the user set, as a report prints it."""

from __future__ import annotations

from amct_onnx.data.images import ImageOptions
from amct_onnx.verbs.compare.request import _changed


def test_image_options_are_told_in_words() -> None:
    assert _changed(ImageOptions()) == "default"
    assert _changed(ImageOptions(resize=(256,), mean=(0.5, 0.4, 0.3), layout="NHWC")) == (
        "resize 256; mean 0.5 0.4 0.3; layout NHWC"
    )
