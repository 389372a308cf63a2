"""Feeds from arrays: one array per input, cut along the first axis where the model fixes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from amct_onnx.common.arrays import Array
from amct_onnx.data.input_spec import InputSpec
from amct_onnx.data.source import IN_MEMORY
from amct_onnx.errors import DataError


def feeds_of_arrays(
    data: Array | Mapping[str, Array] | Sequence[Mapping[str, Array]],
    inputs: Sequence[InputSpec],
    input_shape: Mapping[str, tuple[int, ...]],
) -> Iterator[dict[str, Array]]:
    """The feeds of arrays in memory.

    Args:
        data: one array for a model with one input, a dict by input name (other names are ignored), or a sequence of
            such dicts, one after the other.
        inputs: of the model.
        input_shape: shape of one feed, by input.

    Raises:
        DataError: An input is missing, or its array has another type or shape.
    """
    groups = data if isinstance(data, Sequence) and not isinstance(data, np.ndarray) else [data]
    for group in groups:
        if not isinstance(group, Mapping):
            if len(inputs) > 1:
                names = ", ".join(i.name for i in inputs)
                raise DataError(f"The model has {len(inputs)} inputs ({names}). Give a dict of arrays by their names.")
            group = {inputs[0].name: group}
        arrays = {}
        for spec in inputs:
            if spec.name not in group:
                raise DataError(
                    f"The data hold {', '.join(map(str, group)) or 'nothing'} but no '{spec.name}', an input of the "
                    "model. Name the array so."
                )
            arrays[spec.name] = _array(group[spec.name], spec)
            check_dtype(arrays[spec.name], spec, IN_MEMORY)
        yield from cut_feeds(arrays, inputs, input_shape, dict.fromkeys(arrays, IN_MEMORY))


def _array(given: object, spec: InputSpec) -> Array:
    try:
        array = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        array = np.asarray(None)
    if array.dtype == object:
        raise DataError(
            f"The data of input '{spec.name}' are not an array of numbers ({type(given).__name__}). Give a path, an "
            "array, a dict of arrays by input name, or a list of such dicts."
        )
    return array


def check_dtype(array: Array, spec: InputSpec, origin: object) -> None:
    """Numbers are not converted without a word: a float64 may hold more than a float32.

    Raises:
        DataError: The array has another type than the input.
    """
    if array.dtype != spec.dtype:
        raise DataError(
            f"{origin}: input '{spec.name}' is {array.dtype}, the model takes {spec.dtype}. "
            f"Convert it with .astype('{spec.dtype}')."
        )


def _other_axes(spec: InputSpec, shape: Sequence[int]) -> str:
    """How images in the other layout become the input's; "" when that does not fit either."""
    moves = ((3, 1, "NHWC to NCHW: x.transpose(0, 3, 1, 2)"), (1, 3, "NCHW to NHWC: x.transpose(0, 2, 3, 1)"))
    for source, target, text in moves:
        moved = list(shape)
        if len(shape) == 4:
            moved.insert(target, moved.pop(source))
            if spec.fits(moved):
                return text
    return ""


def cut_feeds(
    arrays: dict[str, Array],
    inputs: Sequence[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    group: Mapping[str, object],
) -> Iterator[dict[str, Array]]:
    """Cut arrays along the first dimension when the model, or --input_shape, fixes it.

    Args:
        arrays: by input name.
        inputs: of the model.
        shapes: shape of one feed, by input; may be empty.
        group: where each array comes from, for messages.

    Raises:
        DataError: An array does not fit its input.
    """
    counts = {}
    for spec in inputs:
        array, size = arrays[spec.name], spec.batch
        given = InputSpec(spec.name, shapes.get(spec.name, ()), spec.dtype)
        if given.shape:
            size = given.batch
        whole = (size, *array.shape[1:]) if size is not None and array.ndim else array.shape
        cuts = size is None or not array.ndim or (array.shape[0] and not array.shape[0] % size)
        if not spec.fits(whole) or not given.fits(whole) or not cuts:
            option = f", --input_shape says {given.shape_text} for each feed" if given.shape else ""
            if axes := _other_axes(spec, whole):  # a reshape would mix their pixels without a word
                raise DataError(
                    f"{group[spec.name]}: input '{spec.name}' has shape {list(array.shape)}, the model takes "
                    f"{spec.shape_text}{option}. Move its axes ({axes}); do not reshape it."
                )
            raise DataError(
                f"{group[spec.name]}: input '{spec.name}' has shape {list(array.shape)}, the model takes "
                f"{spec.shape_text}{option}. Reshape it."
            )
        counts[spec.name] = array.shape[0] // size if size is not None and array.ndim else None
    cut = {c for c in counts.values() if c is not None}
    if len(cut) > 1:
        text = ", ".join(f"{c} of '{n}'" for n, c in counts.items() if c is not None)
        raise DataError(
            f"{next(iter(group.values()))}: the inputs hold different numbers of feeds ({text}). Give as many of each."
        )
    number = cut.pop() if cut else 1
    for index in range(number):
        feeds = {}
        for spec in inputs:
            array = arrays[spec.name]
            if counts[spec.name] is not None:
                rows = array.shape[0] // number
                array = array[index * rows : (index + 1) * rows]
            # numbers of a .bin may be narrower; a copy, so that a feed outlives its file
            feeds[spec.name] = np.array(array, spec.dtype)
        yield feeds
