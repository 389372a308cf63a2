"""The source of a conversion from a float model and a record of factors: that model with its Q/DQ pairs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from amct_onnx.errors import AmctError
from amct_onnx.files.model_in_memory import as_file
from amct_onnx.files.read import INPUT_FILES, read_model
from amct_onnx.verbs.convert.read_ledger import Ledger
from amct_onnx.verbs.convert.recorded_factors import insert_recorded_quantizers

Quantized = tuple[str | os.PathLike[str], frozenset[tuple[int, int]]]


@contextmanager
def quantized_source(model: str | os.PathLike[str], ledger: Ledger) -> Iterator[Quantized]:
    """The path of the model that was converted, and the identities of the files behind it that no other stage reads.

    A float model gets the quantizers of the record that the ledger holds, in a temporary file that goes with the
    context: it then computes what the record quantizes, which is what the outputs are held to.

    Raises:
        FactorError: The record is not of this model.
        AmctError: One of its subclasses: the model cannot be read, or not be written to a temporary folder.
    """
    if ledger.origin is None or ledger.origin.record is None:
        yield model, frozenset()
        return
    from amct_onnx.files.read_record import parse_record  # imports protobuf's text format

    place = f"{ledger.path} (origin.record)"
    found = read_model(model)
    files = found.meta[INPUT_FILES]
    insert_recorded_quantizers(found, parse_record(ledger.origin.record, place), place)
    with as_file(found) as (path, _):
        try:
            yield path, frozenset(files)
        except AmctError as error:
            if os.fspath(path) not in str(error):
                raise
            named = f"{os.fspath(model)} (with the quantizers of the record that {ledger.path} holds)"
            raise type(error)(str(error).replace(os.fspath(path), named)) from error
