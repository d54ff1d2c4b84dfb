"""Parameters: what is read, and that every mistake is one line with file, key and what it may be."""

import shutil
import subprocess
import sys
from typing import Any

import pytest

from vqlib.__main__ import main
from vqlib.errors import ParameterError
from vqlib.params import (
    ROOT,
    Codes,
    check_experiments,
    constructor_arguments,
    experiment_names,
    load_experiment,
    load_variants,
    raw_path,
    short,
)

SAMPLE = """
root: .
params: params.yaml
experiment:
  name: sample
  title: A title
  data: {source: photos, image_size: 32}
  network: {width: 8, num_embeddings: 512}
  training:
    steps: 20
    batch_size: 4
    learning_rate: 1e-4
  prior: {}
runs:
  vq-0: {variant: vq, bottleneck: vq, seed: 0}
  halved-1: {variant: halved, bottleneck: projected, seed: 1, learning_rate: 2}
variants:
  vq: {bottleneck: vq}
  halved: {bottleneck: projected, guard: 0.5, weights: {projection_loss: 1, commitment_loss: 0.25}}
"""
OTHER = """
root: ../..
params: experiments/other/params.yaml
experiment:
  name: other
  data: {source: tiny_imagenet, path: data/raw/tiny.zip, image_size: 64, limit: null}
  network: {width: 16, num_embeddings: 512, clean_skip: true}
  training: {steps: 20, batch_size: 4, learning_rate: 1}
  prior: {variants: []}
runs:
  vq-3: {variant: vq, bottleneck: vq, seed: 3}
"""


@pytest.fixture
def root(tmp_path):
    """A repository with two experiments and the real bottlenecks."""
    shutil.copytree(ROOT / "vqlib" / "bottlenecks", tmp_path / "vqlib" / "bottlenecks")
    (tmp_path / "experiments" / "other").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text(SAMPLE)
    (tmp_path / "experiments" / "other" / "params.yaml").write_text(OTHER)
    return tmp_path


def mistake(root, old: str, new: str, file: str = "params.yaml", name: str = "sample") -> str:
    """What loading says when ``old`` is written as ``new``."""
    text = (root / file).read_text()
    assert text.count(old) == 1
    (root / file).write_text(text.replace(old, new))
    with pytest.raises(ParameterError) as caught:
        load_experiment(name, root)
    message = str(caught.value)
    assert "\n" not in message
    assert file in message
    return message


def test_what_is_written_is_what_is_loaded(root):
    sample = load_experiment("sample", root)
    assert (sample.name, sample.title, sample.root) == ("sample", "A title", root)
    assert sample.training.learning_rate == 1e-4  # a number in YAML 1.2, text in 1.1
    assert (sample.data.path, sample.data.resize, sample.data.limit) == (None, "adm", None)
    halved = sample.run("halved-1")
    assert (halved.seed, halved.learning_rate) == (1, 2.0)
    assert halved.variant.options == {"guard": 0.5}
    assert halved.variant.weights == {"projection_loss": 1.0, "commitment_loss": 0.25}
    assert sample.run("vq-0").learning_rate == 1e-4  # the experiment's
    assert sample.run_folder(halved) == root / "runs" / "sample" / "halved-1"


def test_another_experiment_uses_the_roots_variants(root):
    other = load_experiment("other", root)
    assert other.title == "other"
    assert other.network.clean_skip
    assert other.run("vq-3").variant == load_variants(root)["vq"]
    assert experiment_names(root) == ["sample", "other"]


def test_every_experiment_of_this_repository_loads():
    for name in experiment_names():
        assert load_experiment(name).runs


def test_what_dvc_reads_is_checked_whichever_experiment_is_asked_for(root):
    """A copy that still has another's name stops every command of DVC, once a dvc.yaml lies beside it."""
    assert check_experiments(root=root) == ["sample"]
    shutil.copytree(root / "experiments" / "other", root / "experiments" / "mine")
    assert check_experiments("other", root) == ["sample"]
    said = r"mine/params\.yaml: params is 'experiments/other/params\.yaml'; it must be 'experiments/mine/params\.yaml'"
    with pytest.raises(ParameterError, match=said):
        check_experiments("mine", root)
    (root / "experiments" / "mine" / "dvc.yaml").touch()
    with pytest.raises(ParameterError, match=said):
        check_experiments("other", root)
    with pytest.raises(ParameterError, match="experiment 'othr' is not known; did you mean 'other'"):
        check_experiments("othr", root)


