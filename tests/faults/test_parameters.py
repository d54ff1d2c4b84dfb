"""Bad parameters: one line each that names the key and what it may be, before any work, soon."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vqlib.errors import ParameterError
from vqlib.params import ROOT, load_experiment

SECONDS = {
    "Python": 2,
    "papermill": 10,
    "DVC": 10,
}  # of processor time, which other work on the machine does not change
GOOD = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
DELETED = object()
# (key, bad value, what the line must say)
CASES = [
    ("experiment.training.steps", 0, "training.steps is 0; it must be an integer from 1 to 10,000,000"),
    ("experiment.training.steps", -5, "an integer from 1 to 10,000,000"),
    ("experiment.training.steps", 10**9, "an integer from 1 to 10,000,000"),
    ("experiment.training.steps", "2000", "training.steps is '2000'; it must be an integer"),
    ("experiment.training.steps", 1.5, "training.steps is 1.5; it must be an integer"),
    ("experiment.training.steps", True, "training.steps is True; it must be an integer"),
    ("experiment.training.steps", None, "training.steps is None; it must be an integer"),
    ("experiment.training.steps", [1], "training.steps is [1]; it must be an integer"),
    ("experiment.training.steps", DELETED, "training.steps is missing; it must be an integer from 1 to 10,000,000"),
    ("experiment.training.batch_size", 0, "training.batch_size is 0; it must be an integer from 1 to 65,536"),
    ("experiment.training.batch_size", 10**6, "an integer from 1 to 65,536"),
    ("experiment.training.learning_rate", 0, "training.learning_rate is 0; it must be a number from 1e-08 to 10"),
    ("experiment.training.learning_rate", -1e-3, "training.learning_rate is -0.001"),
    ("experiment.training.learning_rate", 100, "training.learning_rate is 100"),
    ("experiment.training.learning_rate", float("nan"), "training.learning_rate is nan"),
    ("experiment.training.learning_rate", float("inf"), "training.learning_rate is inf"),
    ("experiment.training.learning_rate", "fast", "training.learning_rate is 'fast'; it must be a number"),
    ("experiment.training.device", "gpu", "training.device is 'gpu'; it must be one of auto, cpu, cuda"),
    ("experiment.training.precision", "float16", "it must be one of auto, float32, bfloat16"),
    ("experiment.training.log_every", 0, "training.log_every is 0; it must be an integer from 1 to 1,000,000"),
    ("experiment.training.checkpoint_every", 0, "training.checkpoint_every is 0; it must be an integer from 1"),
    ("experiment.training.step", 7, "training.step is not a known key; did you mean 'steps'?"),
    ("experiment.training", "long", "experiment.training is 'long'; it must be a mapping"),
    ("experiment.network.width", 0, "network.width is 0; it must be an integer from 1 to 4,096"),
    ("experiment.network.num_embeddings", 1, "num_embeddings is 1; it must be an integer from 2 to 1,048,576"),
    ("experiment.network.clean_skip", "no", "network.clean_skip is 'no'; it must be true or false"),
    ("experiment.network.withd", 32, "network.withd is not a known key; did you mean 'width'?"),
    ("experiment.data.source", "imagenot", "data.source is 'imagenot'; it must be one of photos, "),
    ("experiment.data.image_size", 30, "data.image_size is 30; it must be a multiple of 4 from 8 to 1,024"),
    ("experiment.data.image_size", 4, "a multiple of 4 from 8 to 1,024"),
    ("experiment.data.image_size", "32px", "data.image_size is '32px'; it must be a multiple of 4 from 8 to 1,024"),
    ("experiment.data.resize", "bilinear", "it must be one of adm, tv_bilinear, box_squash"),
    ("experiment.data.validation_every", 1, "validation_every is 1; it must be an integer from 2 to 10,000"),
    ("experiment.data.limit", 0, "data.limit is 0; it must be an integer from 1 to 10,000,000 or null"),
    ("experiment.name", "Sample!", "experiment"),
    ("experiments", {}, "'experiments' is not a known key; did you mean 'experiment'?"),
    ("runs.vq-0.variant", "vqq", "runs.vq-0.variant is 'vqq'; did you mean 'vq'?"),
    ("runs.vq-0.seed", -1, "runs.vq-0.seed is -1; it must be an integer from 0 to 2,147,483,647"),
    ("runs.vq-0.seed", 3, "runs.vq-0: a run is named <variant>-<seed> or <variant>-<seed>-lr<learning rate>, "
                          "here vq-3 or vq-3-lr"),
    ("runs.vq-0.bottleneck", "identity", "runs.vq-0.bottleneck is 'identity'; that of the variant vq is 'vq'"),
    ("runs.vq-0.sed", 0, "runs.vq-0.sed is not a known key; did you mean 'seed'?"),
    ("variants.vq.bottleneck", "vqq", "variants.vq.bottleneck is 'vqq'; did you mean 'vq'?"),
    ("variants.vq.num_embedings", 64, "'num_embedings' is not a known key; did you mean 'num_embeddings'?"),
    ("variants.vq.weights", {"commitment_loss": -1}, "weights.commitment_loss is -1; it must be a number from 0"),
    ("variants.frequency_8", {"bottleneck": "frequency"}, "variants.frequency_8.num_frequent is missing; it must be an "
                                                          "integer"),
    ("variants.fsq.levels", 8, "variants.fsq.levels is 8; it must be a list"),
    ("variants.fsq.levels", [8, "8"], "variants.fsq.levels.1 is '8'; it must be"),
    ("variants.VQ", {"bottleneck": "vq"}, "a variant's name is lower-case letters, digits and _"),
    ("experiment.training.devices", 0, "training.devices is 0; it must be auto or an integer from 1 to 1,024"),
]  # fmt: skip
SOME = {0, 21, 36}  # one of each kind: a range, an unknown key, an unknown name
IDS = [f"{key}={'nothing' if value is DELETED else value}" for key, value, _ in CASES]
THROUGH_DVC = {
    "a value out of range": ("experiment.training.steps", 0, "training.steps is 0; it must be an integer from 1 to"),
    "a value of another type": ("experiment.network.width", "wide", "network.width is 'wide'; it must be an integer"),
    "an unknown key": ("experiment.training.step", 7, "training.step is not a known key; did you mean 'steps'?"),
    "an unknown variant": ("runs.vq-0.variant", "vqq", "runs.vq-0.variant is 'vqq'; did you mean 'vq'?"),
}


def write_params(root: Path, key: str, value) -> None:
    content = json.loads(json.dumps(GOOD))
    *path, last = key.split(".")
    place = content
    for part in path:
        place = place[part]
    if value is DELETED:
        del place[last]
    else:
        place[last] = value
    with open(root / "params.yaml", "w") as file:
        YAML(typ="safe", pure=True).dump(content, file)


@pytest.fixture
def root(tmp_path) -> Path:
    """A repository with a copy of the code."""
    root = tmp_path / "root"
    for folder in ("vqlib", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", root)
    return root


def run(root: Path, limit: int, *command: str) -> tuple[int, list[str]]:
    """Exit status and lines of standard error; made sure that it took no more processor time than the limit."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, timeout=280)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < limit
    return done.returncode, done.stderr.splitlines()


