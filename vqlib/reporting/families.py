"""Kinds of variants, known by their names: their order in every table and figure, and the hue of each kind.

A variant that matches no pattern is "other" and comes last, so a new one needs no entry here.
"""

import re
from collections.abc import Iterable

# Name of the family -> pattern of whole variant names. The first match counts.
FAMILIES = {
    "reference": r"vq|identity",
    "intervention": r"projected\w*_(detached|guard|released|no_loss)",
    "ours": r"gain_shape\w*|projected_unit",
    "projected": r"projected\w*|combined\w*",
    "frequency": r"frequency\w*",
    "control": r"vq_\w+|fsq\w*",
}
OTHER = "other"
TITLES = {
    "reference": "references",
    "projected": "the paper's projection",
    "frequency": "the paper's frequency latents",
    "control": "controls",
    "ours": "ours",
    "intervention": "interventions",
    OTHER: "others",
}


def family(variant: str) -> str:
    """The kind of a variant, a key of ``TITLES``."""
    return next((name for name, pattern in FAMILIES.items() if re.fullmatch(pattern, variant)), OTHER)


def in_order(variants: Iterable[str]) -> list[str]:
    """The variants once each, family by family, as they came within a family; vq first, identity after it."""
    ranks = list(TITLES)
    return sorted(dict.fromkeys(variants), key=lambda name: ranks.index(family(name)))


def divides_by_a_norm(variant: str) -> bool:
    """Whether the decoder's input is a projection, with the code's norm in a denominator: where C2 looks for peaks;
    of ``projected_unit`` it is the codes that are divided by their norms."""
    return variant.startswith(("projected", "combined"))


def stem(variant: str) -> tuple[str, int | None]:
    """``frequency_12`` as ("frequency", 12); None for the number where the name ends in none."""
    name, _, last = variant.rpartition("_")
    return (name, int(last)) if name and last.isdigit() else (variant, None)


def has_codebook(variant: str) -> bool:
    """Whether symbols name learnt codes; those of FSQ are rounded numbers."""
    return variant != "identity" and not variant.startswith("fsq")


def is_quiet(variant: str) -> bool:
    """Whether C2 compares with it: it is known to have a codebook and to divide by no norm. Of a model of a name of its
    own neither is known, so it has no vote."""
    return family(variant) != OTHER and has_codebook(variant) and not divides_by_a_norm(variant)
