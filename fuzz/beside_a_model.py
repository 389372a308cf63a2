"""Targets for what ``compare`` reads beside the models: ledger, state, dumps, results of evaluators and data files.

A changed ledger that is accepted is compared with; a changed state is resumed and reported: nonsense that gets past the
reader must not end a run in another way than with figures.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import amct_onnx
import mutations
import seeds
from amct_onnx.common.proto_classes import message_classes
from amct_onnx.data.input_spec import InputSpec, specs_of
from amct_onnx.data.python_feeds import PythonFeeds
from amct_onnx.files.device_dump import MESSAGES
from amct_onnx.verbs.compare.compare import compare
from amct_onnx.verbs.compare.explain.beside_ledger import Beside, examine_files
from amct_onnx.verbs.compare.explain.board import compare_board
from amct_onnx.verbs.compare.job import Job, layer_lsb, make_job
from amct_onnx.verbs.compare.measure.accuracy import Accuracy, Flip, Flips
from amct_onnx.verbs.compare.measure.batch import Batch, Runner
from amct_onnx.verbs.compare.measure.evaluator import Evaluator, EvaluatorCode
from amct_onnx.verbs.compare.measure.exact_sum import ExactSum
from amct_onnx.verbs.compare.measure.state_file import DataDigest, State, checksum, read_state, write_state
from amct_onnx.verbs.compare.pairing import Paired
from amct_onnx.verbs.compare.present.assemble import Run, assemble
from amct_onnx.verbs.convert.read_ledger import Ledger, read_ledger
from amct_onnx.verbs.simulate.simulate import simulate
from odd_values import FEEDS, JSON_VALUES, RESULTS
from oracle import Sandbox

SETTINGS = {"devices": "a2", "threads": "1"}
EVALUATOR = "def evaluate(outputs, feeds, labels):\n    return {'m': [0.5] * len(next(iter(feeds.values())))}\n"
EVALUATOR += "def collect(outputs, feeds, labels):\n    return [[1, 'a']] * len(next(iter(feeds.values())))\n"
EVALUATOR += "def score(records):\n    return {'n': len(records)}\n"


@dataclass(frozen=True)
class Case:
    """A conversion with one batch of a run of it, in a folder that stays as long as the process."""

    folder: tempfile.TemporaryDirectory[str]
    files: dict[str, bytes]
    ledger: Ledger
    beside: Beside
    job: Job
    layers: tuple[Paired, ...]
    runner: Runner
    batch: Batch
    state: bytes
    dumps: dict[str, bytes]


@functools.cache
def case() -> Case:
    """Files of the smallest golden model with a bias."""
    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name)
    source = seeds.DATA / "goldens" / "qat" / "linear2d" / "qat.onnx"
    (folder / "model.onnx").write_bytes(source.read_bytes())
    amct_onnx.convert_qat_model(folder / "model.onnx", folder / "m")
    ledger = read_ledger(folder / "m")
    job, layers = make_job(folder / "model.onnx", ledger, ("a2",), evaluator=EvaluatorCode(EVALUATOR, "e.py"))
    runner = Runner(job)
    (spec,) = specs_of(runner.source)
    feed = {spec.name: np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)}
    np.save(folder / "x.npy", feed[spec.name])
    batch = Batch(0, feed, 3)
    results, digest = runner.run(batch), DataDigest()
    digest.add(batch)
    for accuracy in results.accuracy.values():
        accuracy.right, accuracy.samples = {"top-1": 1, "top-5": 2}, 3
    results.flips = Flips(1, [Flip(2, 0, tuple(range(len(job.answering))))])
    write_state(folder / "state.json", job, SETTINGS, State(results, digest.text, 1.5))
    simulate(ledger.deploy_model, folder / "x.npy", folder / "dumps", device="a2", dump_layers=True)
    files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".onnx", ".json", ".npy")}
    dumps = {p.name: p.read_bytes() for p in sorted((folder / "dumps" / "000000").iterdir())}
    beside = examine_files(folder / "model.onnx", ledger)
    return Case(holder, files, ledger, beside, job, layers, runner, batch, files["state.json"], dumps)


def ledger(sandbox: Sandbox, content: bytes) -> None:
    """The reader of a conversion's outputs; then a comparison with what it accepts."""
    for name, held in case().files.items():
        (sandbox.source / name).write_bytes(held)
    sandbox.outputs, sandbox.together = {"out/report.json", "out/report.html"}, True
    sandbox.place("in/m_quant.json", content)
    read_ledger(sandbox.source / "m")
    out = sandbox.target
    compare(
        sandbox.source / "model.onnx", sandbox.source / "m", sandbox.source / "x.npy", threads=1,
        json_report=out / "report.json", report=out / "report.html",
    )  # fmt: skip


