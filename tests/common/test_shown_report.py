"""Reports in an interpreter, on a console of the user's own, and in a notebook."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import amct_onnx
from amct_onnx.common.shown_report import MAX_HTML, MAX_REPR
from support.small_models import qdq_model


@pytest.fixture
def report(tmp_path: Path) -> amct_onnx.ConversionReport:
    return amct_onnx.convert_qat_model(qdq_model(tmp_path), "m")


def test_repr_is_the_summary(report: amct_onnx.ConversionReport) -> None:
    assert repr(report) == f"<ConversionReport: {report.summary()}>"
    assert repr(report.check).startswith("<CheckReport: Check for ")
    examined = amct_onnx.doctor(feeds=1)
    assert repr(examined).startswith("<DoctorReport: The built-in u8s8 model")
    assert len(repr(replace(examined, model="m" * 80 + " of much data" * 90))) < MAX_REPR + 20


def test_a_call_of_atc_is_shown(report: amct_onnx.ConversionReport) -> None:
    command = amct_onnx.atc_command(report.deploy_model, "310P", input_shape="x:2,3")
    screen = io.StringIO()
    Console(file=screen, width=90).print(command)
    for shown in (screen.getvalue(), command._repr_html_()):
        assert "--framework=5" in shown and "--soc_version=" in shown and command.hints[-1].split()[-1] in shown


def test_a_console_of_the_user_shows_the_table_without_reading_markup(report: amct_onnx.ConversionReport) -> None:
    (entry,) = report.layers[:1]
    screen = io.StringIO()
    Console(file=screen, width=90, force_terminal=True).print(replace(report, layers=(replace(entry, name="a[red]b"),)))
    assert "a[red]b" in screen.getvalue() and report.summary() in screen.getvalue()


def test_cell_of_a_notebook_is_bounded(report: amct_onnx.ConversionReport) -> None:
    (entry,) = report.layers[:1]
    name = "<script>alert(1)</script>"
    html = replace(report, layers=(replace(entry, name=name),))._repr_html_()
    assert "&lt;script&gt;alert(1)" in html and "<script" not in html and report.summary() in html
    long = replace(report, layers=tuple(replace(entry, name=f"{n:05}" * 100) for n in range(1000)))
    assert 0 < len(long._repr_html_()) <= MAX_HTML
    many = replace(report, layers=tuple(replace(entry, name=f"layer{n}") for n in range(1000)))
    assert "30 of 1,000 rows" in many._repr_html_() and len(many._repr_html_()) <= MAX_HTML
