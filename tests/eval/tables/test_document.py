from pathlib import Path

import pytest

from eval.tables import document
from sgflow_jax.interfaces import InputError


def test_a_table_is_replaced_between_the_lines_that_name_its_command(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- make it: begin -->\nold\n<!-- make it: end -->\nafter\n")
    for _ in range(2):
        document.Place(file, "make it").fill("| a |\n")
        expected = "before\n<!-- make it: begin -->\n\n| a |\n\n<!-- make it: end -->\nafter\n"
        assert file.read_text() == expected


def test_a_document_without_the_lines_is_rejected(tmp_path):
    file = tmp_path / "page.md"
    with pytest.raises(InputError, match="cannot be read.*make it: begin"):
        document.Place(file, "make it")
    file.write_text("<!-- make it: begin -->\n")
    with pytest.raises(InputError, match="no place.*make it: end"):
        document.Place(Path(file), "make it")