def nothing_was_done(root: Path) -> bool:
    return not any((root / made).exists() for made in ("data", "runs", "results", "executed", "checkpoints", "reports"))


@pytest.mark.parametrize(("key", "value", "says"), CASES, ids=IDS)
def test_from_python(attempt, root, key, value, says):
    with attempt("training", "bad parameter, from Python") as seen:
        write_params(root, key, value)
        with pytest.raises(ParameterError) as caught:
            load_experiment("sample", root)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith("params.yaml") or key == "experiment.name"
        assert says in message
        seen("one line with the key and what it may be")


def test_python_answers_before_it_has_loaded_torch(root):
    write_params(root, *CASES[0][:2])
    code = "from vqlib.params import load_experiment; load_experiment('sample')"
    status, lines = run(root, SECONDS["Python"], "-c", code)
    assert status == 1
    assert CASES[0][2] in lines[-1]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [pytest.param(*case, marks=() if n in SOME else pytest.mark.faults) for n, case in enumerate(CASES)],
    ids=IDS,
)
def test_through_papermill(attempt, root, key, value, says):
    with attempt("training", "bad parameter, through papermill") as seen:
        write_params(root, key, value)
        command = (
            "run",
            "notebooks/02_train.ipynb",
            "executed/out.ipynb",
            "-r",
            "experiment",
            "sample",
            "-r",
            "run",
            "vq-0",
        )
        status, lines = run(root, SECONDS["papermill"], "-m", "vqlib.nb", *command)
        assert status == 2
        assert len(lines) == 1
        assert says in lines[0]
        assert nothing_was_done(root)
        seen("one line with the key and what it may be")


@pytest.mark.faults
@pytest.mark.parametrize("name", THROUGH_DVC)
def test_through_dvc(attempt, root, name):
    key, value, says = THROUGH_DVC[name]
    with attempt("training", "bad parameter, through DVC") as seen:
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
        write_params(root, key, value)
        status, lines = run(root, SECONDS["DVC"], "-m", "dvc", "repro")
        assert status != 0
        assert sum(line.startswith("error: params.yaml") for line in lines) == 1
        assert any(says in line for line in lines)
        assert not any("Traceback" in line for line in lines)
        assert nothing_was_done(root)
        seen("one line with the key and what it may be")
