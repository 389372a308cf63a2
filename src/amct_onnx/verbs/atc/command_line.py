"""The command line of ATC for one deploy model."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from amct_onnx.common.counted import counted
from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.common.plain_text import shown
from amct_onnx.common.shown_report import Shown
from amct_onnx.device.chips import find_chip, soc_version_of
from amct_onnx.errors import SettingError, UnsupportedModelError
from amct_onnx.verbs.atc.aipp import aipp_config, aipp_hint, is_image
from amct_onnx.verbs.atc.first_layer import COMPRESSION_TEXT, SMALL_CHANNEL, check_first_layer
from amct_onnx.verbs.atc.first_layer import HINT as FIRST_LAYER_HINT
from amct_onnx.verbs.atc.fusion_switch import fusion_switch_text, passes_to_switch_off
from amct_onnx.verbs.atc.options import normalise, refuse_excluded
from amct_onnx.verbs.check.load import load_for_check
from amct_onnx.verbs.check.model_view import DEFAULT_NAMES, ModelView
from amct_onnx.verbs.check.rules.operators import LEFTOVERS

ONNX_FRAMEWORK = 5
FORMATS = {4: "NCHW", 5: "NCDHW"}
"""Input format by rank; every other rank is ND."""


@dataclass(frozen=True, repr=False)
class AtcCommand(Shown):
    """One call of ATC; rich and notebooks show it as ``amct_onnx atc`` prints it.

    Attributes:
        words: program and arguments.
        hints: what the user may want to know, one paragraph each.
        warnings: why the line may not do what the user wants, one paragraph each.
        output: path that ATC appends .om to.
        files: path -> text of the files that the line names and that ``write_new_file`` must write.
    """

    SCREEN = "amct_onnx.verbs.atc.screen"

    words: tuple[str, ...]
    hints: tuple[str, ...]
    warnings: tuple[str, ...]
    output: str
    files: tuple[tuple[Path, str], ...]

    def summary(self) -> str:
        """The line as a shell takes it."""
        return shlex.join(self.words)


def atc_command(
    model_file: str | os.PathLike[str],
    soc_version: str,
    *,
    output: str | None = None,
    input_shape: str | None = None,
    input_format: Literal["NCHW", "NCDHW", "ND"] | None = None,
    insert_op_conf: str | None = None,
    first_layer: bool = False,
    comparable_dumps: bool = False,
    options: Iterable[str] = (),
) -> AtcCommand:
    """The right command line for a deploy model.

    Args:
        model_file: path of the .onnx file.
        soc_version: value of ATC's ``--soc_version``.
        output: where the .om goes, without ending; beside the model under its name when None.
        input_shape: ``name:1,3,224,224;other:1,10``; needed when the file leaves a dimension open.
        input_format: NCHW, NCDHW or ND; by the inputs' rank when None.
        insert_op_conf: AIPP configuration file.
        first_layer: keep a first convolution of few channels int8.
        comparable_dumps: switch off the fusions that make dumps incomparable with the model's nodes.
        options: further options of ATC, in either spelling.

    Raises:
        ModelFileError, ModelNotFoundError: The model cannot be read.
        UnsupportedModelError: It holds ONNX's quantizers, or an input has a name with control characters.
        SettingError: An option or shape does not fit the model or the chip, or is excluded for a quantized model.
    """
    soc, chip = soc_version_of(soc_version), find_chip(soc_version)
    model, _ = load_for_check(model_file)
    view = ModelView(model)
    warnings = _not_a_deploy_model(view, model_file)
    more = normalise(options)
    refuse_excluded(more, view.quantized)
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    shapes = _shapes(inputs, parse_input_shape(input_shape or "", SettingError))
    target = output if output is not None else str(Path(model_file).with_suffix(""))
    words = [
        "atc",
        f"--framework={ONNX_FRAMEWORK}",
        f"--model={os.fspath(model_file)}",
        f"--output={target}",
        f"--soc_version={soc}",
        f"--input_format={input_format or _format(shapes)}",
    ]
    if shapes:
        words.append("--input_shape=" + ";".join(f"{n}:{','.join(map(str, d))}" for n, d in shapes.items()))
    if insert_op_conf is not None:
        if not Path(insert_op_conf).is_file():
            raise SettingError(f"{insert_op_conf}: no such file. Give the AIPP configuration file.")
        words.append(f"--insert_op_conf={insert_op_conf}")
    hints = [] if insert_op_conf is not None else [aipp_hint(v, shapes[v.name or ""]) for v in inputs]
    files: list[tuple[Path, str]] = []
    if first_layer:
        images = [aipp_config(d) for d in shapes.values() if is_image(d)]
        check_first_layer(chip, insert_op_conf, images[0] if images else "")
        files.append((Path(f"{target}_compression_optimize.cfg"), COMPRESSION_TEXT))
        words += [f"--compression_optimize_conf={files[-1][0]}", SMALL_CHANNEL]
        hints.append(FIRST_LAYER_HINT)
    if comparable_dumps:
        passes = passes_to_switch_off(chip, view)
        files.append((Path(f"{target}_fusion_switch.cfg"), fusion_switch_text(passes)))
        words += [f"--fusion_switch_file={files[-1][0]}", "--quant_dumpable=1"]
        if passes != chip.switched_off:
            hints.append(
                "The model holds an int8 depthwise Conv, for which ATC's documentation wants the requant pass left on: "
                "the dumps behind it differ from the model's nodes."
            )
    _refuse_twice(words, more)
    if soc.casefold() != soc_version.casefold():
        hints.append(
            f"'{soc_version}' is compiled for as {soc}. Give the name that `npu-smi info` shows for another one."
        )
    return AtcCommand((*words, *more), tuple(h for h in hints if h), warnings, target, tuple(files))


def _not_a_deploy_model(view: ModelView, model_file: str | os.PathLike[str]) -> tuple[str, ...]:
    """Warnings on a model that is not a deploy model.

    Raises:
        UnsupportedModelError: It holds ONNX's quantizers, which ATC does not know.
    """
    leftovers = [n for n in view.names if n.op_type in LEFTOVERS and n.domain in DEFAULT_NAMES]
    if leftovers:
        raise UnsupportedModelError(
            f"{os.fspath(model_file)}: node '{view.names[leftovers[0]]}' is a {leftovers[0].op_type}, which ATC does "
            f"not "
            "know: this is a quantized ONNX model, not a deploy model. Run 'amct_onnx convert' and give the file "
            "..._deploy_model.onnx."
        )
    if not view.quantized:
        return (
            f"{os.fspath(model_file)}: holds no AscendQuant and no int8 layer: it is not a deploy model, and ATC will "
            "compile it as a float model. Give the file ..._deploy_model.onnx that 'amct_onnx convert' wrote.",
        )
    return ()


def _refuse_twice(words: list[str], more: tuple[str, ...]) -> None:
    """An option that this line writes and that the user gave as well.

    Raises:
        SettingError: There is one.
    """
    ours = {w.partition("=")[0] for w in words}
    for option in more:
        name = option.partition("=")[0]
        if name in ours:
            raise SettingError(f"{name} is written by --first_layer or --comparable_dumps. Give one of the two.")


def _format(shapes: dict[str, tuple[int, ...]]) -> str:
    formats = {FORMATS.get(len(dims), "ND") for dims in shapes.values()}
    image = formats - {"ND"}
    return image.pop() if len(image) == 1 else "ND"


def _shapes(inputs: list[ir.Value], given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The size of every input: what the user gave, else what the file says."""
    names = [v.name or "" for v in inputs]
    for name in given:
        if name not in names:
            raise SettingError(f"--input_shape: the model has no input '{name}'. Use one of {', '.join(names)}.")
    found: dict[str, tuple[int, ...]] = {}
    for value, name in zip(inputs, names, strict=True):
        if shown(name) != name:
            raise UnsupportedModelError(
                f"Input '{shown(name)}': no command line can hold its name: it has control characters, or thousands of "
                "characters. Rename it."
            )
        known = list(value.shape) if value.shape is not None else None
        if name in given:
            dims = given[name]
            _fits(name, dims, known)
        elif known is None or not all(isinstance(d, int) and d > 0 for d in known):
            dims_shown = "unknown" if known is None else "[" + ", ".join(str(d) for d in known) + "]"
            example = "1,3,224,224" if known is None else ",".join(str(d) if _fixed(d) else "1" for d in known)
            raise SettingError(
                f"The shape of input '{name}' is {dims_shown} in the file, and a quantized model is compiled for fixed "
                f"shapes. Give --input_shape, for example --input_shape '{name}:{example}'."
            )
        else:
            dims = tuple(int(d) for d in known if isinstance(d, int))
        found[name] = dims
    return found


def _fixed(dim: object) -> bool:
    return isinstance(dim, int) and dim > 0


def _fits(name: str, dims: tuple[int, ...], known: list[int | ir.SymbolicDim] | None) -> None:
    if known is None:
        return
    if len(dims) != len(known):
        raise SettingError(
            f"--input_shape: '{name}' has {counted(len(known), 'dimension')} in the file, "
            f"{counted(len(dims), 'was', 'were')} given. Give all."
        )
    for axis, (dim, fixed) in enumerate(zip(dims, known, strict=True)):
        if isinstance(fixed, int) and fixed > 0 and fixed != dim:
            raise SettingError(
                f"--input_shape: axis {axis} of '{name}' is {fixed} in the file, {dim} was given. Give {fixed}."
            )