def test_a_run_that_is_not_there_is_one_line_before_dvc_is_asked(capsys):
    assert main(["check"]) == main(["check", "sample", "vq-0"]) == 0
    assert main(["check", "sample", "vq-00"]) == 2
    assert "run 'vq-00' is not in the experiment 'sample'; did you mean 'vq-0'" in capsys.readouterr().err


def test_seeds_of_a_variant_have_one_learning_rate(root):
    message = mistake(root, "  vq-0: {", "  halved-3: {variant: halved, bottleneck: projected, seed: 3}\n  vq-0: {")
    assert message.endswith(
        "runs.halved-1 has the learning rate 2, runs.halved-3 0.0001; seeds of a variant must have one: at another "
        "rate it is named halved-1-lr2e0"
    )


TYPES = [
    ("width: 8", "width: '8'", "experiment.network.width is '8'; it must be an integer from 1 to 4,096"),
    ("width: 8", "width: 8.0", "experiment.network.width is 8.0; it must be an integer"),
    ("width: 8", "width: true", "experiment.network.width is True; it must be an integer"),
    ("width: 8", "width: null", "experiment.network.width is None; it must be an integer"),
    ("width: 8", "width: [8]", "experiment.network.width is [8]; it must be an integer"),
    ("width: 8", "width: 0", "experiment.network.width is 0; it must be an integer from 1 to 4,096"),
    ("width: 8", "width: -3", "experiment.network.width is -3; it must be an integer from 1"),
    ("num_embeddings: 512", "num_embeddings: 1", "num_embeddings is 1; it must be an integer from 2 to 1,048,576"),
    ("steps: 20", "steps: 10000001", "training.steps is 10000001; it must be an integer from 1 to 10,000,000"),
    ("learning_rate: 1e-4", "learning_rate: '1e-4'", "learning_rate is '1e-4'; it must be a number from 1e-08 to 10"),
    ("learning_rate: 1e-4", "learning_rate: true", "learning_rate is True; it must be a number from 1e-08 to 10"),
    ("learning_rate: 1e-4", "learning_rate: 11", "learning_rate is 11; it must be a number from 1e-08 to 10"),
    ("learning_rate: 1e-4", "learning_rate: .nan", "learning_rate is nan; it must be a number from 1e-08 to 10"),
    ("learning_rate: 1e-4", "learning_rate: .inf", "learning_rate is inf; it must be a number from 1e-08 to 10"),
    ("learning_rate: 1e-4", "learning_rate: 0", "learning_rate is 0; it must be a number from 1e-08 to 10"),
    ("image_size: 32", "image_size: 30", "data.image_size is 30; it must be a multiple of 4 from 8 to 1,024"),
    ("source: photos", "source: flickr", "data.source is 'flickr'; it must be one of photos, folder, tiny_im"),
    ("source: photos", "source: photos, resize: best", "data.resize is 'best'; it must be one of adm, tv_bilinear,"),
    ("source: photos", "source: photos, limit: 0", "data.limit is 0; it must be an integer from 1 to 10,000,000 or nu"),
    ("source: photos", "source: photos, path: 3", "experiment.data.path is 3; it must be text or null"),
    ("title: A title", "title: 7", "experiment.title is 7; it must be text"),
    ("{width: 8, num_embeddings: 512}", "8", "experiment.network is 8; it must be a mapping"),
    ("batch_size: 4", "batch_size: 4\n    device: gpu", "training.device is 'gpu'; it must be one of auto, cpu, cuda"),
    ("batch_size: 4", "batch_size: 4\n    devices: 0", "devices is 0; it must be auto or an integer from 1 to 1,024"),
    ("batch_size: 4", "batch_size: 4\n    devices: all", "devices is 'all'; it must be auto or an integer from 1 to"),
    ("batch_size: 4", "batch_size: 4\n    precision: half", "precision is 'half'; it must be one of auto, float32,"),
    ("vq, seed: 0", "vq, seed: -1", "runs.vq-0.seed is -1; it must be an integer from 0 to 2,147,483,647"),
    ("vq, seed: 0", "vq, seed: false", "runs.vq-0.seed is False; it must be an integer from 0"),
    ("seed: 1, learning_rate: 2", "seed: 1, learning_rate: 20", "halved-1.learning_rate is 20; it must be a number"),
    ("commitment_loss: 0.25", "commitment_loss: -1", "weights.commitment_loss is -1; it must be a number from 0"),
    ("commitment_loss: 0.25", "commitment_loss: x", "weights.commitment_loss is 'x'; it must be a number from 0"),
    ("commitment_loss: 0.25", "commitment_loss: yes", "weights.commitment_loss is 'yes'; it must be a number from 0"),
    ("commitment_loss: 0.25", "commitment_loss: true", "weights.commitment_loss is True; it must be a number from 0"),
    ("commitment_loss: 0.25", "commitment_loss: .nan", "weights.commitment_loss is nan; it must be a number from 0"),
    ("{projection_loss: 1, commitment_loss: 0.25}", "[1]", "variants.halved.weights is [1]; it must be a mapping"),
    ("guard: 0.5", "guard: small", "variants.halved.guard is 'small'; it must be a number"),
    ("guard: 0.5", "guard: true", "variants.halved.guard is True; it must be a number"),
    ("guard: 0.5", "detach_code: 1", "variants.halved.detach_code is 1; it must be true or false"),
    ("guard: 0.5", "num_embeddings: 2.5", "variants.halved.num_embeddings is 2.5; it must be an integer"),
    ("guard: 0.5", "num_embeddings: 1", "variants.halved.num_embeddings is 1; it must be an integer from 2 to 1,048,"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), TYPES, ids=[new for _, new, _ in TYPES])
