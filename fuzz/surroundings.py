"""Verbs run amid planted files: journals, links, folders and hidden names, as a stranger packs them beside a model.

An input is JSON: the verb, and what is planted where: files, links, folders, pipes. ``%identity(path)%``
in a file's text becomes the inode and time of that file, which an attacker can know for what he packs himself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import amct_onnx
import mutations
import seeds
from amct_onnx.device.session import DeploySession
from amct_onnx.verbs.atc.command_line import atc_command
from amct_onnx.verbs.bias.quantize_bias import quantize_bias
from amct_onnx.verbs.check.checker import check
from amct_onnx.verbs.compare.compare import compare
from amct_onnx.verbs.doctor.doctor import doctor
from amct_onnx.verbs.simulate.simulate import simulate
from oracle import OLD, OUTPUTS, SECRET, Sandbox

MODEL, DEPLOY, DATA, CONVERTED, RESULTS = "in/model.onnx", "in/deploy.onnx", "in/x.npy", "in/c", "out/sim"
OTHER_USER = 65534
"""nobody; files are given to it where the fuzzer may."""
DATA_FILES = ("out/bias.onnx.data", "out/m_deploy_model.onnx.data", "out/m_fake_quant_model.onnx.data")
"""Data files of earlier outputs: they are removed where the new outputs have none."""
FOLDERS = ("in", "out", "out/sim", "out/sim/000000", "in/inner", ".")
OWNERS_FOLDERS = ("../outside", "{root}/outside", "folder", "../in", "{root}/in", "", "..", "../outside/folder")
"""Folders that a journal may name: absolute, relative, through a link, its own."""
PREFIXES = ("m_", "c_", "b", "bias.onnx", "model", "deploy", "")
SECRETS = (b"private", b"", b'{"feeds": []}', b"\x93NUMPY", bytes(300))


def verbs(root: Path) -> dict[str, tuple[Callable[[], object], frozenset[str], bool]]:
    """Verb -> how it is run, its outputs, and whether these change together."""
    at = root.joinpath
    names = [Path(n) for n in inputs_and_results()[1]]
    results = frozenset(f"{RESULTS}/{p}" for n in names for p in (n, *n.parents)) | {RESULTS}
    nothing: frozenset[str] = frozenset()
    return {
        "convert": (
            lambda: amct_onnx.convert_qat_model(at(MODEL), at("out/m"), at("out/record.txt")),
            frozenset(f"out/{n}" for n in OUTPUTS),
            True,
        ),
        "check": (lambda: check(at(DEPLOY)), nothing, False),
        "atc": (lambda: atc_command(at(DEPLOY), "Ascend310P3"), nothing, False),
        "session": (lambda: DeploySession(at(DEPLOY)).close(), nothing, False),
        "doctor": (lambda: doctor(at(MODEL), at(DATA), feeds=1), nothing, False),
        "bias": (lambda: quantize_bias(at(MODEL), at("out/bias.onnx")), frozenset({"out/bias.onnx"}), True),
        "simulate": (lambda: simulate(at(DEPLOY), at(DATA), at(RESULTS)), results, False),
        "compare": (
            lambda: compare(at(MODEL), at(CONVERTED), at(DATA), threads=1, json_report=at("out/report.json")),
            frozenset({"out/report.json"}),
            True,
        ),
    }


VERBS = ("convert", "check", "atc", "session", "doctor", "bias", "simulate", "compare")


@functools.cache
def inputs_and_results() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The inputs of every verb, and what an earlier simulation left: relative name -> bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = seeds.DATA / "goldens" / "qat" / "linear2d" / "qat.onnx"
        amct_onnx.convert_qat_model(source, folder / "c")
        np.save(folder / "x.npy", np.ones((3, 8), np.float32))
        simulate(folder / "c_deploy_model.onnx", folder / "x.npy", folder / "sim")
        inputs = {MODEL: source.read_bytes(), DATA: (folder / "x.npy").read_bytes()}
        inputs |= {f"in/{p.name}": p.read_bytes() for p in sorted(folder.glob("c_*"))}
        inputs[DEPLOY] = inputs["in/c_deploy_model.onnx"]
        paths = [p for p in sorted((folder / "sim").rglob("*")) if p.is_file()]
        return inputs, {str(p.relative_to(folder / "sim")): p.read_bytes() for p in paths}


def corpus() -> dict[str, bytes]:
    """Each verb with nothing planted."""
    return {verb: json.dumps({"verb": verb, "earlier": False, "plants": []}).encode() for verb in VERBS}


def run(sandbox: Sandbox, content: bytes) -> None:
    """Plant, run the verb, and leave the judgement to the oracle."""
    wanted = json.loads(content)
    for name, held in inputs_and_results()[0].items():
        (sandbox.root / name).write_bytes(held)
    call, sandbox.outputs, sandbox.together = verbs(sandbox.root)[wanted["verb"]]
    sandbox.may_go = {
        n for n in DATA_FILES if n.startswith({"bias": "out/b", "convert": "out/m"}.get(wanted["verb"], "-"))
    }
    if wanted["earlier"] and wanted["verb"] == "simulate":
        call()
    for plant in wanted["plants"]:
        with contextlib.suppress(OSError, ValueError):  # a name that is taken, or that no file can have
            put(sandbox.root, plant)
    if wanted["verb"] == "simulate" and not wanted["earlier"]:
        # a file that no run wrote is a user's, under any name; an empty folder holds no work
        taken = {n: sandbox.root / n for n in sandbox.outputs if os.path.lexists(sandbox.root / n)}
        sandbox.outputs -= {n for n, path in taken.items() if path.is_symlink() or not path.is_dir()}
    sandbox.start()
    call()


def mutate(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Other plants around the same verb."""
    verb = json.loads(content)["verb"]
    plants = [p for _ in range(chance.randint(1, 4)) for p in chance.choice(PLANTERS)(chance)]
    return json.dumps({"verb": verb, "earlier": chance.random() < 0.4, "plants": plants}).encode()


