"""Coverage-guided fuzzing with atheris: python fuzz/coverage_guided.py [--target T] [libFuzzer options] [folder].

For example ``-runs=100000`` or ``-max_total_time=600``. Needs ``pip install '.[fuzz]'``. A finding ends the run, and
its input is left in a file ``crash-...``.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["amct_onnx"]):
    from oracle import Sandbox, limit_memory
    from targets import TARGETS, be_quiet

MAX_INPUT_BYTES = 1 << 17
"""Bytes of an input."""


def main() -> None:
    """Write the seeds into a corpus folder, then hand over to libFuzzer, which does not return."""
    arguments = sys.argv[:]
    name = "convert"
    if "--target" in arguments:
        index = arguments.index("--target")
        name = arguments[index + 1]
        del arguments[index : index + 2]
    target = TARGETS[name]
    folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
    seeds = folder / "seeds"
    seeds.mkdir()
    corpus = target.corpus()
    for number, content in enumerate(corpus.values()):
        (seeds / str(number)).write_bytes(content)
    be_quiet()
    limit_memory()
    # the folders that the user named are found again after the sandbox has changed the current one
    arguments = [a if a.startswith("-") else str(Path(a).resolve()) for a in arguments]
    prefix = f"-artifact_prefix={Path.cwd()}/"
    sandbox = Sandbox(folder / "sandbox")
    others = list(corpus.values())

    def one_input(content: bytes) -> None:
        sandbox.prepare()
        sandbox.judge(lambda: target.run(sandbox, content))

    def mutator(content: bytes, longest: int, seed: int) -> bytes:
        made = target.mutate(content, random.Random(seed), others)
        return made if len(made) <= longest else content[:longest]

    options = [prefix, f"-max_len={MAX_INPUT_BYTES}", "-timeout=60", "-rss_limit_mb=4096", *arguments[1:], str(seeds)]
    atheris.Setup([arguments[0], *options], one_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
