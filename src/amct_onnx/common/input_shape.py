"""ATC's notation for the shapes of a model's inputs, ``input:1,3,224,224;mask:1,5``."""

from __future__ import annotations

from amct_onnx.errors import AmctError


def parse_input_shape(text: str, error: type[AmctError]) -> dict[str, tuple[int, ...]]:
    """The shape of each input that the text names; one without numbers is a scalar.

    Args:
        text: name, colon, sizes; several inputs with semicolons between them. A name may contain colons.
        error: what to raise.

    Raises:
        AmctError: Another notation, sizes that are not positive, or an input that is named twice; of the class given.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, _, numbers = part.rpartition(":")
        name = name.strip()
        try:
            shape = tuple(int(n) for n in numbers.split(",")) if numbers.strip() else ()
        except ValueError:
            shape = (-1,)
        if not name or any(n < 1 for n in shape) or name in shapes:
            raise error(
                f"--input_shape: '{part}' is not of the form name:1,3,224,224 with positive numbers, once for each "
                "input. Correct it; a quantized model takes no -1 and no dimension of 0."
            )
        shapes[name] = shape
    return shapes
