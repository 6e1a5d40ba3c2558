"""scripts/test-base: a root is whole or not there, and one that cannot be built says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_bases import BaseError, clean_base
from testhost import unmet


def test_a_root_is_built_once(bookworm_base: Path) -> None:
    built = bookworm_base.stat()
    again = clean_base("bookworm")
    assert (again, again.stat().st_ino, again.stat().st_mtime) == (bookworm_base, built.st_ino, built.st_mtime)


@pytest.mark.skipif(bool(unmet()), reason=f"test hosts cannot run here: {'; '.join(unmet())}")
def test_a_root_that_cannot_be_built_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources"
    sources.write_text(f"deb [trusted=yes] file:{tmp_path}/nowhere none main\n")
    cache = tmp_path / "cache"
    monkeypatch.setenv("AGENTD_TEST_CACHE", str(cache))
    monkeypatch.setenv("AGENTD_TEST_SOURCES", str(sources))
    with pytest.raises(BaseError, match="mmdebstrap"):
        clean_base("none")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