def put(root: Path, plant: dict[str, Any]) -> None:
    """Plant one thing in a sandbox's folder."""
    path = root / plant["at"]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = str(plant.get("text", "")).replace("{root}", str(root))
    if plant["kind"] == "link":
        path.symlink_to(text)
        return
    if plant["kind"] == "folder":
        path.mkdir(exist_ok=True)
    elif plant["kind"] == "pipe":
        os.mkfifo(path)
    elif plant["kind"] == "hard link":
        os.link(root / text, path)
    else:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with open(handle, "wb") as file:
            file.write(re.sub(r"%identity\((.*?)\)%", lambda m: _identity(root / m[1]), text).encode())
    if "mode" in plant:
        os.chmod(path, plant["mode"])
    if plant.get("owner") and os.geteuid() == 0:
        os.chown(path, plant["owner"], plant["owner"])


def _identity(path: Path) -> str:
    try:
        status = path.lstat()
    except OSError:
        return ""
    return f"{status.st_ino} {status.st_mtime_ns}"


def tag_of(prefix: str) -> str:
    """By which earlier versions named what belongs to a set of outputs."""
    return hashlib.sha256(os.fsencode(prefix)).hexdigest()[:12]


def _hidden(chance: random.Random, suffixes: tuple[str, ...]) -> str:
    """A name as transactions give or gave it; the inode in it is never the file's own."""
    tag = chance.choice([tag_of(chance.choice(PREFIXES)), f"{chance.getrandbits(48):012x}"])
    token = f"{chance.getrandbits(40):x}"
    inode = f"{2**60 + chance.getrandbits(32):x}"
    suffix = chance.choice(suffixes)
    return chance.choice(
        (
            f".amct_{tag}_{token}_{chance.randrange(6)}{suffix}",
            f".amct_{inode}_{token}{suffix}",
            f".amct_{tag}{suffix}",
            f".amct_{inode}_{token}_{chance.randrange(3)}{suffix}",
            f".amct_{token}{suffix}",
        )
    )


def _file(chance: random.Random, at: str, text: str | None = None) -> dict[str, Any]:
    plant: dict[str, Any] = {"at": at, "kind": "file"}
    plant["text"] = chance.choice(SECRETS).decode("latin-1") if text is None else text
    if chance.random() < 0.2:
        plant["mode"] = chance.choice((0o600, 0o444, 0o666, 0o755))
    if chance.random() < 0.15:
        plant["owner"] = OTHER_USER
    return plant


def _anything(chance: random.Random, at: str) -> list[dict[str, Any]]:
    """A file, a link, a folder that holds something, a second name of a user's file, or a pipe."""
    kind = chance.randrange(9)
    if kind < 3:
        return [_file(chance, at)]
    if kind < 6:
        target = chance.choice(("outside", "outside/folder", f"outside/{SECRET}", "in", "in/model.onnx", "nowhere"))
        above = "/".join([".."] * (len(Path(at).parts) - 1)) or "."
        return [{"at": at, "kind": "link", "text": chance.choice((f"{{root}}/{target}", f"{above}/{target}"))}]
    if kind == 6:
        return [{"at": at, "kind": "pipe"}]
    if kind == 7:
        return [{"at": at, "kind": "hard link", "text": chance.choice((f"outside/{SECRET}", "in/x.npy"))}]
    folder = {"at": at, "kind": "folder", "owner": OTHER_USER if chance.random() < 0.3 else 0}
    names = ("notes.txt", "000000/notes.txt", "000000/y.npy", "simulation.json", "000001/y.npy", "000000")
    return [folder, *(_file(chance, f"{at}/{n}") for n in chance.sample(names, chance.randint(0, 3)))]