def state(sandbox: Sandbox, content: bytes) -> None:
    """The reader of an interrupted comparison, and the report of what it accepts.

    The checksum is made to fit: who can write such a file can compute it.
    """
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        body = json.loads(content)
        body["checksum"] = checksum({k: v for k, v in body.items() if k != "checksum"})
        content = json.dumps(body).encode()
    path = sandbox.place("in/state.json", content)
    known = case()
    sandbox.may_read(Path(known.folder.name))
    found = read_state(path, known.job, SETTINGS)
    parts = (known.job, known.layers, known.ledger, known.runner, found.results, known.batch, lambda: (known.batch,))
    model = str(Path(known.folder.name) / "model.onnx")
    run = Run(model, *parts, complete=True, total=None, seconds=found.seconds, beside=known.beside)
    assemble(run, model=model, save_path="s", data="d", settings={}).to_dict()


def board(sandbox: Sandbox, content: bytes) -> None:
    """A board's dumps; the first line of the input names the file that is changed, the rest is its content."""
    known = case()
    sandbox.may_read(Path(known.folder.name))
    name, _, changed = content.partition(b"\n")
    files = {n: c for n, c in known.dumps.items() if n != name.decode("latin-1").removeprefix("-")}
    folder = sandbox.source / "dumps"
    folder.mkdir()
    for other, held in files.items():
        (folder / other).write_bytes(held)
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        (folder / name.decode("latin-1").removeprefix("-")).write_bytes(changed)
    sandbox.start()
    units = {p.entry.name: layer_lsb(p)[0] for p in known.layers}
    compare_board(folder, known.ledger.deploy_model, "a2", units, [known.batch.feeds], lambda: False)


def evaluator(sandbox: Sandbox, content: bytes) -> None:
    """An evaluator that returns anything."""
    made = Evaluator(content.decode(), "evaluator.py")
    arrays = {"x": np.ones((3, 2), np.float32)}
    total = Accuracy()
    for _ in range(2):
        records = made.collect(arrays, arrays, None, 3)
        sums = {}
        for name, numbers in made.evaluate(arrays, arrays, None, 3).items():
            sums[name] = ExactSum()
            sums[name].add_all(numbers.tolist())
        total.merge(Accuracy(3, sums=sums, records=records))
    json.dumps(made.finish({n: s.value for n, s in total.sums.items()}, 6))
    json.dumps(made.score(total.records, 6))


def feeds(sandbox: Sandbox, content: bytes) -> None:
    """A data file in Python that yields anything."""
    path = sandbox.place("in/feeds.py", content)
    for _ in PythonFeeds(path, [InputSpec("x", (2, 3), np.dtype(np.float32))]).labelled():
        pass


def ledger_corpus() -> dict[str, bytes]:
    """Of the model that is compared, and of a larger one."""
    with tempfile.TemporaryDirectory() as folder:
        model = seeds.DATA / "goldens" / "qat" / "net" / "qat.onnx"
        report = amct_onnx.convert_qat_model(model, Path(folder) / "m")
        return {"linear2d": case().files["m_quant.json"], "net": Path(report.ledger_file).read_bytes()}


def board_corpus() -> dict[str, bytes]:
    """Each dump as .npy, as plain numbers, and as the runtime writes it."""
    dumps = case().dumps.items()
    found = {n: n.encode() + b"\n" + c for n, c in dumps}
    found |= {f"{n} raw": n.replace(".npy", ".bin").encode() + b"\n" + c[128:] for n, c in dumps}
    return found | {f"{n} runtime": _runtime_dump(n, c) for n, c in dumps if ".output." in n}


def _runtime_dump(name: str, content: bytes) -> bytes:
    """The first line names the file; see ``files/device_dump.py`` for the rest."""
    array = np.load(io.BytesIO(content))
    header = message_classes("amct_onnx.fuzz", MESSAGES)["DumpData"]()
    kind = {"f4": 1, "f2": 2, "i1": 3, "i4": 7}[array.dtype.str[1:]]
    tensor = header.output.add(data_type=kind, format=2, size=array.nbytes)
    tensor.shape.dim.extend(array.shape)
    made: bytes = header.SerializeToString()
    line = f"{'.'.join(name.split('.')[:2])}.5.1.17\n".encode()
    return line + len(made).to_bytes(8, "little") + made + array.tobytes()


