"""The command line for ATC, what it refuses, and --run with a stand-in that records how it was called."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from amct_onnx import cli
from amct_onnx.errors import SettingError
from amct_onnx.verbs.atc.aipp import aipp_config
from amct_onnx.verbs.atc.command_line import atc_command
from amct_onnx.verbs.atc.error_codes import CODE, CODES, codes_in, explain
from amct_onnx.verbs.atc.options import EXCLUDED, OURS, normalise
from amct_onnx.verbs.atc.run import run_atc
from amct_onnx.verbs.check.rules import RULES
from support.deploy_models import good_model, set_attribute, set_initializer
from support.golden_models import MODEL_CASES, MODELS

SOC = "Ascend310P3"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net_deploy_model.onnx"
    path.write_bytes(good_model().SerializeToString())
    return path


def float_model(*inputs: tuple[str, int, list[int | str] | None]) -> Path:
    """A model of one Identity for each input."""
    nodes = [helper.make_node("Identity", [name], [f"{name}.out"], f"{name}.copy") for name, _, _ in inputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(f"{name}.out", kind, None) for name, kind, _ in inputs],
    )
    path = Path("float.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


Command = Callable[..., "Result"]


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the verb in this process; on the PATH is the given folder only, so that no real atc is found."""

    def run(*arguments: str | Path, path: Path | None = None) -> Result:
        monkeypatch.setenv("PATH", str(path if path is not None else Path("empty").resolve()))
        code = cli.main(["atc", *map(str, arguments)])
        return Result(code, *capfd.readouterr())

    return run


# -- the line -------------------------------------------------------------------------------------------------------


def test_line(command: Command, model: Path) -> None:
    result = command("--model", model, "--soc_version", SOC)
    assert (result.returncode, result.stderr) == (0, "")
    assert shlex.split(result.stdout) == [
        "atc",
        "--framework=5",
        f"--model={model}",
        f"--output={model.with_suffix('')}",
        f"--soc_version={SOC}",
        "--input_format=NCHW",
        "--input_shape=x:1,32,8,8",
    ]


def test_line_with_everything(command: Command, model: Path) -> None:
    Path("aipp.cfg").write_text("aipp_op {}")
    more = ["--output=om/net", "--input-shape", "x:1,32,8,8", "--input_format=ND", "--insert-op-conf", "aipp.cfg"]
    result = command("--model", model, "--soc-version", SOC, *more, "--", "--log=info", "--op-debug-level", "1")
    words = shlex.split(result.stdout)
    assert words[3] == "--output=om/net"
    assert words[5:] == [
        "--input_format=ND",
        "--input_shape=x:1,32,8,8",
        "--insert_op_conf=aipp.cfg",
        "--log=info",
        "--op_debug_level=1",
    ]


def test_shapes_and_formats(command: Command) -> None:
    path = float_model(("a:0", TensorProto.FLOAT, ["n", 10]), ("b", TensorProto.INT64, [4]))
    words = atc_command(path, SOC, input_shape="a:0:2,10").words
    assert words[-2:] == ("--input_format=ND", "--input_shape=a:0:2,10;b:4")
    volume = float_model(("v", TensorProto.FLOAT, [1, 2, 3, 4, 5]), ("b", TensorProto.INT64, [4]))
    assert "--input_format=NCDHW" in atc_command(volume, SOC).words
    mixed = float_model(("v", TensorProto.FLOAT, [1, 2, 3, 4, 5]), ("i", TensorProto.FLOAT, [1, 9, 3, 4]))
    assert "--input_format=ND" in atc_command(mixed, SOC).words


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, r"'a' is \[n, 10\].*input_shape 'a:1,10'"),
        ("c:1,10", "no input 'c'"),
        ("a:1", "has 2 dimensions"),
        ("a:1,11", "axis 1 of 'a' is 10"),
        ("a:0,10", "dimension of 0"),
        ("a:-1,10", "takes no -1"),
        ("a:1,10;a:1,10", "once for each"),
        ("1,10", "form name:1,3,224,224"),
        ("a:", "has 2 dimensions"),
    ],
)
def test_shape_that_does_not_fit(command: Command, shape: str | None, message: str) -> None:
    path = float_model(("a", TensorProto.FLOAT, ["n", 10]))
    with pytest.raises(SettingError, match=message):
        atc_command(path, SOC, input_shape=shape)