def _journals(chance: random.Random) -> list[dict[str, Any]]:
    """An undo journal as earlier versions wrote and obeyed it, that moves or removes a user's files."""
    home = chance.choice(("in", "in", "out", "out/sim", "."))
    known = ("model.onnx", "deploy.onnx", "m_deploy_model.onnx", "c_deploy_model.onnx", "record.txt", "bias.onnx")
    read = ("c_quant.json", "x.npy", "simulation.json")
    # readers obeyed a journal that names the file which they read; these steps leave their files as they are
    decoys = [*known, *read] if chance.random() < 0.7 else [chance.choice((*known, *read))]
    steps = [_step("", name, "none", True, "no such file", "") for name in decoys]
    for _ in range(chance.randint(1, 3)):
        folder = chance.choice(OWNERS_FOLDERS)
        victim = chance.choice((SECRET, "notes.txt", "model.onnx", "x.npy", "w.data", "../secret", "folder"))
        place = folder.replace("{root}/", "").replace("../", "") or home
        steps.append(
            chance.choice(
                (
                    _step(folder, "gone", "none", True, "", victim),
                    _step(folder, victim, "none", False, f"%identity({place}/{victim})%", ""),
                    _step(folder, "moved", victim, True, "", ""),
                    _step(folder, victim, victim, True, f"%identity({place}/{victim})%", victim),
                    _step(
                        folder, victim, chance.choice(("w.data", "x.npy")), True, f"%identity({place}/{victim})%", ""
                    ),
                )
            )
        )
    text = json.dumps(steps)
    if chance.random() < 0.15:
        text = mutations.change_bytes(text.encode(), chance).decode("latin-1")
    tag = chance.choice([tag_of(p) for p in PREFIXES] + [f"{chance.getrandbits(48):012x}"])
    return [_file(chance, f"{home}/.amct_{tag}.undo", text)]


def _step(folder: str, target: str, backup: str, existed: bool, new: str, temporary: str) -> dict[str, Any]:
    return {
        "folder": folder,
        "target": target,
        "backup": backup,
        "existed": existed,
        "new": new,
        "temporary": temporary,
    }


def _hidden_names(chance: random.Random) -> list[dict[str, Any]]:
    return _anything(chance, f"{chance.choice(FOLDERS)}/{_hidden(chance, ('.tmp', '.old', '.undo', '.lock', ''))}")


def _simulations(chance: random.Random) -> list[dict[str, Any]]:
    """Leftovers of a killed simulation of earlier versions, under all names of its manifest."""
    home = chance.choice(("out/sim", "out/sim", "out/sim", "out", "in"))
    kind = chance.choice(("aside", "undo", f"new_{chance.getrandbits(40):x}", f"new_{chance.getrandbits(40):x}_old"))
    name = chance.choice((f".amct_simulation_{kind}", f".amct_simulation_{kind}", ".amct_simulation.json"))
    return _anything(chance, f"{home}/{name}")


def _users_files(chance: random.Random) -> list[dict[str, Any]]:
    """A user's own files in the folders of the outputs, and in their place."""
    names = (
        "out/sim/000000/notes.txt",
        "out/sim/000000/y.npy",
        "out/sim/000001/y.npy",
        "out/sim/simulation.json",
        "out/sim/notes.txt",
        "out/sim/000000",
        "in/c_compare_state.json",
        "in/.git/HEAD",
        "out/notes.txt",
        "out/.git/HEAD",
        "out/sim/000001",
        "in/model.onnx.data",
        "out/m",
        "in/c_compare_state.json.tmp",
        "in/inner/notes.txt",
    )
    return _anything(chance, chance.choice(names))


def _in_place_of_outputs(chance: random.Random) -> list[dict[str, Any]]:
    """In the place of outputs."""
    name = chance.choice(("out/bias.onnx", "out/report.json", *DATA_FILES))
    if name in DATA_FILES:
        return [_file(chance, name, OLD.decode())]
    return _anything(chance, name)


PLANTERS = (
    _journals,
    _journals,
    _hidden_names,
    _hidden_names,
    _simulations,
    _simulations,
    _users_files,
    _in_place_of_outputs,
)
