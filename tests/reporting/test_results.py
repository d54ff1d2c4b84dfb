import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_results import NAME, make_repository

from vqlib.errors import ReportError, UserError
from vqlib.reporting.results import HISTORY, deviation_of, load_results


@pytest.fixture
def root(tmp_path):
    return make_repository(tmp_path / "copy")


def damage(suffix: str, content: bytes | None = None, **changes):
    def apply(folder: Path) -> None:
        path = folder / f"vq-0{suffix}"
        if content is not None:
            path.write_bytes(content)
        else:
            path.write_text(json.dumps({key: value for key, value in (json.loads(path.read_text()) | changes).items()
                                        if value != "gone"}))  # fmt: skip

    return apply


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (damage(".json", b"{"), "vq-0.json: not valid JSON"),
        (damage(".json", test="gone"), "vq-0.json: the key 'test' is missing"),
        (damage(".json", rate={"bpp_codes": 1}), "vq-0.json: the key 'rate.bpp_32bit' is missing"),
        (damage(".json", run="vq-1"), "run is 'vq-1'; it must be 'vq-0'"),
        (damage(".json", variant="identity"), "variant is 'identity'; it must be 'vq'"),
        (damage(".csv", b""), "vq-0.csv: not a table"),
        (damage(".csv", b"step,split\n1,train\n"), "vq-0.csv: the column 'recon_loss' is missing"),
        (damage(".csv", f"{','.join(HISTORY)}\n1,train,0.1,0.1,8,0.1\n".encode()), "vq-0.csv: no row has a validation"),
        (damage(".png", b"no image"), "vq-0.png: not an image"),
        (damage(".png", png(np.zeros((16, 20, 3), np.uint8))), "it must be two rows of square thumbnails"),
        (damage(".png", png(np.zeros((16, 128, 3), np.uint8))), "shows other images than"),
    ],
)
def test_damaged_results_are_one_clear_line(root, harm, named):
    harm(root / "results" / NAME)
    with pytest.raises(UserError) as error:
        load_results(NAME, root)
    assert named in str(error.value) and f"results/{NAME}/" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_experiment_without_any_results_is_one_clear_line(root):
    shutil.rmtree(root / "results")
    with pytest.raises(ReportError, match=f"results/{NAME}: no run of .*vq-0.* has results"):
        load_results(NAME, root)


def test_the_deviation_of_gains_comes_from_their_histogram():
    assert deviation_of({"edges": [0.0, 1.0, 2.0, 3.0], "shares": [0.25, 0.5, 0.25]}) == pytest.approx(0.5**0.5)
    assert np.isnan(deviation_of(None))
