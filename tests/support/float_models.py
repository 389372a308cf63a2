"""The float model that a Q/DQ model was before, and the same under other names."""

from __future__ import annotations

from pathlib import Path

import onnx


def without_quantizers(source: Path) -> onnx.ModelProto:
    """The source with every pair of QuantizeLinear and DequantizeLinear left out."""
    model = onnx.load(source)
    makers = {o: n for n in model.graph.node for o in n.output}
    passed = {n.output[0]: makers[n.input[0]].input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    kept = [n for n in model.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    for node in kept:
        node.input[:] = [passed.get(i, i) for i in node.input]
    for output in model.graph.output:
        made = passed.get(output.name)
        for node in kept:
            node.output[:] = [output.name if o == made else o for o in node.output]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.checker.check_model(model)
    return model


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Other names for the input and the output."""
    names = {model.graph.input[0].name: "pixels", model.graph.output[0].name: "scores"}
    for node in model.graph.node:
        node.input[:] = [names.get(i, i) for i in node.input]
        node.output[:] = [names.get(o, o) for o in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "pixels", "scores"
    return model
