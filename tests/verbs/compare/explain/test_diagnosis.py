"""What a divergence that is no fault is called."""

from __future__ import annotations

import re
from pathlib import Path

from amct_onnx.verbs.compare.explain.diagnosis import ADVICE
from amct_onnx.verbs.compare.report import NOISE_CAUSES, Divergence

EXPLAIN = Path(__file__).parents[4] / "src" / "amct_onnx" / "verbs" / "compare" / "explain"


def test_the_cause_tells_faults_from_noise() -> None:
    assert set(ADVICE) == NOISE_CAUSES
    assert not any(Divergence("m", "l", 0, cause, "", "", 0.0, 0.0).is_fault for cause in NOISE_CAUSES)
    faults = set(re.findall(r'"([a-z-]+-fault)"', (EXPLAIN / "faults.py").read_text(encoding="utf-8")))
    assert len(faults) == 5 and all(Divergence("m", "l", 0, c, "", "", 0.0, 0.0).is_fault for c in faults)