def test_a_wrong_type_or_range(root, old, new, said):
    assert said in mistake(root, old, new)


UNKNOWN = [
    ("params: params.yaml", "parms: params.yaml", "'parms' is not a known key; did you mean 'params'?"),
    ("title: A title", "titel: A title", "experiment: 'titel' is not a known key; did you mean 'title'?"),
    ("width: 8", "widht: 8", "experiment.network.widht is not a known key; did you mean 'width'?"),
    ("image_size: 32", "imagesize: 32", "experiment.data.imagesize is not a known key; did you mean 'image_size'?"),
    ("batch_size: 4", "batchsize: 4", "experiment.training.batchsize is not a known key; did you mean 'batch_size'?"),
    ("title: A title", "root: elsewhere", "experiment: 'root' is not a known key"),
    ("title: A title", "runs: {}", "experiment: 'runs' is not a known key"),
    ("seed: 1, learning_rate: 2", "seed: 1, learning_rat: 2", "runs.halved-1.learning_rat is not a known key; did you"),
    ("guard: 0.5", "gard: 0.5", "variants.halved: 'gard' is not a known key; did you mean 'guard'?"),
    ("guard: 0.5", "self: 0.5", "variants.halved: 'self' is not a known key"),
    ("guard: 0.5", "embedding_dim: 4", "variants.halved: 'embedding_dim' is not a known key"),
    ("vq: {bottleneck: vq}", "vq: {bottleneck: vq, guard: 1}", "variants.vq: 'guard' is not a known key"),
]


@pytest.mark.parametrize(("old", "new", "said"), UNKNOWN, ids=[new for _, new, _ in UNKNOWN])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(root, old, new, said):
    message = mistake(root, old, new)
    assert said in message
    assert "it may be one of" in message


