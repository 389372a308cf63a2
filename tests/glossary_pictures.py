"""Draw the pictures of docs/glossary.md with the arithmetic of the package: python tests/glossary_pictures.py.

Needs matplotlib (the extra ``docs``). Written to docs/images/.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amct_onnx.common.arithmetic import reciprocal
from amct_onnx.device.ascend_arithmetic import antiquantize_float32, quantize_float32, s19_scale

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE = (6.4, 2.6)
REAL, ROUNDED, LIMIT = "#9aa0a6", "#3f51b5", "#c62828"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "glossary", "font.size": 9, "axes.spines.top": False} | {
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def rounded(x: np.ndarray, scale: float) -> np.ndarray:
    """What an AscendQuant and an AscendAntiQuant make of x, in float32."""
    integers = quantize_float32(x.astype(np.float32), float(reciprocal(np.float32(scale))), 0)
    return antiquantize_float32(integers, scale, 0)


def quantizer(axes: Axes) -> None:
    """Stairs between two ends. Four bits, since 256 steps could not be told apart."""
    x = np.linspace(-11, 11, 2001)
    axes.plot(x, x, color=REAL, linewidth=1)
    axes.plot(x, np.clip(np.rint(x), -8, 7), color=ROUNDED)
    axes.text(7.6, 5.4, "saturation", color=LIMIT)
    axes.text(-7.6, -7, "saturation", color=LIMIT, ha="right")
    axes.set_xlabel("real number / scale")
    axes.set_ylabel("integer (4 bits)")


def lsb(axes: Axes) -> None:
    """One step, and an error measured in it."""
    scale = 0.25
    x = np.linspace(0, 1.5, 2001)
    axes.plot(x, rounded(x, scale), color=ROUNDED)
    axes.annotate("", (0.5, 0.5), (0.5, 0.75), arrowprops={"arrowstyle": "<->", "color": LIMIT})
    axes.text(0.47, 0.625, "1 LSB = scale = 0.25", ha="right", va="center", color=LIMIT)
    axes.set_xlabel("real number")
    axes.set_ylabel("after the quantizer")


def tie(axes: Axes) -> None:
    """The integers of all numbers, and of those half-way."""
    steps = np.linspace(0, 4, 4001, dtype=np.float32)
    axes.plot(steps, quantize_float32(steps, 1.0, 0), color=ROUNDED)
    halves = np.array([0.5, 1.5, 2.5, 3.5], np.float32)
    axes.plot(halves, quantize_float32(halves, 1.0, 0), "o", color=LIMIT, markersize=5)
    axes.set_xticks(np.arange(0, 4.5, 0.5))
    axes.set_yticks(range(5))
    axes.text(0.05, 3.4, "a tie goes to the even integer", color=LIMIT)
    axes.set_xlabel("real number / scale")
    axes.set_ylabel("integer")


def s19(axes: Axes) -> None:
    """The bits that a chip keeps of a scale."""
    scale = np.float32(0.0123456)
    bits = np.unpackbits(np.array([scale.view(np.uint32)]).byteswap().view(np.uint8))
    for place, bit in enumerate(bits):
        kept = place < 19
        axes.add_patch(
            mpl.patches.Rectangle((place, 0), 1, 1, facecolor="#e8eaf6" if kept else "#fce4e4", edgecolor="white")
        )
        axes.text(place + 0.5, 0.5, str(bit), ha="center", va="center", color=ROUNDED if kept else LIMIT)
    for start, end, text in (
        (0, 1, "sign"),
        (1, 9, "exponent, 8 bits"),
        (9, 19, "10 bits kept"),
        (19, 32, "13 bits cleared"),
    ):
        axes.text((start + end) / 2, 1.25, text, ha="center", color=LIMIT if start == 19 else "black")
    axes.text(0, -0.8, f"deq_scale {scale:.9g} is {s19_scale(np.array([scale]))[0]:.9g} on the chip")
    axes.set(xlim=(0, 32), ylim=(-1, 1.7))
    axes.axis("off")


def anti_quant(axes: Axes) -> None:
    """A tensor before and behind the pair."""
    x = np.linspace(0, 2 * np.pi, 600)
    wave = np.sin(x)
    axes.plot(x, wave, color=REAL, label="before AscendQuant")
    axes.plot(x, rounded(wave, 0.25), color=ROUNDED, label="behind AscendAntiQuant, scale 0.25")
    axes.legend(frameon=False, loc="upper right")
    axes.set_xticks([])
    axes.set_ylabel("float value")


PICTURES: dict[str, Callable[[Axes], None]] = {
    "quantizer": quantizer,
    "lsb": lsb,
    "tie": tie,
    "s19": s19,
    "anti_quant": anti_quant,
}


def main() -> None:
    """Draw all."""
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        with mpl.rc_context(STYLE):
            figure = Figure(SIZE, layout="constrained")
            draw(figure.subplots())
            file = IMAGES / f"{name}.svg"
            figure.savefig(file, metadata={"Date": None, "Creator": None})
        print(f"{file.relative_to(IMAGES.parents[1])}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