def test_unknown_rank_needs_a_shape(command: Command) -> None:
    path = float_model(("a", TensorProto.FLOAT, None))
    with pytest.raises(SettingError, match="'a' is unknown"):
        atc_command(path, SOC)
    assert atc_command(path, SOC, input_shape="a:1,2").words[-1] == "--input_shape=a:1,2"


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclusion", EXCLUDED, ids=lambda e: f"{e.option}={e.value}")
@pytest.mark.parametrize("dashes", [False, True])
def test_excluded_option_is_refused_with_its_reason(
    command: Command, model: Path, exclusion: object, dashes: bool
) -> None:
    (entry,) = [e for e in EXCLUDED if e is exclusion]
    name = entry.option.replace("_", "-") if dashes else entry.option
    result = command("--model", model, "--soc_version", SOC, "--", f"--{name}", entry.value or "1,2,4")
    assert (result.returncode, result.stdout) == (2, "")
    assert entry.reason in result.stderr and f"--{entry.option}" in result.stderr


def test_excluded_options_are_free_for_a_float_model(command: Command) -> None:
    path = float_model(("a", TensorProto.FLOAT, [1, 10]))
    option = "--precision_mode=force_fp32"
    assert atc_command(path, SOC, options=[option]).words[-1] == option


def test_other_value_of_an_excluded_option(command: Command, model: Path) -> None:
    option = "--precision_mode=allow_fp32_to_fp16"
    assert atc_command(model, SOC, options=[option]).words[-1] == option


@pytest.mark.parametrize("name", OURS)
def test_second_copy_is_refused(command: Command, model: Path, name: str) -> None:
    with pytest.raises(SettingError, match=f"--{name}"):
        atc_command(model, SOC, options=[f"--{name}=x"])


@pytest.mark.parametrize("words", [["log=info"], ["--log"], ["--log", "--x=1"], ["--"]])
def test_malformed_options(words: list[str]) -> None:
    with pytest.raises(SettingError, match="--name=value"):
        normalise(words)


def test_unknown_product_and_missing_files(command: Command, model: Path) -> None:
    with pytest.raises(SettingError, match="Ascend1"):
        atc_command(model, "Ascend1")
    with pytest.raises(SettingError, match=r"none\.cfg"):
        atc_command(model, SOC, insert_op_conf="none.cfg")
    with pytest.raises(FileNotFoundError):
        atc_command("none.onnx", SOC)


# -- what is not a deploy model ---------------------------------------------------------------------------------------


def test_qat_model_is_refused(command: Command) -> None:
    result = command("--model", MODELS / MODEL_CASES[0] / "model.onnx", "--soc_version", SOC)
    assert (result.returncode, result.stdout) == (2, "")
    assert "not a deploy model" in result.stderr and "amct_onnx convert" in result.stderr


def test_float_model_is_warned_of(command: Command) -> None:
    path = float_model(("a", TensorProto.FLOAT, [1, 10]))
    result = command("--model", path, "--soc_version", SOC)
    assert result.returncode == 1
    assert result.stdout.startswith("atc --framework=5") and "not a deploy model" in result.stderr
    folder = stand_in(0)
    result = command("--model", path, "--soc_version", SOC, "--run", path=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert "atc was not started" in result.stderr and not (folder / "called.json").exists()


def test_soc_version_is_required(command: Command, model: Path) -> None:
    result = command("--model", model)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--soc_version is missing" in result.stderr
    result = command("--model", model, "--soc_version", SOC, "--strict")
    assert result.returncode == 2 and "--om_json" in result.stderr


# -- files that options name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soc_version", "first", "count"),
    [
        ("Ascend310", "V100RequantFusionPass", 13),
        ("Ascend910A", "V100RequantFusionPass", 13),
        ("310P", "V200RequantFusionPass", 13),
        ("910B", "ConvConcatFusionPass", 12),
        ("310B", "ConvConcatFusionPass", 12),
        ("A3", "ConvConcatFusionPass", 12),
    ],
)
def test_comparable_dumps(command: Command, model: Path, soc_version: str, first: str, count: int) -> None:
    result = command("--model", model, "--soc_version", soc_version, "--comparable_dumps")
    assert result.returncode == 0
    path = model.with_name("net_deploy_model_fusion_switch.cfg")
    assert f"--fusion_switch_file={path}" in shlex.split(result.stdout)
    assert "--quant_dumpable=1" in shlex.split(result.stdout)
    assert f"wrote {path}" in result.stderr
    lines = path.read_text().splitlines()
    assert lines[0] == f"{first}:off" and len(lines) == len(set(lines)) == count
    assert "TbeConvDequantQuantFusionPass:off" in lines and all(line.endswith("Pass:off") for line in lines)


