import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_results import NAME, make_repository, weights

from vqlib.errors import ReportError, UserError
from vqlib.params import load_experiment
from vqlib.reporting.reading import HISTORY, PRIOR
from vqlib.reporting.results import deviation_of, load_results


@pytest.fixture
def root(tmp_path):
    return make_repository(tmp_path / "copy")


LOG = f"{','.join(HISTORY)}\n9,train,0.25,0.1,8,0.1\n9,validation,0.25,0.1,8,\n".encode()


def prior(**changes) -> bytes:
    """Of the right form, but for what changes."""
    content = {"run": "vq-0", "variant": "vq", "reason": None, "chosen": "pixelcnn", "codes": {}, "reals": None,
               "bitstream": None, "rate": dict.fromkeys(PRIOR["rate"], 0.5),
               "samples": {key: {} for key in PRIOR["samples"]}, "provenance": {"hardware": "CPU"}}  # fmt: skip
    return json.dumps(content | changes).encode()


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
        (
            damage(".csv", f"{','.join(HISTORY)}\n1,train,0.1,0.1,8,0.1\n".encode()),
            "vq-0.csv: no row has an error on the split validation",
        ),
        (damage(".json", seed=7), "seed is 7; it must be 0"),
        (damage(".json", train={"mse": [1]}), "train.mse is [1]; it must be a number"),
        (damage(".json", train={"mse": None}), "train.mse is None; it must be a number"),
        (damage(".json", train={"mse": 0.1, "ssim": "abc"}), "train.ssim is 'abc'; it must be a number"),
        (damage(".prior.json", prior(reals=3)), "vq-0.prior.json: reals is 3; it must be a mapping or null"),
        (damage(".prior.json", prior(rate=dict.fromkeys(PRIOR["rate"], "x"))), "rate.bpp_nominal is 'x'; it must be a"),
        (damage(".prior.json", prior(samples=dict.fromkeys(PRIOR["samples"], 1))), "samples.sliced_wasserstein is 1;"),
        (damage(".csv", LOG.replace(b"0.25", b"x.25")), "vq-0.csv: recon_loss has 'x.25'; it must be numbers"),
        (damage(".csv", LOG), "vq-0.csv: it ends at step 9 and vq-0.json was trained for 600"),
        (damage(".csv", LOG.replace(b"train", b"test")), "no row has an error on the split train"),
        (damage(".prior.json", b'{"run": "vq-0", "variant": "vq"}'), "vq-0.prior.json: the key 'reason' is missing"),
        (damage(".prior.json", b"[1]"), "vq-0.prior.json: the key 'run' is missing"),
        (damage(".prior.json", b'{"run": "vq-0", "variant": "vq", "reason": null}'), "the key 'chosen' is missing"),
        (damage(".prior.json", b'{"run": "vq-1", "variant": "vq", "reason": "none"}'), "run is 'vq-1'; it must be"),
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


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("steps", 100, "steps 100, params.yaml has 600"),
        ("batch_size", 1, "batch_size 1, params.yaml has 64"),
        ("learning_rate", 0.5, "learning_rate 0.5, params.yaml has 0.001"),
        ("width", 8, "width 8, params.yaml has 32"),
        ("image_size", 64, "image_size 64, params.yaml has 32"),
        ("num_embeddings", 256, "num_embeddings 256, params.yaml has 512"),
        ("resize", "other", "resize other, params.yaml has adm"),
        ("source", "cifar10", "source cifar10, params.yaml has photos"),
        ("data", "e" * 12, f"data {'e' * 12}, other runs have {'d' * 12}"),
    ],
)
def test_a_run_of_other_settings_is_left_out_and_named(root, key, value, told):
    path = root / "results" / NAME / "projected-0.json"
    content = json.loads(path.read_text())
    content["provenance"][key] = value
    path.write_text(json.dumps(content))
    results = load_results(NAME, root)
    assert results.left_out == {"projected-0": told}
    assert "projected-0" not in results.runs_of() and "projected-0" not in set(results.history["run"])


def test_as_many_runs_of_one_data_as_of_another_are_one_clear_line(root):
    names = list(load_experiment(NAME, root).runs)
    for run in names[: len(names) // 2]:
        path = root / "results" / NAME / f"{run}.json"
        content = json.loads(path.read_text())
        content["provenance"]["data"] = "e" * 12
        path.write_text(json.dumps(content))
    assert len(names) % 2 == 0
    with pytest.raises(ReportError, match=f"as many runs have the data .*{'e' * 12} .*{names[0]}"):
        load_results(NAME, root)


def test_codecs_of_another_form_are_one_clear_line(root):
    codecs = {"images": 4, "file_images": 2, "mosaic": {}, "settings": {}, "codecs": []}
    (root / "results" / NAME / "codecs.json").write_text(json.dumps(codecs))
    with pytest.raises(ReportError, match=r"codecs.json: codecs is \[\]; it must be a mapping"):
        load_results(NAME, root)


def test_results_of_none_of_these_settings_are_one_clear_line(root):
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("    steps: 600\n", "    steps: 700\n", 1))
    with pytest.raises(ReportError, match=r"no run is of the settings in params.yaml: .* has steps 600, .* has 700"):
        load_results(NAME, root)


def test_a_prior_of_other_weights_and_codecs_of_other_images_are_left_out(root):
    folder = root / "results" / NAME
    codecs = {"images": 4, "file_images": 2, "mosaic": {}, "settings": {}, "codecs": {}}
    for data, digest, missing in (("d" * 12, weights("vq-0"), set()),
                                  ("e" * 12, "f" * 12, {"codecs.json", "vq-0.prior.json"})):  # fmt: skip
        (folder / "codecs.json").write_text(json.dumps(codecs | {"data": data}))
        (folder / "vq-0.prior.json").write_bytes(prior(provenance={"hardware": "CPU", "weights": digest}))
        results = load_results(NAME, root)
        assert set(results.left_out) == missing
        assert (results.codecs is None, results.priors == {}) == (bool(missing), bool(missing))


def test_an_experiment_without_any_results_is_one_clear_line(root):
    shutil.rmtree(root / "results")
    with pytest.raises(ReportError, match=f"results/{NAME}: no run of .*vq-0.* has results"):
        load_results(NAME, root)


def test_the_deviation_of_gains_comes_from_their_histogram():
    assert deviation_of({"edges": [0.0, 1.0, 2.0, 3.0], "shares": [0.25, 0.5, 0.25]}) == pytest.approx(0.5**0.5)
    assert np.isnan(deviation_of(None))
