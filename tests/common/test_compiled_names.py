"""Names of the compiled model's operators and of dump files, and the layers that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_onnx.common.compiled_names import CompiledNames, flattened

LAYERS = ("/up/ConvTranspose", "fc", "fc_1", "conv_2", "a/b", "a_b", "Conv_0", "PartitionedCall_x_Conv2D_1")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("fc", "fc"),
        ("PartitionedCall_fc_MatMulV2_3", "fc"),
        ("PartitionedCall_fc_add_4", "fc"),
        ("PartitionedCall_fc_1_MatMulV2_3", "fc_1"),
        ("PartitionedCall_/up/ConvTranspose_Conv2DTranspose_0", "/up/ConvTranspose"),
        # as the name of a dump file
        ("PartitionedCall__up_ConvTranspose_Conv2DTranspose_12", "/up/ConvTranspose"),
        ("_up_ConvTranspose", "/up/ConvTranspose"),
        ("PartitionedCall_conv_2_UnsqueezeX_7", "conv_2"),
        ("a/b", "a/b"),
        ("a_b", "a_b"),
        # of two layers, a file name of both stands for neither
        ("PartitionedCall_a_b_Conv2D_0", "a_b"),
        # a layer of the model may be called so itself
        ("PartitionedCall_x_Conv2D_1", "PartitionedCall_x_Conv2D_1"),
        ("fc.dequant", None),
        ("PartitionedCall_other_Conv2D_1", None),
        ("PartitionedCall_fc_MatMulV2", None),
        ("PartitionedCall_", None),
        ("", None),
    ],
)
def test_layer_of_a_name(name: str, layer: str | None) -> None:
    assert CompiledNames(LAYERS).layer(name) == layer


def test_file_name_of_two_layers_is_of_neither() -> None:
    names = CompiledNames(["a/b", "a.b"])
    assert names.layer("a_b") is None
    assert names.layer("PartitionedCall_a/b_Conv2D_1") == "a/b"


@given(
    st.lists(st.text(alphabet="ab_/0. C", min_size=1, max_size=8), unique_by=flattened, min_size=1, max_size=5),
    st.sampled_from(["Conv2D", "MatMulV2", "add", "SqueezeY"]),
    st.integers(0, 10**6),
)
def test_every_expanded_name_leads_back(layers: list[str], operator: str, number: int) -> None:
    names = CompiledNames(layers)
    for layer in layers:
        expanded = f"PartitionedCall_{layer}_{operator}_{number}"
        assert names.layer(expanded) == names.layer(flattened(expanded)) == names.layer(layer) == layer