@pytest.mark.parametrize("soc_version", ["950", "IPV350"])
def test_comparable_dumps_where_no_list_is_public(command: Command, model: Path, soc_version: str) -> None:
    result = command("--model", model, "--soc_version", soc_version, "--comparable_dumps")
    assert (result.returncode, result.stdout) == (2, "") and "is not public" in result.stderr


def test_depthwise_layer_keeps_the_requant_pass(command: Command, model: Path) -> None:
    depthwise = good_model()
    set_initializer(depthwise, "conv.w", np.ones((32, 1, 3, 3), np.int8))
    set_attribute(depthwise, "conv", group=32)
    model.write_bytes(depthwise.SerializeToString())
    result = command("--model", model, "--soc_version", SOC, "--comparable_dumps")
    lines = model.with_name("net_deploy_model_fusion_switch.cfg").read_text().splitlines()
    assert len(lines) == 12 and "V200RequantFusionPass:off" not in lines
    assert "depthwise" in result.stderr


def test_file_of_the_user_is_not_replaced(command: Command, model: Path) -> None:
    path = model.with_name("net_deploy_model_fusion_switch.cfg")
    path.write_text("mine:off\n")
    result = command("--model", model, "--soc_version", SOC, "--comparable_dumps")
    assert (result.returncode, result.stdout) == (2, "")
    assert path.read_text() == "mine:off\n" and str(path) in result.stderr
    path.unlink()
    for _ in range(2):  # the second time it is there already, as it shall be
        assert command("--model", model, "--soc_version", SOC, "--comparable_dumps").returncode == 0


@pytest.mark.parametrize("soc_version", ["Ascend310P3", "Ascend310B1"])
def test_first_layer(command: Command, model: Path, soc_version: str) -> None:
    Path("aipp.cfg").write_text("aipp_op {}")
    more = ["--first_layer", "--insert_op_conf", "aipp.cfg", "--output", "om/net"]
    result = command("--model", model, "--soc_version", soc_version, *more)
    assert result.returncode == 0
    words = shlex.split(result.stdout)
    assert {"--compression_optimize_conf=om/net_compression_optimize.cfg", "--enable_small_channel=1"} <= set(words)
    assert Path("om/net_compression_optimize.cfg").read_text() == "enable_first_layer_quantization:true\n"
    assert "AIPP" in result.stderr


def test_first_layer_needs_aipp_and_a_chip_that_can(command: Command, model: Path) -> None:
    images = good_model()
    images.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    model.write_bytes(images.SerializeToString())
    result = command("--model", model, "--soc_version", SOC, "--first_layer")
    assert result.returncode == 2
    assert "--insert_op_conf" in result.stderr and "RGB888_U8" in result.stderr
    result = command("--model", model, "--soc_version", "910B", "--first_layer")
    assert result.returncode == 2 and "310P and 310B" in result.stderr
    assert [p.name for p in model.parent.iterdir() if p.suffix == ".cfg"] == []


@pytest.mark.parametrize("name", ["fusion_switch_file", "quant_dumpable"])
def test_option_that_a_request_writes_is_not_taken_twice(command: Command, model: Path, name: str) -> None:
    result = command("--model", model, "--soc_version", SOC, "--comparable_dumps", "--", f"--{name}=x")
    assert result.returncode == 2 and f"--{name}" in result.stderr
    assert command("--model", model, "--soc_version", SOC, "--", f"--{name}=x").returncode == 0


# -- AIPP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "name"), [(1, "YUV400_U8"), (3, "RGB888_U8")])
def test_hint_for_images(command: Command, channels: int, name: str) -> None:
    path = float_model(("image", TensorProto.FLOAT, ["n", channels, 20, 30]))
    result = command("--model", path, "--soc_version", SOC, "--input_shape", f"image:2,{channels},20,30")
    assert result.stdout.count("\n") == 1
    assert "--insert_op_conf" in result.stderr
    assert aipp_config((2, channels, 20, 30)) in result.stderr
    for text in (name, "src_image_size_w: 30", "src_image_size_h: 20", f"var_reci_chn_{channels - 1}:"):
        assert text in result.stderr


