"""Print what a comparison costs against running the three models alone, on the same samples in the same run.

The data are an iterator that runs source, fake-quant and deploy model on each batch before it hands it to ``compare``:
both are timed batch by batch, in turn. Sessions have the same options, threads and batches; alone, they give their own
outputs and nothing is counted. Seconds are CPU seconds of the process, which other processes disturb least; elapsed
ones are printed as well. ``--profile`` lists the slowest functions of the comparison.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from amct_onnx.data.source import Array, DataSource, Labelled

LIMIT = 1.5
MODEL = Path(__file__).parent.parent / "tests" / "data" / "models" / "torchfx_digitsnet_u8_bnfold_op13"


class Alone(DataSource):
    """Feeds, and the time that the three models alone take for them."""

    def __init__(self, x: Array, y: Array, prefix: str, device: str, batch: int, threads: int) -> None:
        import onnxruntime as ort

        from amct_onnx import DeploySession
        from amct_onnx.verbs.compare.measure.sessions import pinned_options

        self.x, self.y, self.batch = x, y, batch
        self.sessions = [
            ort.InferenceSession(path, pinned_options(threads), providers=["CPUExecutionProvider"])
            for path in (str(MODEL / "model.onnx"), f"{prefix}_fake_quant_model.onnx")
        ]
        self.sessions.append(DeploySession(f"{prefix}_deploy_model.onnx", pinned_options(threads), device=device))
        self.name = self.sessions[0].get_inputs()[0].name
        self.cpu = self.elapsed = 0.0
        for session in self.sessions:  # the first run of a session allocates
            session.run(None, {self.name: x[:batch]})

    def labelled(self, start: int = 0) -> Iterator[Labelled]:
        """The batches; each is run before it is given away."""
        for first in range(start * self.batch, len(self.x), self.batch):
            part = slice(first, first + self.batch)
            feeds = {self.name: self.x[part]}
            cpu, elapsed = time.process_time(), time.perf_counter()
            for session in self.sessions:
                session.run(None, feeds)
            self.cpu += time.process_time() - cpu
            self.elapsed += time.perf_counter() - elapsed
            yield feeds, self.y[part]


def main() -> None:
    """Convert, run, print; exit 1 when the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="a2")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    import cProfile
    import pstats

    from amct_onnx import compare, convert_qat_model, set_logging_level

    set_logging_level("error", "error")
    with np.load(MODEL / "testset.npz") as archive:
        tested, answers = archive["x"], archive["y"]
    picked = np.random.default_rng(0).integers(0, len(tested), arguments.samples)
    noise = np.random.default_rng(1).normal(0, 0.02, (arguments.samples, *tested.shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/m"
        convert_qat_model(MODEL / "model.onnx", prefix)
        x = (tested[picked] + noise).astype(np.float32)
        alone = Alone(x, answers[picked], prefix, arguments.device, arguments.batch, arguments.threads)
        profile = cProfile.Profile()
        if arguments.profile:
            profile.enable()
        marks: list[tuple[float, float]] = []
        cpu, elapsed = time.process_time(), time.perf_counter()
        report = compare(
            MODEL / "model.onnx",
            prefix,
            alone,
            devices=[arguments.device],
            batch_size=arguments.batch,
            threads=arguments.threads,
            progress=lambda done, total: marks.append((time.process_time(), time.perf_counter())),
        )
        whole_cpu, whole_elapsed = time.process_time() - cpu, time.perf_counter() - elapsed
        profile.disable()
    run_cpu, run_elapsed = (marks[-1][i] - marks[0][i] for i in (0, 1))
    print(
        f"{report.samples:,} samples, device {arguments.device}, batches of {arguments.batch}: {report.verdict.level}"
    )
    for text, mine, others in (
        ("running, CPU s", run_cpu - alone.cpu, alone.cpu),
        ("running, elapsed s", run_elapsed - alone.elapsed, alone.elapsed),
        ("with setup and report, CPU s", whole_cpu - alone.cpu, alone.cpu),
        ("with setup and report, elapsed s", whole_elapsed - alone.elapsed, alone.elapsed),
    ):
        print(f"  {text:34}{mine:8.2f}   three models alone{others:8.2f}   ratio {mine / others:.2f}")
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    sys.exit(0 if (run_cpu - alone.cpu) / alone.cpu <= LIMIT else 1)


if __name__ == "__main__":
    main()
