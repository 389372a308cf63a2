"""Reading data sets, and the simulate command as a user types it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from amct_onnx import DataError, DeploySession, OutputError, cli
from amct_onnx.cli.options import DEVICE_NAMES
from amct_onnx.common.input_shape import parse_input_shape
from amct_onnx.data.input_spec import InputSpec, specs_of
from amct_onnx.data.read_feeds import read_feeds
from amct_onnx.device.profiles import PROFILES
from amct_onnx.verbs.simulate.simulate import simulate
from support.converted_cases import feeds_of
from support.deploy_evaluator import Evaluator
from support.fault_injection import whole_tree
from support.golden_models import GOLDENS
from support.typed_command import command, in_process

NET = GOLDENS / "qat" / "net" / "m_deploy_model.onnx"
F32 = np.dtype(np.float32)
FIXED = (InputSpec("x", (2, 3), F32),)
FREE = (InputSpec("x", ("batch", 3), F32),)
PAIR = (InputSpec("a/x", (1, 3), F32), InputSpec("b", (1,), np.dtype(np.int64)))
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def xs(data: str | Path, inputs: tuple[InputSpec, ...], text: str = "") -> list[list[list[float]]]:
    return [f["x"].tolist() for f in read_feeds(data, inputs, parse_input_shape(text, DataError))]


@pytest.mark.parametrize("suffix", ["npy", "npz", "bin"])
def test_one_file_is_cut_by_the_fixed_batch(suffix: str) -> None:
    path = f"d.{suffix}"
    if suffix == "npy":
        np.save(path, ROWS)
    elif suffix == "npz":
        np.savez(path, x=ROWS, label=np.arange(4))
    else:
        ROWS.tofile(path)
    assert xs(path, FIXED) == [ROWS[:2].tolist(), ROWS[2:].tolist()]
    if suffix == "bin":
        assert xs(path, FREE, "x:1,3") == [[row] for row in ROWS.tolist()]
        with pytest.raises(DataError, match="free"):
            xs(path, FREE)
    else:
        assert xs(path, FREE) == [ROWS.tolist()]
        assert xs(path, FREE, "x:4,3") == [ROWS.tolist()]
        assert len(xs(path, FREE, "x:1,3")) == 4


def test_npz_of_one_input_needs_no_name() -> None:
    np.savez("d.npz", images=ROWS, y=np.arange(4))
    assert xs("d.npz", FREE) == [ROWS.tolist()]
    np.savez("d.npz", images=ROWS, masks=ROWS)
    with pytest.raises(DataError, match="images, masks but no 'x'"):
        xs("d.npz", FREE)


@pytest.mark.parametrize("suffix", ["npy", "bin"])
def test_a_large_file_is_read_as_far_as_its_feeds_go(suffix: str) -> None:
    """Memory holds one feed at a time, of a file that could not be held at all."""
    rows, width = 2**22, 2**16
    shape = (rows, width)  # 1 TiB, all holes
    path = Path(f"d.{suffix}")
    start = 0
    if suffix == "npy":
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]
            start = file.tell()
    try:
        path.touch()
        os.truncate(path, start + 4 * rows * width)
    except OSError:
        pytest.skip("the file system holds no file of 1 TiB with holes")
    feeds = read_feeds(path, (InputSpec("x", ("n", width), F32),), {"x": (2, width)})
    assert [next(feeds)["x"].shape for _ in range(3)] == [(2, width)] * 3


def test_folders() -> None:
    Path("one").mkdir()
    for name in ("b", "a"):
        np.save(f"one/{name}.npy", ROWS[:2] + ord(name))
    Path("one/notes.txt").write_text("not data")
    assert [f[0][0] for f in xs("one", FIXED)] == [97, 98]
    for folder in ("two/a_x", "two/b"):
        Path(folder).mkdir(parents=True)
    for index in range(2):
        np.save(f"two/a_x/{index}.npy", ROWS[index : index + 1])
        np.array([index]).tofile(f"two/b/{index}.bin")
    feeds = list(read_feeds("two", PAIR))
    assert [f["a/x"].tolist() for f in feeds] == [[r] for r in ROWS[:2].tolist()]
    assert [f["b"].tolist() for f in feeds] == [[0], [1]]
    Path("three").mkdir()
    np.savez("three/0.npz", **{"a/x": ROWS, "b": np.arange(4)})
    assert [(f["a/x"].tolist(), f["b"].tolist()) for f in read_feeds("three", PAIR)] == [
        ([row], [i]) for i, row in enumerate(ROWS.tolist())
    ]


def test_arrays_with_objects_are_never_read() -> None:
    np.save("d.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array"):
        xs("d.npy", FREE)


def write(kind: str) -> tuple[str, tuple[InputSpec, ...], str]:
    """A data set that does not fit; its path, the inputs and the option."""
    text = ""
    inputs: tuple[InputSpec, ...] = FIXED
    path = "d.npy"
    if kind == "missing":
        return "none.npz", FIXED, ""
    if kind == "dtype":
        np.save(path, ROWS.astype(np.float64))
    elif kind == "shape":
        np.save(path, ROWS.T)
    elif kind == "batch":
        np.save(path, ROWS[:3])
    elif kind == "no array":
        Path(path).write_text("text")
    elif kind == "no input":
        path = "d.npz"
        np.savez(path, w=ROWS, z=ROWS)
    elif kind == "two inputs":
        np.save(path, ROWS)
        inputs = PAIR
    elif kind == "different numbers":
        path, inputs = "d.npz", PAIR
        np.savez(path, **{"a/x": ROWS, "b": np.arange(3)})
    elif kind == "size":
        path = "d.bin"
        ROWS.reshape(-1)[:7].tofile(path)
    elif kind == "empty folder":
        path = "empty"
        Path(path).mkdir()
    elif kind == "suffix":
        path = "d.txt"
        Path(path).write_text("x")
    elif kind == "unknown input":
        np.save(path, ROWS)
        text = "z:1,3"
    elif kind == "option":
        path, text = "d.bin", "x:3,3"
        ROWS.tofile(path)
    elif kind == "rest of the shape":
        np.save(path, ROWS)
        inputs, text = (InputSpec("x", ("batch", "width"), F32),), "x:1,4"
    elif kind == "no multiple":
        np.save(path, ROWS)
        inputs, text = FREE, "x:3,3"
    elif kind == "folders":
        path, inputs = "two", PAIR
        for name in ("two/a_x", "two/b"):
            Path(name).mkdir(parents=True)
        np.save("two/a_x/0.npy", ROWS[:1])
    return path, inputs, text


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("dtype", "is float64, the model takes float32"),
        ("shape", r"has shape \[3, 4\]"),
        ("batch", r"has shape \[3, 3\]"),
        ("no array", "cannot be read"),
        ("no input", "holds w, z but no 'x'"),
        ("two inputs", "the model has 2 inputs"),
        ("different numbers", "different numbers of feeds"),
        ("size", "28 bytes are not a multiple of 24"),
        ("empty folder", "holds no"),
        ("suffix", "ends in none of"),
        ("unknown input", "no input 'z'"),
        ("option", r"\[3, 3\] does not fit"),
        ("folders", "not named as those"),
        ("rest of the shape", r"has shape \[4, 3\].* input_shape says \[1, 4\]"),
        ("no multiple", r"has shape \[4, 3\].* input_shape says \[3, 3\]"),
    ],
)
def test_data_that_does_not_fit(kind: str, message: str) -> None:
    path, inputs, text = write(kind)
    with pytest.raises(DataError, match=message):
        list(read_feeds(path, inputs, parse_input_shape(text, DataError)))


def test_inputs_of_a_session() -> None:
    assert specs_of(DeploySession(NET)) == (InputSpec("x", (1, 3, 16, 16), F32),)


def test_devices_of_the_command_are_all_there_are() -> None:
    assert all(re.search(rf"\b{name}\b", DEVICE_NAMES) for name in PROFILES)


@pytest.mark.parametrize("file_format", ["npy", "bin"])
def test_dump_of_layers(file_format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = feeds_of("qat/net")["x"]
    np.concatenate([x, -x]).tofile("d.bin")
    arguments = ["--model", NET, "--data", "d.bin", "--input_shape", "x:1,3,16,16", "--save_path", "out", "--json"]
    result = in_process(capsys, "simulate", *arguments, "--dump", "layers", "--format", file_format)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    written = json.loads(Path("out/simulation.json").read_text())
    files = {f["name"]: (f["size"], f["sha256"]) for f in written.pop("files")}
    assert facts == written
    found = {str(p.relative_to("out")): p.read_bytes() for p in Path("out").glob("0*/*")}
    assert files == {n: (len(c), hashlib.sha256(c).hexdigest()) for n, c in found.items()}
    assert (facts["feeds"], facts["device"], len(facts["layers"])) == (2, "reference", 5)
    assert facts["layers"][0]["counts"]["values"] == 2 * x.size

    def read(path: str, dtype: type[np.generic]) -> np.ndarray:
        file = f"out/{path}.{file_format}"
        return np.load(file).reshape(-1) if file_format == "npy" else np.fromfile(file, dtype)

    for index, feed in enumerate((x, -x)):
        evaluator = Evaluator(NET)
        outputs = evaluator.run({"x": feed})
        folder = f"{index:06d}"
        assert np.array_equal(read(f"{folder}/y", np.float32), outputs["y"].reshape(-1))
        nodes = {n.name: n for n in evaluator.model.graph.node}
        for layer in facts["layers"]:
            plain = layer["name"].replace("/", "_")
            stem = f"{folder}/{layer['op_type']}.{plain}"
            node, behind = nodes[layer["name"]], nodes[layer["dequantizer"]]
            for name, dtype, tensor in (
                (f"{stem}.input.0", np.int8, node.input[0]),
                (f"{stem}.output.0", np.int32, behind.input[0]),
                (f"{folder}/AscendDequant.{plain}_dequant.output.0", np.float32, behind.output[0]),
            ):
                ours, expected = read(name, dtype), evaluator.values[tensor].reshape(-1)
                assert ours.dtype == dtype and np.array_equal(ours, expected)
    assert len(list(Path("out/000001").iterdir())) == 16


def test_table_and_device(capsys: pytest.CaptureFixture[str]) -> None:
    data = GOLDENS / "qat" / "net" / "io.npz"
    line = ["simulate", "--model", NET, "--data", data, "--device", "a2", "--save-path", "out"]
    result = in_process(capsys, *line)
    assert (result.returncode, result.stderr) == (0, "")
    for node in ("/c1/Conv", "/up/ConvTranspose", "/fc/Gemm", "Not public: What AscendQuant makes of a NaN"):
        assert node in result.stdout
    (y,) = DeploySession(NET, device="a2").run(None, feeds_of("qat/net"))
    assert np.array_equal(np.load("out/000000/y.npy"), y)
    assert sorted(p.name for p in Path("out/000000").iterdir()) == ["y.npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are UTF-8")
def test_names_of_files_that_are_not_utf8() -> None:
    data = os.fsdecode(b"three\xff.npz")
    shutil.copy(GOLDENS / "qat" / "net" / "io.npz", data)
    result = command("simulate", "--model", NET, "--data", data, "--save_path", "out")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(Path("out/simulation.json").read_text("utf-8"))["data"] == r"three\udcff.npz"


def listing(folder: str) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def test_a_second_run_replaces_the_first() -> None:
    x = feeds_of("qat/net")["x"]
    np.save("three.npy", np.concatenate([x, -x, x]))
    np.save("one.npy", -x)
    simulate(NET, "three.npy", "out", dump_layers=True)
    assert len(listing("out")) == 3 * 16 + 1
    assert simulate(NET, "one.npy", "out", file_format="bin").feeds == 1
    assert listing("out") == ["000000/y.bin", "simulation.json"]
    (y,) = DeploySession(NET).run(None, {"x": -x})
    assert np.fromfile("out/000000/y.bin", np.float32).tobytes() == y.tobytes()
    Path("out/000000/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"000000/notes\.txt: is not in the list of simulation\.json"):
        simulate(NET, "one.npy", "out")
    assert listing("out") == ["000000/notes.txt", "000000/y.bin", "simulation.json"]


OTHERS = {
    "no facts": ("000000: no simulation.json beside it", lambda out: (out / "simulation.json").unlink()),
    "not JSON": ("simulation.json: does not list", lambda out: (out / "simulation.json").write_text("[" * 99_999)),
    "no list": ("simulation.json: does not list", lambda out: (out / "simulation.json").write_text('{"feeds": 1}')),
    "odd list": (
        "simulation.json: lists a file in a form",
        lambda out: (out / "simulation.json").write_text('{"files": [{"name": "../x.npy", "size": 1, "sha256": ""}]}'),
    ),
    "facts that are a folder": (
        "simulation.json: is not a regular file",
        lambda out: (out / "simulation.json").unlink() or (out / "simulation.json").mkdir(),
    ),
    "facts that are a link": (
        "simulation.json: is not a regular file",
        lambda out: (out / "simulation.json").rename("away") and (out / "simulation.json").symlink_to("../away"),
    ),
    "facts that are a pipe": (
        "simulation.json: is not a regular file",
        lambda out: (out / "simulation.json").unlink() or os.mkfifo(out / "simulation.json"),
    ),
    "a file more": (r"000001/z\.npy: is not in the list", lambda out: (out / "000001" / "z.npy").write_bytes(b"")),
    "a folder more": ("000007: is not in the list", lambda out: (out / "000007").mkdir()),
    "a file less": (r"000001/y\.npy: is in the list .* and gone", lambda out: (out / "000001" / "y.npy").unlink()),
    "a feed less": ("lists 000001, which is gone", lambda out: (out / "000001").rename("away")),
    "other bytes": (
        r"000000/y\.npy: is not what the simulation wrote",
        lambda out: (out / "000000" / "y.npy").write_bytes(bytes((out / "000000" / "y.npy").stat().st_size)),
    ),
    "a link to a file": (
        r"000000/y\.npy: is not a regular file",
        lambda out: (out / "000000" / "y.npy").rename("away") and (out / "000000" / "y.npy").symlink_to("../../away"),
    ),
    "a link to a feed": (
        "000001: is not a folder",
        lambda out: (out / "000001").rename("away") and (out / "000001").symlink_to("../away"),
    ),
}
"""What may lie in the folder that no simulation wrote like this: the message, and what makes it."""


@pytest.mark.parametrize("kind", OTHERS)
def test_what_no_simulation_wrote_is_not_replaced(tmp_path: Path, kind: str) -> None:
    message, change = OTHERS[kind]
    x = feeds_of("qat/net")["x"]
    np.save("two.npy", np.concatenate([x, -x]))
    simulate(NET, "two.npy", "out")
    change(Path("out"))
    before = whole_tree(tmp_path)
    with pytest.raises(OutputError, match=message):
        simulate(NET, "two.npy", "out")
    after = whole_tree(tmp_path)
    assert [n for n in after | before if after.get(n) != before.get(n) and "amct_log" not in n] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_results_of_another_user_are_not_replaced() -> None:
    np.save("one.npy", feeds_of("qat/net")["x"])
    simulate(NET, "one.npy", "out")
    for path in ("out/000000", "out/000000/y.npy", "out/simulation.json"):
        os.chown(path, 65534, 65534)
        with pytest.raises(OutputError, match=f"{os.path.basename(path)}: belongs to another user"):
            simulate(NET, "one.npy", "out")
        os.chown(path, 0, 0)


@pytest.mark.parametrize("data", ["out/000000", "out/000000/y.npy", "link"])
def test_results_that_the_run_reads_are_not_replaced(data: str, tmp_path: Path) -> None:
    np.save("one.npy", feeds_of("qat/net")["x"])
    simulate(NET, "one.npy", "out")
    Path("link").symlink_to("out/000000")
    before = whole_tree(tmp_path)
    with pytest.raises(OutputError, match="lies among the earlier results"):
        simulate(NET, data, "out")
    assert whole_tree(tmp_path) == before


def test_what_comes_while_a_run_goes_on_is_not_replaced() -> None:
    """Verified at the start, and again when the results are put in place."""
    x = feeds_of("qat/net")["x"]
    np.save("two.npy", np.concatenate([x, -x]))
    np.save("three.npy", np.concatenate([x, -x, x]))
    simulate(NET, "two.npy", "out")

    def meddle(done: int, total: int | None) -> None:
        Path("out/000000/notes.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"notes\.txt: is not in the list"):
        simulate(NET, "two.npy", "out", progress=meddle)
    Path("out/000000/notes.txt").unlink()
    simulate(NET, "three.npy", "out", progress=lambda done, total: Path("out/2").mkdir(exist_ok=True))
    assert len(listing("out")) == 4


def test_two_runs_into_one_folder_leave_the_results_of_one() -> None:
    x = feeds_of("qat/net")["x"]
    np.save("five.npy", np.concatenate([x, -x, x, -x, x]))
    np.save("three.npy", np.concatenate([x, -x, x]))
    runs = [("five.npy", "npy"), ("three.npy", "bin")]
    threads = [
        threading.Thread(target=simulate, args=(NET, data, "out"), kwargs={"file_format": kind, "dump_layers": True})
        for data, kind in runs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    facts = json.loads(Path("out/simulation.json").read_text())
    kind, feeds = ("npy", 5) if facts["data"] == "five.npy" else ("bin", 3)
    files = [p for p in Path("out").rglob("*") if p.is_file() and p.name != "simulation.json"]
    assert facts["feeds"] == feeds and len(files) == feeds * 16 and {p.suffix for p in files} == {f".{kind}"}
    assert {p.name for p in Path("out").iterdir()} == {*(f"{i:06d}" for i in range(feeds)), "simulation.json"}


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (signal.SIGINT, 130, "amct_onnx: interrupted."),
        (signal.SIGTERM, 143, "amct_onnx: ended by SIGTERM."),
        pytest.param(signal.SIGHUP, 129, "amct_onnx: ended by SIGHUP.", marks=pytest.mark.slow),
    ],
)
def test_a_signal_costs_an_earlier_run_nothing(number: signal.Signals, code: int, text: str, ignored: bool) -> None:
    """One that is ignored from the start, as under nohup, ends nothing."""
    x = feeds_of("qat/net")["x"]
    np.save("one.npy", x)
    np.save("many.npy", np.concatenate([x] * (40 if ignored else 5000)))
    simulate(NET, "one.npy", "out")
    before = whole_tree(Path("out"))

    def dispositions() -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        if ignored:
            signal.signal(number, signal.SIG_IGN)

    arguments = ["--model", NET, "--data", "many.npy", "--input_shape", "x:1,3,16,16", "--save_path", "out"]
    with subprocess.Popen(
        [sys.executable, "-m", "amct_onnx", "simulate", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=dispositions,
    ) as running:
        while not list(Path("out").glob(".*/000001/y.npy")):  # its own, hidden until it is done
            assert running.poll() is None
            time.sleep(0.002)
        running.send_signal(number)
        _, errors = running.communicate(timeout=60)
    if ignored:
        assert (running.returncode, errors) == (0, "") and len(listing("out")) == 41
    else:
        assert (running.returncode, errors) == (code, text + "\n")
        assert whole_tree(Path("out")) == before


def test_data_that_does_not_fit_costs_an_earlier_run_nothing() -> None:
    x = feeds_of("qat/net")["x"]
    np.save("good.npy", np.concatenate([x, -x]))
    simulate(NET, "good.npy", "out")
    before = Path("out/simulation.json").read_bytes()
    np.save("bad.npy", x[:, :1])
    for data in ("bad.npy", "none.npy"):
        with pytest.raises(DataError):
            simulate(NET, data, "out")
    assert len(listing("out")) == 3 and Path("out/simulation.json").read_bytes() == before


@pytest.mark.parametrize(
    ("model", "data", "save", "text"),
    [
        ("none.onnx", "d.npy", "out", "none.onnx: no such file"),
        (str(NET), "none.npy", "out", "none.npy: no such file"),
        (str(NET), "d.npy", "d.npy", "cannot be written"),
    ],
)
def test_bad_input_is_exit_2(model: str, data: str, save: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("d.npy", feeds_of("qat/net")["x"])
    assert cli.main(["simulate", "--model", model, "--data", data, "--save_path", save]) == 2
    assert text in capsys.readouterr().err