def test_uint8_input_needs_no_aipp(command: Command) -> None:
    path = float_model(("image", TensorProto.UINT8, [1, 3, 20, 30]))
    (hint,) = atc_command(path, SOC).hints
    assert "uint8 already" in hint and "aipp_op" not in hint


def test_no_hint_for_other_inputs(command: Command) -> None:
    path = float_model(("a", TensorProto.FLOAT, [1, 8, 20, 30]), ("b", TensorProto.INT64, [1, 3, 4, 4]))
    assert atc_command(path, SOC).hints == ()


# -- run ------------------------------------------------------------------------------------------------------------


def stand_in(code: int, *lines: str) -> Path:
    """A folder with an atc that records its arguments, prints lines on both streams and ends with code."""
    folder = Path("bin").resolve()
    folder.mkdir()
    program = folder / "atc"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        f"json.dump(sys.argv[1:], open({str(folder / 'called.json')!r}, 'w'))\n"
        f"for index, line in enumerate({list(lines)!r}):\n"
        "    print(line, file=sys.stderr if index % 2 else sys.stdout, flush=True)\n"
        f"sys.exit({code})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def test_run_passes_everything_through(command: Command, model: Path) -> None:
    folder = stand_in(0, "ATC start working now", "a warning", "ATC run success")
    result = command("--model", model, "--soc_version", SOC, "--run", "--", "--log=info", path=folder)
    assert result.returncode == 0
    assert result.stdout == "ATC start working now\na warning\nATC run success\n"
    expected = atc_command(model, SOC, options=["--log=info"]).words[1:]
    assert json.loads((folder / "called.json").read_text()) == list(expected)
    assert "Check for Ascend310P3" in result.stderr and "atc --framework=5" in result.stderr


def test_run_in_a_process_of_its_own(model: Path) -> None:
    folder = stand_in(0, "one", "two")
    line = [sys.executable, "-m", "amct_onnx", "atc", "--model", str(model), "--soc_version", SOC, "--run"]
    result = subprocess.run(line, env=os.environ | {"PATH": str(folder)}, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "one\ntwo\n")


def test_run_explains_codes_once(command: Command, model: Path) -> None:
    lines = ["ATC run failed", "E16002: No ONNX parser is registered", "[E16002] again", "EZ9999 E13009", "E1600234"]
    result = command("--model", model, "--soc_version", SOC, "--run", path=stand_in(255, *lines))
    assert result.returncode == 1
    assert result.stdout.splitlines() == lines
    assert result.stderr.count("E16002:") == 1 and explain("E13009") in result.stderr
    assert "E16002: no ONNX plugin is registered" in result.stderr
    assert "atc ended with exit code 255" in result.stderr


def test_run_checks_first(command: Command, model: Path) -> None:
    broken = good_model()
    set_attribute(broken, "conv", pads=[1, 1, 1])
    model.write_bytes(broken.SerializeToString())
    folder = stand_in(0)
    result = command("--model", model, "--soc_version", SOC, "--run", path=folder)
    assert (result.returncode, result.stdout) == (1, "")
    assert "odd-pads" in result.stderr and "atc was not started" in result.stderr
    assert not (folder / "called.json").exists()


def test_run_without_atc(command: Command, model: Path) -> None:
    result = command("--model", model, "--soc_version", SOC, "--run")
    assert (result.returncode, result.stdout) == (2, "")
    assert "set_env.sh" in result.stderr


def test_program_that_cannot_start() -> None:
    Path("atc").write_text("no program")
    Path("atc").chmod(0o700)
    with pytest.raises(SettingError, match="cannot be started"):
        run_atc(["atc"], str(Path("atc").resolve()), sys.stdout)


def test_codes_and_their_rules() -> None:
    known = {rule.id for rule in RULES}
    for code, entry in CODES.items():
        assert CODE.fullmatch(code)
        assert entry.meaning and entry.advice.endswith(".")
        assert set(entry.rules) <= known, code
    assert codes_in("x E16002 [EZ9999]: W11001, E123456 NE16002") == ["E16002", "EZ9999", "W11001"]
    for code in ("E13010", "E16005", "E19999", "E11010", "E10501", "EZ9999"):
        assert CODES[code].rules and explain(code).startswith(f"{code}: ")
    assert explain("E99999") == ""


def test_a_command_shows_its_line(model: Path) -> None:
    command = atc_command(model, SOC)
    assert command.summary() == shlex.join(command.words)
    assert repr(command).startswith(f"<AtcCommand: {command.summary()[:100]}") and len(repr(command)) < 300
