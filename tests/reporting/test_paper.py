from math import ceil, log

import pytest

from vqlib.reporting import paper


def test_the_ratio_of_errors_and_its_uncertainty():
    value, least, greatest = paper.error_ratio("projected")
    corners = [(0.0056 + a) / (0.0191 + b) for a in (-0.0003, 0.0003) for b in (-0.0003, 0.0003)]
    assert value == pytest.approx(0.0056 / 0.0191)
    assert (least, greatest) == pytest.approx((min(corners), max(corners)))
    assert greatest < 0.5  # the claim C1


def test_both_axes_stand_for_the_papers_one_projected_model():
    assert paper.error_ratio("projected_rows") == paper.error_ratio("projected")
    assert paper.error_ratio("vq") == (1, 1, 1)
    assert paper.error_ratio("identity") is None
    assert set(paper.COUNTERPART.values()) == set(paper.LOSSES)


def test_losses_are_read_to_four_decimals():
    for entry in paper.LOSSES.values():
        for split in ("train", "test"):
            assert set(entry[split]) == {"quantization", "reconstruction"}
            assert all(0 < value < 0.03 and round(value, 4) == value for value in entry[split].values())


def test_the_setting_agrees_with_itself():
    setting = paper.SETTING
    assert setting["steps"] == 100 * ceil(setting["train_images"] / setting["batch_size"])
    assert setting["test_images"] == 10_000 // setting["batch_size"] * setting["batch_size"]
    grid = setting["image_size"] // 4
    assert setting["scalars_per_image_of_projected"] == grid**2
    assert setting["scalars_per_image_of_projected_rows"] == setting["width"] * grid
    assert pytest.approx(3.333 / log(2), abs=0.005) == paper.PRIOR_BITS_PER_CODE
