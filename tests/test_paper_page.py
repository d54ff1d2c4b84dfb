"""docs/paper.md says of the paper what vqlib/reporting/paper.py says."""

import re
from math import log10

import pytest

from vqlib.params import ROOT, load_variants
from vqlib.reporting import paper
from vqlib.reporting.claims import DISAGREEMENTS
from vqlib.reporting.tables import number

PAGE = (ROOT / "docs" / "paper.md").read_text()
SETTING = {
    "codes K": "num_embeddings",
    "dimension D of a code, and channels of the network": "width",
    "batch": "batch_size",
    "steps": "steps",
    "learning rate": "learning_rate",
    "β": "beta",
    "test images": "test_images",
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its first line."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_its_losses_are_those_of_the_code():
    told = {cells[1].strip("`"): (cells[0], *map(float, cells[2:])) for cells in rows("Its numbers")}
    assert told == {
        variant: (loss["title"], *(loss[split][kind] for split in ("train", "test")
                                   for kind in ("quantization", "reconstruction")))
        for variant, loss in paper.LOSSES.items()
    }  # fmt: skip
    assert set(re.findall(r"±\s?([0-9.]+\d)", PAGE)) == {str(paper.UNCERTAINTY)}


def test_its_setting_is_that_of_the_code():
    told = {cells[0]: cells[1] for cells in rows("Setting")}
    for name, key in SETTING.items():
        value = float(re.match(r"[\d,.]+(e-\d+)?", told[name])[0].rstrip(",").replace(",", ""))
        assert value == paper.SETTING[key], name
    epochs, steps = map(int, re.search(r"(\d+) epochs of (\d+)", told["steps"]).groups())
    assert epochs * steps == paper.SETTING["steps"]
    train = f"{paper.SETTING['train_images']:,} for training"
    assert told["images"].startswith(f"{paper.SETTING['data']} at {paper.SETTING['image_size']} px") and train in PAGE
    assert f"batches of {paper.SETTING['batch_size']} with the last one dropped" in told["test images"]


def test_its_claims_and_disagreements_are_those_that_are_judged():
    assert {cells[0]: cells[1] for cells in rows("Its claims")} == paper.CLAIMS
    disagreements = {cells[0]: " ".join(cells) for cells in rows("Where text, page and code disagree")}
    assert list(disagreements) == [one.name for one in DISAGREEMENTS]
    for key in ("scalars_per_image_of_projected", "scalars_per_image_of_projected_rows"):
        assert re.search(rf"(?<![\d,]){paper.SETTING[key]:,}(?![\d,])", disagreements["1, axis"])
    error, base = (paper.LOSSES[name]["test"]["reconstruction"] for name in ("projected", "vq"))
    assert f"{base} / {error} = {number(base / error, 2)}" in disagreements["8, factor"]


@pytest.mark.parametrize("variant", ["projected", "vq"])
def test_its_decibels_follow_from_its_errors(variant):
    error = paper.LOSSES[variant]["test"]["reconstruction"]
    assert re.search(rf"{error} is {10 * log10(4 / error):.1f} dB", PAGE)


def test_its_bits_of_a_code_are_those_of_the_code():
    assert f"{paper.PRIOR_BITS_PER_CODE} bits per code" in PAGE


def test_every_variant_that_it_names_is_one():
    variants = load_variants()
    found = set(re.findall(r"`((?:vq|projected|frequency|combined|gain_shape)(?:_\w+)?(?:_<\w>)?)`", PAGE)) - {
        "vq_losses"
    }
    assert len(found) > 12
    for name in found:
        pattern = re.compile(re.sub(r"<\w>", r"\\d+", name))
        assert any(pattern.fullmatch(variant) for variant in variants), name
