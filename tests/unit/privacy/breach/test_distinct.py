"""Counting different values in constant memory."""

from __future__ import annotations

import hashlib
import tempfile

import pytest

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.breach.distinct import Distinct


def test_each_value_counts_once_whether_it_went_to_a_file_or_not():
    marks = [hashlib.sha256(str(n % 40_000).encode()).digest()[:16] for n in range(90_000)]
    with Distinct() as few, Distinct() as many:
        for mark in marks[:100]:
            few.add(mark)
        for _ in range(8):
            for mark in marks:
                many.add(mark)
        assert few.count() == 100
        assert many._files  # it does not fit
        assert many.count() == many.count() == 40_000
        assert len(set(many.values())) == 40_000


def test_a_full_disk_is_told_of(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with Distinct() as many, pytest.raises(ConfigurationError, match="temporary files cannot be written: No such file"):
        for n in range(200_000):
            many.add(bytes([1]) + n.to_bytes(15, "big"))
