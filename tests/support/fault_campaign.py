"""Damage converted models at random and ask ``compare``: is it said, and is the place named?

As a script: ``python tests/support/fault_campaign.py --count 1000 --seed 1`` prints counts and misses.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import amct_onnx
from amct_onnx.device.session import DeploySession
from amct_onnx.files.read import read_model
from amct_onnx.verbs.compare.job import make_job
from amct_onnx.verbs.compare.measure.sessions import open_reference, show
from amct_onnx.verbs.convert.read_ledger import read_ledger
from support.comparison_cases import Case, converted
from support.damages import Damage, Damaged, neighbourhood

CAMPAIGN = (
    "torchfx_digitsnet_u8_bnfold_op13",
    "torchfx_digitstf_u8_op17",
    "torchfx_miscA_u8_op13",
    "torchfunc_digitsae_i8sym_ctaxis1_op13",
    "torchfunc_resnet_u8_dynamo21_noopt",
    "torchfq_digitsnet_i8sym_fp16_dynamo20",
    "modeloptonnx_resnet_fp16",
    "ort_mbv3_qdq_dedicated",
    "ort_unetb_qop_u8",
    "brevitas_digitsae_pc_qcdq_op13",
    "brevitas_mbv3_qonnx",
    "nncfonnx_mbv3_mixed",
    "tfmot_digitsnet_op13",
    "pt2e_digitstf_x86_dynamo18",
    "quark_mbv3_xint8",
    "inc_resnet_qdq_i8",
)
"""Residual blocks, float islands, transformers, autoencoders, float16; of eleven exporters."""
SAMPLES = 4
TRIES = 200
"""Attempts at a damage that fits and shows, for one that is wanted."""
Outputs = list[np.ndarray]  # type: ignore[type-arg]


@dataclass
class Tally:
    """What became of the damages."""

    counted: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Of another model."""
        self.counted += other.counted
        self.misses += other.misses


class Patient:
    """One model, converted, and the files of its healthy conversion.

    Args:
        name: in tests/data/models.
        folder: for the files.
        by_numbers: ask only whether a fault is said, not whether its node is named.
    """

    def __init__(self, name: str, folder: Path, *, by_numbers: bool = False) -> None:
        self.name, self.by_numbers = name, by_numbers
        self.case: Case = converted(name, folder, SAMPLES)
        self._files = {"fake-quant": self.case.fake_quant, "deploy": self.case.deploy}
        self.kept = {k: f.read_bytes() for k, f in self._files.items()}
        with np.load(self.case.data) as archive:
            self.feeds = dict(archive)
        job, _ = make_job(self.case.source, read_ledger(self.case.prefix), ("reference",))
        source = open_reference(job.source, 1).run(list(job.outputs), self.feeds)
        self.healthy = {k: self.outputs(k) for k in self._files}
        self.noise = {k: [_distance(a, b) for a, b in zip(source, v, strict=True)] for k, v in self.healthy.items()}

    def level(self) -> str:
        """What compare says now."""
        return self.case.compare(devices=("reference",)).verdict.level

    def outputs(self, model: str) -> Outputs:
        """Of one model as it is now."""
        path = self._files[model]
        if model == "deploy":
            return list(DeploySession(path, device="reference").run(None, self.feeds))
        return list(open_reference(show(read_model(path), path, []), 1).run(None, self.feeds))

    def damage(self, random: np.random.Generator) -> tuple[str, Damage] | None:
        """Damage one model so that it shows in an output; None when no attempt did."""
        for _ in range(TRIES):
            model = str(random.choice(list(self._files)))
            proto = onnx.load_model_from_string(self.kept[model])
            made = Damaged(proto, random).apply()
            if made is None:
                continue
            self._files[model].write_bytes(proto.SerializeToString())
            if self._shows(model):
                return model, made
            self.restore()
        return None

    def restore(self) -> None:
        """The healthy files."""
        for model, path in self._files.items():
            path.write_bytes(self.kept[model])

    def judged(self, model: str, made: Damage) -> str:
        """Empty when compare said it, named the place and blamed no other model; else what it missed."""
        what = f"{self.name}, {model}: {made.op_type} '{made.node}' {made.kind}"
        try:
            report = self.case.compare(devices=("reference",))
        except amct_onnx.AmctError as error:
            return f"{what}: error: {error}"
        key = "fake-quant" if model == "fake-quant" else "deploy@reference"
        found = next((d for d in report.divergences if d.model == key and d.is_fault), None)
        if report.verdict.level != "diverges" or found is None:
            return f"{what}: {report.verdict.headline}"
        blamed = [d for d in report.divergences if d.model != key and d.is_fault]
        if blamed:
            return f"{what}: {blamed[0].model}, which is healthy, is blamed: {blamed[0].cause}: {blamed[0].text}"
        before, after = onnx.load_model_from_string(self.kept[model]), onnx.load(self._files[model])
        names = neighbourhood(before, made.node) | neighbourhood(after, made.node)
        if not self.by_numbers and found.node not in names and not any(f"'{n}'" in found.text for n in names):
            return f"{what}: named {found.node!r}: {found.text}"
        return ""

    def _shows(self, model: str) -> bool:
        """Whether an output changed by more than the healthy model's own differences from the source."""
        try:
            now = self.outputs(model)
        except Exception:  # a model that cannot run changes no output
            return False
        found = zip(self.healthy[model], now, self.noise[model], strict=True)
        return any(a.shape != b.shape or _distance(a, b) > noise for a, b, noise in found)


def _distance(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    if a.shape != b.shape:
        return float("inf")
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def campaign(patient: Patient, count: int, random: np.random.Generator) -> Tally:
    """So many damages of one model."""
    tally = Tally()
    for _ in range(count):
        found = patient.damage(random)
        if found is None:
            break
        missed = patient.judged(*found)
        patient.restore()
        tally.counted[found[1].kind] += 1
        if missed:
            tally.misses.append(missed)
    return tally


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("models", nargs="*", default=CAMPAIGN)
    parser.add_argument("--by_numbers", action="store_true", help="do not hold the files against the conversion")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    if arguments.by_numbers:
        judged: Any = importlib.import_module("amct_onnx.verbs.compare.explain.beside_ledger")
        judged.deciding_versions = lambda: {judged.CODE: "other code"}
    total = Tally()
    each = -(-arguments.count // len(arguments.models))
    for number, name in enumerate(arguments.models):
        folder = Path(tempfile.mkdtemp())
        try:
            patient = Patient(name, folder, by_numbers=arguments.by_numbers)
            level = patient.level()
            if level not in (("incomplete",) if arguments.by_numbers else ("equal", "noise")):
                total.misses.append(f"{name}: healthy, yet {level}")
            made = campaign(patient, each, np.random.default_rng([arguments.seed, number]))
        finally:
            shutil.rmtree(folder)
        total.add(made)
        print(f"{name}: healthy {level}; {sum(made.counted.values())} damages, {len(made.misses)} missed", flush=True)
        for miss in made.misses:
            print(f"  {miss}", flush=True)
    print(f"{sum(total.counted.values())} damages: {dict(total.counted.most_common())}; {len(total.misses)} missed")
    return bool(total.misses)


if __name__ == "__main__":
    raise SystemExit(_main())