def change_json(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Values are others, of another type, doubled, moved or gone; fields more; deep nesting; or bytes change."""
    kind = chance.random()
    if kind < 0.15:
        return mutations.change_bytes(content, chance)
    if kind < 0.18:
        return content[: chance.randrange(len(content) + 1)]
    try:
        root = json.loads(content)
    except ValueError:
        return mutations.change_bytes(content, chance)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _change_value(root, chance)
    made = json.dumps(root)
    if kind < 0.25:
        # what json.dumps does not write: numbers beyond float64, deep nesting, names twice
        place = chance.choice([i for i, letter in enumerate(made) if letter in "0123456789"])
        deep = chance.choice((50, 1200, 100_000))
        odd = (
            "1e999999999",
            "NaN",
            "-Infinity",
            "9" * 5000,
            "1" + "0" * 400,
            "[" * deep + "]" * deep,
            '{"a":' * deep + "1" + "}" * deep,
        )
        made = made[:place] + chance.choice(odd) + made[place + 1 :]
    return made.encode()


def _change_value(root: object, chance: random.Random) -> None:
    holder, places = root, []
    while isinstance(holder, (dict, list)) and holder:
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        places.append((holder, key))
        holder = holder[key]
    if not places:
        return
    place, key = chance.choice(places)
    value, kind = place[key], chance.randrange(8)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, list):
        place.insert(chance.randrange(len(place) + 1), value)
    elif kind == 1:
        place[chance.choice(("new", "__class__", "", "x" * 1000))] = value
    elif kind == 2 and isinstance(place, list) and len(place) > 1:
        place.reverse()
    elif kind == 3 and isinstance(value, (int, float)):
        place[key] = chance.choice((value + 1, value - 1, -value, value * 2, value * 1e10, value / 1e10))
    elif kind == 4 and isinstance(value, str):
        place[key] = chance.choice((value + "x", value[:-1], value.upper(), value[::-1]))
    else:
        place[key] = chance.choice(JSON_VALUES)


def change_dump(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """A dump's name, header, size or numbers are others."""
    name, _, held = content.partition(b"\n")
    kind = chance.randrange(6)
    if kind == 0:
        name = mutations.change_bytes(name, chance).replace(b"/", b"_").replace(b"\n", b"_")
    elif kind == 1:
        held = chance.choice(others).partition(b"\n")[2]
    elif kind == 2 and held.startswith(b"\x93NUMPY"):
        shapes = (
            "(3, 4)",
            "(12,)",
            f"({2**40},)",
            f"({2**62}, 4)",
            "(-1,)",
            "(3, 4" + ", 1" * 60 + ")",
            "(" * 300 + ")" * 300,
            "None",
            "(3.0,)",
            "(True,)",
        )
        types = (
            "<f4",
            "|O",
            "<i4",
            "|i1",
            "<f2",
            "<c8",
            "|S4",
            "<U9",
            "<M8[s]",
            ">f4",
            "|b1",
            "<f8",
            "[('a', '<f4')]",
            "V4",
            "<f3",
            "",
        )
        fields = (chance.choice(types), chance.choice(("False", "True", "2")), chance.choice(shapes))
        text = "{{'descr': {!r}, 'fortran_order': {}, 'shape': {}, }}".format(*fields)
        text = text.ljust(117) + "\n"
        held = held[:8] + len(text).to_bytes(2, "little") + text.encode() + held[128:]
    elif kind == 3:
        held = held[: chance.randrange(len(held) + 1)]
    if kind > 3 or chance.random() < 0.2:
        held = mutations.change_bytes(held, chance)
    return name + b"\n" + held


def evaluator_corpus() -> dict[str, bytes]:
    """Evaluators with and without ``finish``."""
    return {"plain": b"plain", "finish": b"finish"}


def change_evaluator(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Another result of evaluate, and of finish."""
    one, other, last = (chance.choice(RESULTS) for _ in range(3))
    text = "import numpy as np\ndeep = 1.0\nfor _ in range(2000): deep = [deep]\ncalls = []\n"
    text += "def evaluate(outputs, feeds, labels):\n    n = 3; calls.append(0)\n"
    text += f"    return {one} if len(calls) < 2 else {other}\n"
    if content == b"finish":
        last = last.replace("[1] * n", "1").replace("[1e400] * n", "1e400").replace("[10**400] * n", "10**400")
        text += f"def finish(sums, samples):\n    n = samples\n    return {last}\n"
    return text.encode()


def feeds_corpus() -> dict[str, bytes]:
    """One data file."""
    return {"feeds": b"feeds"}


def change_feeds(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Other feeds."""
    made = [chance.choice(FEEDS) for _ in range(chance.randint(1, 3))]
    lines = (
        "".join(f"    yield {f}\n" for f in made) if chance.random() < 0.8 else f"    return {chance.choice(made)}\n"
    )
    return f"import numpy as np\ndeep = 1.0\nfor _ in range(2000): deep = [deep]\ndef feeds():\n{lines}".encode()