MISSING = [
    ("    steps: 20\n", "", "experiment.training.steps is missing; it must be an integer from 1 to 10,000,000"),
    ("  network: {width: 8, num_embeddings: 512}\n", "", "experiment.network is missing; it must be a mapping"),
    ("source: photos, ", "", "experiment.data.source is missing; it must be one of photos, folder, tiny_im"),
    ("  name: sample\n", "", "experiment.name is None; it must be"),
    ("vq, seed: 0", "vq", "runs.vq-0.seed is missing; it must be an integer"),
    ("bottleneck: projected, seed: 1", "seed: 1", "runs.halved-1.bottleneck is missing; it must be text"),
    ("vq: {bottleneck: vq}", "vq: {}", "variants.vq.bottleneck is None"),
    ("params: params.yaml\n", "", "params is None; it must be 'params.yaml'"),
    ("root: .\n", "", "root is None; it must be '.'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), MISSING, ids=[said.split(" is ")[0] for _, _, said in MISSING])
def test_a_missing_key(root, old, new, said):
    assert said in mistake(root, old, new)


NAMED = "a run is named <variant>-<seed> or <variant>-<seed>-lr<learning rate>"
RELATIONS = [
    ("  vq-0:", "  vq-1:", f"runs.vq-1: {NAMED}, here vq-0 or vq-0-lr1e-4"),
    ("  vq-0:", "  7:", f"runs.7: {NAMED}, here vq-0 or vq-0-lr1e-4"),
    ("  vq-0:", "  vq-0-lr2e-3:", f"runs.vq-0-lr2e-3: {NAMED}, here vq-0 or vq-0-lr1e-4"),
    ("{variant: vq,", "{variant: vqq,", "runs.vq-0.variant is 'vqq'; did you mean 'vq'?"),
    ("bottleneck: projected, seed", "bottleneck: vq, seed", "is 'vq'; that of the variant halved is 'projected'"),
    ("vq: {bottleneck: vq}", "vq: {bottleneck: projectd}", "vq.bottleneck is 'projectd'; did you mean 'projected'?"),
    ("vq: {bottleneck: vq}", "vq: {bottleneck: ../vq}", "variants.vq.bottleneck is '../vq'"),
    ("vq: {bottleneck: vq}", "vq: {bottleneck: [vq]}", "variants.vq.bottleneck is ['vq']"),
    ("vq: {bottleneck: vq}", "vq: vq", "variants.vq is 'vq'; it must be a mapping with the key bottleneck"),
    ("vq: {bottleneck: vq}", "VQ-1: {bottleneck: vq}", "variants.VQ-1: a variant's name is lower-case letters"),
    ("vq: {bottleneck: vq}", "5: {bottleneck: vq}", "variants.5: a variant's name is lower-case letters"),
    ("{variant: vq, bottleneck: vq, seed: 0}", "vq", "runs.vq-0 is 'vq'; it must be a mapping with the keys variant"),
    ("params: params.yaml", "params: other.yaml", "params is 'other.yaml'; it must be 'params.yaml'"),
    ("  prior: {}\n", "", "params.yaml: experiment.prior is missing; it may be `prior: {variants: []}`"),
    ("prior: {}", "prior: {variants: [vqq]}", "variants: 'vqq' is no variant and no run here; did you mean 'vq'?"),
    ("prior: {}", "prior: {variants: [vq-00]}", "'vq-00' is no variant and no run here; did you mean 'vq-0'?"),
    ("root: .", "root: /", "root is '/'; it must be '.'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rate", "name"), [(1e-3, "1e-3"), (2e-3, "2e-3"), (2.5e-4, "25e-5"), (0.5, "5e-1"), (1.0, "1e0"), (3e-8, "3e-8")]
)
def test_a_learning_rate_in_a_name_has_no_dot_and_is_itself(rate, name):
    assert short(rate) == name
    assert float(name) == rate


def test_a_run_may_have_its_learning_rate_in_its_name(root):
    entry = "  vq-0-lr2e-3: {variant: vq, bottleneck: vq, seed: 0, learning_rate: 2e-3}"
    (root / "params.yaml").write_text(SAMPLE.replace("  vq-0: {variant: vq, bottleneck: vq, seed: 0}", entry))
    assert load_experiment("sample", root).run("vq-0-lr2e-3").learning_rate == 2e-3


@pytest.mark.parametrize(("old", "new", "said"), RELATIONS, ids=[new for _, new, _ in RELATIONS])
def test_names_that_do_not_fit_together(root, old, new, said):
    assert said in mistake(root, old, new)


BROKEN = [
    ("root: .", "root: [", "line "),
    ("root: .", "root: .\nroot: .", 'line 3: not valid YAML 1.2 (found duplicate key "root"'),
    ("root: .", "\troot: .", "line 2: not valid YAML 1.2"),
    ("root: .", "root: \x07", "not valid YAML 1.2"),
    ("title: A title", "title: *unknown", "line 6: not valid YAML 1.2"),
    (SAMPLE, "", "must be a mapping"),
    (SAMPLE, "- a list", "must be a mapping"),
    (SAMPLE[SAMPLE.index("runs:") : SAMPLE.index("variants:")], "runs:\n", "runs is None; it must be a mapping"),
    (SAMPLE[SAMPLE.index("variants:") :], "variants: 3\n", "variants is 3; it must be a mapping"),
]


@pytest.mark.parametrize(("old", "new", "said"), BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_is_no_yaml_or_no_mapping(root, old, new, said):
    assert said in mistake(root, old, new)


def test_a_file_that_is_no_text(root):
    (root / "params.yaml").write_bytes(b"root: \xff\xfe")
    with pytest.raises(ParameterError, match=r"^params\.yaml: not valid YAML 1\.2 \(.*\)$"):
        load_experiment("sample", root)


def test_mistakes_in_another_experiment_name_its_file(root):
    file = "experiments/other/params.yaml"
    assert f"{file}: experiment.network.width is -1" in mistake(root, "width: 16", "width: -1", file, "other")


@pytest.mark.parametrize("new", ["name: another", "name: [other]"])
def test_an_experiment_bears_its_folders_name(root, new):
    message = mistake(root, "name: other", new, "experiments/other/params.yaml", "other")
    assert message.endswith("it must be 'other'")


def test_variants_belong_to_the_root_alone(root):
    message = mistake(
        root, "runs:", "variants: {vq: {bottleneck: vq}}\nruns:", "experiments/other/params.yaml", "other"
    )
    assert "'variants' is not a known key" in message


@pytest.mark.parametrize("name", ["smple", "../other", "Other", "", "other/"])
def test_an_unknown_experiment(root, name):
    with pytest.raises(ParameterError) as caught:
        load_experiment(name, root)
    message = str(caught.value)
    assert "\n" not in message
    assert f"experiment {name!r} is not known" in message
    assert "other, sample" in message


def test_an_unknown_run(root):
    with pytest.raises(ParameterError, match=r"run 'vq-1' is not in the experiment 'sample'; did you mean 'vq-0'\?"):
        load_experiment("sample", root).run("vq-1")


def test_a_missing_file(tmp_path):
    with pytest.raises(ParameterError, match=r"^params\.yaml is missing in "):
        load_experiment("sample", tmp_path)


def test_the_roots_experiment_has_a_name_that_can_be_a_folder(root):
    message = mistake(root, "name: sample", "name: ../sample", name="../sample")
    assert "experiment.name is '../sample'" in message


def test_a_file_without_a_bottleneck(root):
    (root / "vqlib" / "bottlenecks" / "empty.py").write_text("x = 1\n")
    with pytest.raises(ParameterError, match=r"empty\.py: holds no class Bottleneck") as caught:
        (root / "params.yaml").write_text(SAMPLE.replace("vq: {bottleneck: vq}", "vq: {bottleneck: empty}"))
        load_experiment("sample", root)
    assert "\n" not in str(caught.value)


def test_options_are_read_from_the_signature_without_importing_it(tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(
        "import nowhere\nclass Bottleneck(Base):\n"
        "    def __init__(self, embedding_dim: X, a: int, b=1, *, c: Any = 2): pass\n"
    )
    assert constructor_arguments(file) == {
        "a": (int, ...),
        "b": (Any, None),
        "c": (Any, None),
        "num_embeddings": (Codes, None),
    }
    file.write_text("class Bottleneck(Base): pass\n")
    assert constructor_arguments(file) == {"num_embeddings": (Codes, None)}
    file.write_text("class Bottleneck(Base):\n    def __init__(self, x, levels: list, *, k: str, n=None): pass\n")
    assert constructor_arguments(file)["levels"] == (list[float], ...)
    assert constructor_arguments(file)["k"] == (str, ...)
    assert constructor_arguments(file)["n"] == (Any, None)


@pytest.fixture
def toy(root):
    """Makes a bottleneck whose ``__init__`` has these arguments the sample's, and returns its options as loaded when
    these are written."""

    def load(arguments: str, options: str) -> dict:
        source = f"class Bottleneck(Base):\n    def __init__({arguments}): pass\n"
        (root / "vqlib" / "bottlenecks" / "toy.py").write_text(source)
        written = SAMPLE.replace("vq: {bottleneck: vq}", f"vq: {{bottleneck: toy, {options}}}")
        (root / "params.yaml").write_text(written)
        return load_variants(root)["vq"].options

    return load


OPTIONS = [
    ("self, /, num_embeddings, embedding_dim, a=3", "a: x", {"a": "x"}),
    ("self, num_embeddings, embedding_dim, model_config: int", "model_config: 3", {"model_config": 3}),
    ("self, *, copy: int = 1, _x: str = '', model_dump: int = 1", "copy: 2, _x: y, model_dump: 4",
     {"copy": 2, "_x": "y", "model_dump": 4}),
    ("self, scale: float | None = None", "scale: null", {"scale": None}),
    ("self, scale: float | None = None", "scale: 2", {"scale": 2}),
    ("self, scale: 'float | None' = None", "scale: 0.5", {"scale": 0.5}),
    ("self, size: None | int | list[int]", "size: [1, 2]", {"size": [1, 2]}),
    ("self, sizes: list", "sizes: [1, 0.5]", {"sizes": [1, 0.5]}),
    ("self, sizes: list[float]", "sizes: [1, 0.5]", {"sizes": [1, 0.5]}),
    ("self, names: list[str], more: dict", "names: [a], more: {b: 1}", {"names": ["a"], "more": {"b": 1}}),
    ("self, free: Any, other: typing.Any", "free: [a], other: 1", {"free": ["a"], "other": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "written", "options"), OPTIONS)
def test_an_option_is_what_its_annotation_says(toy, arguments, written, options):
    assert toy(arguments, written) == options


MISFITS = [
    ("self, scale: float | None = None", "scale: abc", "vq.scale is 'abc'; it must be a number or null"),
    ("self, scale: 'float | None'", "scale: abc", "vq.scale is 'abc'; it must be a number or null"),
    ("self, scale: float | None", "num_embeddings: 2", "vq.scale is missing; it must be a number or null"),
    ("self, model_config: int", "model_config: x", "vq.model_config is 'x'; it must be an integer"),
    ("self, sizes: list[float]", "sizes: abc", "vq.sizes is 'abc'; it must be a list, each value a number"),
    ("self, sizes: list[float]", "sizes: [1, abc]", "vq.sizes.1 is 'abc'; it must be a number"),
    ("self, sizes: list", "sizes: [1, abc]", "vq.sizes.1 is 'abc'; it must be a number"),
    ("self, sizes: list[int]", "sizes: [1, 0.5]", "vq.sizes.1 is 0.5; it must be an integer"),
    ("self, sizes: list[int] | None", "sizes: [1, x]", "vq.sizes is [1, 'x']; it must be a list, each value an integer "
                                                       "or null"),
    ("self, scale: Optional[float]", "scale: abc", "vq.scale is 'abc'; it must be a number or null"),
    ("self, kind: Literal['a', 'b']", "kind: c", "vq.kind is 'c'; it must be"),
    ("self, kind: typing.Literal['a'] | None", "kind: c", "vq.kind is 'c'; it must be"),
    ("self, more: dict", "more: 3", "vq.more is 3; it must be a mapping"),
    ("self, num_embeddings, embedding_dim, /, a=3", "a: 1",
     "toy.py, line 2: num_embeddings is by position only; it must stand after the /, since all are given by name"),
    ("self, embedding_dim, /, a=3", "a: 1", "toy.py, line 2: embedding_dim is by position only"),
    ("self, a: Literal[()] = None", "a: 1", "toy.py, line 2: a is annotated Literal[()]; it may be bool, int,"),
    ("self, a: Literal[[1]] = None", "a: 1", "toy.py, line 2: a is annotated Literal[[1]]; it may be bool, int,"),
    ("self, a: Tensor", "a: 1", "toy.py, line 2: a is annotated Tensor; it may be bool, int, float, str, list, "),
    ("self, a: list[list[int]] | None = None", "a: 1", "a is annotated list[list[int]] | None; it may be bool, int,"),
    ("self, a: 'no annotation'", "a: 1", "toy.py, line 2: a is annotated 'no annotation'; it may be bool, int,"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "written", "said"), MISFITS)
def test_an_option_or_argument_that_does_not_fit_is_one_line(toy, arguments, written, said):
    with pytest.raises(ParameterError) as caught:
        toy(arguments, written)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"), [(b"class Bottleneck(:\n", ", line 1: not Python"), (b"\xff", ": not Python")]
)
def test_an_unfinished_bottleneck_is_one_line_that_names_the_file(tmp_path, content, said):
    file = tmp_path / "broken.py"
    file.write_bytes(content)
    with pytest.raises(ParameterError) as caught:
        constructor_arguments(file)
    assert str(caught.value).startswith(f"{file}{said}") and "\n" not in str(caught.value)


def test_raw_data_may_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("VQLIB_RAW", raising=False)
    assert raw_path("data/raw/a/b.zip", tmp_path) == tmp_path / "data/raw/a/b.zip"
    monkeypatch.setenv("VQLIB_RAW", str(tmp_path / "big disk"))
    assert raw_path("data/raw/a/b.zip") == tmp_path / "big disk" / "a" / "b.zip"
    assert raw_path("data/rawer/b.zip", tmp_path) == tmp_path / "data/rawer/b.zip"
    assert raw_path("/elsewhere/b.zip", tmp_path).as_posix() == "/elsewhere/b.zip"


def test_parameters_are_checked_without_torch():
    program = (
        "import sys; from vqlib.params import load_experiment; load_experiment('sample'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
