"""What ATC's error codes mean on a deploy model; the codes are those of ge's error tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

CODE = re.compile(r"\b[EW][0-9A-Z][0-9]{4}\b")
"""How a code looks in ATC's output."""


@dataclass(frozen=True)
class ErrorCode:
    """One code of ATC.

    Attributes:
        meaning: what ATC says with it.
        advice: what is behind it on a deploy model, and what to do.
        rules: rules of ``amct_onnx check`` that find the cause beforehand.
    """

    meaning: str
    advice: str
    rules: tuple[str, ...] = ()


CODES: dict[str, ErrorCode] = {
    "E10001": ErrorCode("an argument has an invalid value", "Compare the option with `atc --help` of your version."),
    "E10002": ErrorCode("--input_shape is malformed", "Write name:1,3,224,224;other:1,10 with the file's input names."),
    "E10003": ErrorCode("an option has an invalid value", "Compare the option with `atc --help` of your version."),
    "E10004": ErrorCode("an option is empty", "Give the option a value or leave it out."),
    "E10007": ErrorCode("a required option is missing", "Use the line that `amct_onnx atc` prints."),
    "E10009": ErrorCode("dynamic-shape options exclude each other", "Leave all of them out for a quantized model."),
    "E10011": ErrorCode("--input_shape has a number that is not positive", "A quantized model takes fixed sizes."),
    "E10013": ErrorCode("an option is out of range", "Compare the option with `atc --help` of your version."),
    "E10014": ErrorCode(
        "an option has an invalid value",
        "Often --soc_version: take the name from `npu-smi info`, with 'Ascend' in front.",
    ),
    "E10016": ErrorCode("an option names a node that the model does not have", "Use the file's own input names."),
    "E10021": ErrorCode("a path is too long", "Use a shorter path."),
    "E10034": ErrorCode("AIPP feeds an input that is declared float16", "Leave --input_fp16_nodes or AIPP out."),
    "E10041": ErrorCode(
        "the model cannot be loaded",
        "Check the path, that external data lies beside the model, and that the file is below 2 GB.",
        ("external-missing", "external-absolute", "file-too-large"),
    ),
    "E10049": ErrorCode("--input_shape has another number of dimensions than the input", "Give every dimension."),
    "E10052": ErrorCode("the AIPP configuration is invalid", "Compare sizes and format with the model's input."),
    "E10054": ErrorCode("a required option is empty", "Quote values that hold ';' or ':'."),
    "E10501": ErrorCode(
        "no operator prototype is registered",
        "The parser knew the ONNX operator, but not the operator that it makes of it. Source the set_env.sh of CANN "
        "(ASCEND_OPP_PATH), and install the operator package of the product; a plugin of an experimental folder "
        "brings its own prototype.",
        ("operator-unproven",),
    ),
    "E11010": ErrorCode(
        "an operator's parameters cannot be parsed",
        "The message names the node; one called <tensor>_Initializer_<n> or of type Constant or Input is a tensor "
        "whose element type the parser does not read. Otherwise the plugin refused the node's attributes.",
        (
            "constant-type",
            "constant-int4",
            "input-type",
            "input-int4",
            "constant-without-data",
            "conv-geometry",
            "conv-transpose-kernel-shape",
            "odd-pads",
            "conv-auto-pad-3d",
            "empty-input",
        ),
    ),
    "E13000": ErrorCode("a path does not exist", "Check --model, --output and --insert_op_conf."),
    "E13001": ErrorCode("a file cannot be opened", "Check its path and permissions."),
    "E13005": ErrorCode(
        "the model cannot be parsed", "The file is not a valid ONNX model, or was cut off while copying."
    ),
    "E13009": ErrorCode(
        "two nodes have one name", "Rename one of them; inputs and constants count as well.", ("duplicate-name",)
    ),
    "E13010": ErrorCode(
        "no plugin is registered for domain::version::operator",
        "Read the three parts of the type: another domain than ai.onnx, a version outside of 11 to 18, a leftover "
        "quantizer, or an operator that ATC does not have at this version. Convert the QAT model with `amct_onnx "
        "convert`, which also rewrites operators that the specification gives a body for.",
        (
            "operator-not-registered",
            "operator-newer",
            "foreign-domain",
            "leftover-quantizer",
            "no-plugin",
            "local-functions",
        ),
    ),
    "E14001": ErrorCode(
        "an operator's arguments do not fit it",
        "The message names the node: compare its inputs' types and shapes with the operator.",
        ("weight-type", "bias-type", "ascend-inputs"),
    ),
    "E16001": ErrorCode(
        "the model has no input or no output", "Export it again.", ("no-graph-input", "no-graph-output")
    ),
    "E16002": ErrorCode(
        "no ONNX plugin is registered for domain::version::operator",
        "As E13010, which comes first in current versions: read the three parts.",
        ("operator-not-registered", "operator-newer", "foreign-domain", "leftover-quantizer", "local-functions"),
    ),
    "E16004": ErrorCode("the model has no graph", "The file is not a model, or was cut off while copying."),
    "E16005": ErrorCode(
        "the model has several opset_import entries",
        "Releases up to CANN 9.1 take one entry, used or not. Keep that of the default domain only.",
        ("opset-entries", "domain-newer"),
    ),
    "E19999": ErrorCode(
        "an inner error",
        "The text behind it tells: 'data_type ... not support' or 'is undefined' is a tensor's element type; 'Resolve "
        "operator IO name failed' is an input or output too many; 'Model parse to graph failed' only says that an "
        "error above it stopped the parser. Else read the log that --log=debug writes.",
        (
            "constant-type",
            "input-type",
            "constant-without-data",
            "input-count",
            "output-count",
            "ascend-inputs",
            "if-attributes",
            "branch-output-captured",
            "opset-missing",
            "output-not-produced",
            "input-not-produced",
            "cycle",
            "deq-scale-rank",
            "deq-scale-variable",
        ),
    ),
    "EZ3003": ErrorCode(
        "no kernel of the product takes an operator with these types and shapes",
        "The message names the node. Install the operator package of exactly this product; an int8 node has no kernel "
        "when its chain is broken or the product has no int8 form of it.",
        ("conv-3d", "conv-transpose-3d", "chain", "chain-offset", "int8-reader", "weight-type", "bias-type"),
    ),
    "EZ9999": ErrorCode(
        "an inner error while operators are selected or compiled",
        "The lines around it name the operator, often with a TBE or Python traceback. First check that CANN's Python "
        "packages and set_env.sh belong to one version and to the product of --soc_version; then whether the named "
        "operator is an int8 layer whose chain is broken. --log=debug and --op_debug_level=1 show its arguments.",
        ("conv-axes", "conv-3d", "conv-3d-dilation", "chain", "chain-offset", "weight-type", "bias-type"),
    ),
}


def codes_in(line: str) -> list[str]:
    """The codes of a line of ATC's output."""
    return CODE.findall(line)


def explain(code: str) -> str:
    """One paragraph on a code; "" when it is not known."""
    entry = CODES.get(code)
    if entry is None:
        return ""
    rules = f" Rules of `amct_onnx check`: {', '.join(entry.rules)}." if entry.rules else ""
    return f"{code}: {entry.meaning}. {entry.advice}{rules}"
