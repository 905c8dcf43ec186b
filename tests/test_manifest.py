"""The ledger: a box is up to date exactly if nothing it was made from changed and nothing of it is missing."""

import json
from pathlib import Path

import pytest

from selflong import manifest


def build(folder: Path, text: str = "product", expected: str = "fp", inputs: dict[str, str] | None = None) -> None:
    with manifest.building(folder, "box", expected, inputs or {}, {"key": 1}) as (work, facts):
        (work / "data.txt").write_text(text)
        (work / ".resume").mkdir(exist_ok=True)
        (work / ".resume" / "journal").write_text("x")
        facts["count"] = 3


def test_product_appears_with_its_manifest_and_nothing_of_the_work(tmp_path: Path) -> None:
    build(tmp_path / "box")
    assert sorted(p.name for p in (tmp_path / "box").iterdir()) == ["data.txt", "manifest.json", "recipe.yaml"]
    found = json.loads((tmp_path / "box" / "manifest.json").read_text())
    assert found["facts"] == {"count": 3} and list(found["outputs"]) == ["data.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["box"]


def test_up_to_date_until_anything_differs(tmp_path: Path) -> None:
    folder = tmp_path / "box"
    build(folder, inputs={"a": "1"})
    assert manifest.is_up_to_date(folder, "fp", {"a": "1"})
    assert not manifest.is_up_to_date(folder, "other", {"a": "1"})
    assert not manifest.is_up_to_date(folder, "fp", {"a": "2"})
    (folder / "README.md").write_text("a card may be rewritten")
    assert manifest.is_up_to_date(folder, "fp", {"a": "1"})
    (folder / "data.txt").write_text("cut")
    assert not manifest.is_up_to_date(folder, "fp", {"a": "1"})


def test_a_failed_build_leaves_the_old_product_and_its_own_work(tmp_path: Path) -> None:
    folder = tmp_path / "box"
    build(folder, "old")
    with pytest.raises(RuntimeError), manifest.building(folder, "box", "new", {}, {}) as (work, _):
        (work / "data.txt").write_text("half")
        raise RuntimeError
    assert (folder / "data.txt").read_text() == "old"
    with manifest.building(folder, "box", "new", {}, {}) as (work, _):
        assert (work / "data.txt").read_text() == "half", "work of the same fingerprint is handed out again"
    with pytest.raises(RuntimeError), manifest.building(folder, "box", "third", {}, {}) as (work, _):
        assert not (work / "data.txt").exists(), "work of another fingerprint is thrown away"
        raise RuntimeError


def test_product_hash_ignores_cards_and_timings(tmp_path: Path) -> None:
    build(tmp_path / "one")
    build(tmp_path / "two")
    build(tmp_path / "three", "changed")
    hashes = [manifest.product_sha256(tmp_path / name) for name in ("one", "two", "three")]
    assert hashes[0] == hashes[1] != hashes[2]
