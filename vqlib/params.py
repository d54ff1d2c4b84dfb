"""Experiments, variants and runs as the params.yaml files describe them, loaded and checked in one place.

The root's params.yaml is the experiment ``sample`` and defines the variants, once for all experiments; every other
experiment is ``experiments/<name>/params.yaml``. Nothing here imports torch, so a mistake is reported at once.
"""

import ast
import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vqlib.errors import ParameterError

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"[a-z][a-z0-9_]*")
LearningRate = Annotated[float, Field(ge=1e-8, le=10)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Codes = Annotated[int, Field(ge=2, le=2**20)]
Devices = Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
PLAIN = {"bool": bool, "int": int, "float": float, "str": str}
# How an option of a bottleneck may be annotated.
KINDS = {**PLAIN, "list": list[float], **{f"list[{name}]": list[kind] for name, kind in PLAIN.items()},
         "dict": dict, "None": None, "Any": Any, "typing.Any": Any}  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(_Section):
    """What images an experiment sees."""

    source: Literal["photos", "folder", "tiny_imagenet", "imagenet", "imagenette", "cifar10"]
    path: str | None = None  # where the source lies, relative to the root; null where the source needs none
    image_size: int = Field(ge=8, le=1024, multiple_of=4)  # pixels, both sides
    resize: Literal["adm", "tv_bilinear", "box_squash"] = "adm"
    validation_every: int = Field(25, ge=2, le=10_000)  # each n-th training image of a class is for validation
    limit: int | None = Field(None, ge=1, le=10_000_000)  # training images per class; null for all
    partial: bool = False  # whether a sample of imagenet or imagenette will do; bad images are dropped, also of folder
    download: bool = False  # whether torchvision may fetch imagenette or cifar10 where it is missing


class Network(_Section):
    """Encoder and decoder, and the codebook's size unless a variant sets its own."""

    width: int = Field(ge=1, le=4096)  # channels inside, and the dimension D of the latents
    num_embeddings: Codes  # K
    clean_skip: bool = False  # the ablation of networks.ResidualBlock


class Training(_Section):
    """The budget and the optimiser of every run."""

    steps: int = Field(ge=1, le=10_000_000)
    batch_size: int = Field(ge=1, le=65_536)
    learning_rate: LearningRate  # of Adam
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Devices = 1  # processes with one device each that train a run together; auto: as many as there are GPUs
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the network; codes are always chosen in float32
    log_every: int = Field(100, ge=1, le=1_000_000)  # steps
    checkpoint_every: int = Field(500, ge=1, le=1_000_000)  # steps


class PriorNetwork(_Section):
    """One network of a prior and the budget to train it with."""

    layers: int = Field(ge=1, le=100)
    channels: int = Field(ge=1, le=4096)
    steps: int = Field(ge=1, le=10_000_000)
    learning_rate: LearningRate = 3e-4  # of Adam at the start; goes to 0 along a cosine


class Prior(_Section):
    """The priors of every run (vqlib/priors). The paper's is a pixelcnn of 15 layers and 64 channels."""

    variants: list[str] | None = None  # those that get one, or single runs by name; null for all
    pixelcnn: PriorNetwork = PriorNetwork(layers=15, channels=64, steps=39_100)
    transformer: PriorNetwork = PriorNetwork(layers=6, channels=128, steps=39_100)
    reals: PriorNetwork = PriorNetwork(layers=6, channels=64, steps=39_100)  # of gains, given the codes
    batch_size: int = Field(128, ge=1, le=65_536)
    log_every: int = Field(500, ge=1, le=1_000_000)  # steps; validation and a checkpoint come as often
    samples: int = Field(1000, ge=16, le=100_000)  # images drawn to be compared with the test split

    def wants(self, run: "Run") -> bool:
        """Whether ``run`` is to have one."""
        return self.variants is None or run.name in self.variants or run.variant.name in self.variants


class Variant(_Section):
    """A bottleneck with its numbers."""

    name: str
    bottleneck: str  # a file of vqlib/bottlenecks
    options: dict[str, Any] = {}  # keyword arguments of its Bottleneck
    weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = {}  # of its losses; 1 where none is given


class RunEntry(_Section):
    """A run as params.yaml writes it. DVC reads ``bottleneck`` too, to depend on that one file."""

    variant: str
    bottleneck: str
    seed: Seed
    learning_rate: LearningRate | None = None  # null for the experiment's


class Run(_Section):
    """One training: a variant with a seed, inside an experiment."""

    name: str
    variant: Variant
    seed: int
    learning_rate: float


class Experiment(_Section):
    """Data, network, budget and runs. ``root`` is the repository that it lives in."""

    name: str
    title: str
    judges: bool = False  # whether its runs are held against the paper's claims, in its report and in the study
    data: Data
    network: Network
    training: Training
    prior: Prior = Prior()
    runs: dict[str, Run] = {}
    root: Path = ROOT

    def run(self, name: str) -> Run:
        """Raises ParameterError, with the nearest known name, for a run that the experiment lacks."""
        if name not in self.runs:
            raise ParameterError(f"run {name!r} is not in the experiment {self.name!r}{nearest(name, self.runs)}")
        return self.runs[name]

    @property
    def prepared(self) -> Path:
        return self.root / "data" / "prepared" / self.name

    @property
    def results(self) -> Path:
        return self.root / "results" / self.name

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.name

    def run_folder(self, run: Run) -> Path:
        return self.root / "runs" / self.name / run.name


def raw_path(path: str, root: Path = ROOT) -> Path:
    """Where raw data lie. The environment variable ``VQLIB_RAW`` names a folder that stands in for ``data/raw``."""
    elsewhere = os.environ.get("VQLIB_RAW")
    if elsewhere and Path(path).parts[:2] == ("data", "raw"):
        return Path(elsewhere).expanduser().resolve().joinpath(*Path(path).parts[2:])
    return root / Path(path).expanduser()


def experiment_names(root: Path = ROOT) -> list[str]:
    """The root's experiment first, then the folders of experiments/ in order."""
    return [_root_name(root), *sorted(path.parent.name for path in (root / "experiments").glob("*/params.yaml"))]


def load_experiment(name: str, root: Path = ROOT) -> Experiment:
    """Read, check and return one experiment.

    Raises:
        ParameterError: one line that names the file, the key and what it may be.
    """
    is_root = name == _root_name(root)
    file = "params.yaml" if is_root else f"experiments/{name}/params.yaml"
    if not is_root and not (NAME.fullmatch(name) and (root / file).is_file()):
        raise ParameterError(f"experiment {name!r} is not known{nearest(name, experiment_names(root))}")
    content = _read(root, file)
    _refuse_unknown(content, ["root", "params", "experiment", "runs", *(["variants"] if is_root else [])], file)
    for key, value in (("root", "." if is_root else "../.."), ("params", file)):  # dvc.yaml relies on both
        if content.get(key) != value:
            raise ParameterError(f"{file}: {key} is {content.get(key)!r}; it must be {value!r}")
    described = _mapping(content, "experiment", file)
    if described.get("name") != name:
        raise ParameterError(f"{file}: experiment.name is {described.get('name')!r}; it must be {name!r}")
    known = ["name", "title", "judges", "data", "network", "training", "prior"]
    _refuse_unknown(described, known, f"{file}: experiment")
    if "prior" not in described:  # dvc.yaml names it
        raise ParameterError(f"{file}: experiment.prior is missing; it may be `prior: {{variants: []}}`, for none")
    entries = _mapping(content, "runs", file)
    experiment = _build(Experiment, {"title": name, **described, "root": root}, f"{file}: experiment")
    variants = load_variants(root)
    runs = {run: _run(run, entry, variants, experiment, f"{file}: runs.{run}") for run, entry in entries.items()}
    _refuse_unlike_seeds(runs.values(), file)
    for given in experiment.prior.variants or []:
        if given not in variants and given not in runs:
            raise ParameterError(f"{file}: experiment.prior.variants: {given!r} is no variant and no run here"
                                 f"{nearest(given, [*variants, *runs])}")  # fmt: skip
    return experiment.model_copy(update={"runs": runs})


def check_experiments(asked: str | None = None, root: Path = ROOT) -> list[str]:
    """Load every experiment that has a dvc.yaml, as DVC reads them all whichever is asked for, and the one that is.

    Returns:
        The names of the former.

    Raises:
        ParameterError: one line about the first that is not in order.
    """
    first, *others = experiment_names(root)
    names = [first, *(name for name in others if (root / "experiments" / name / "dvc.yaml").is_file())]
    for name in dict.fromkeys([asked or first, *names]):
        load_experiment(name, root)
    return names


def _refuse_unlike_seeds(runs: Iterable[Run], file: str) -> None:
    """Runs without a learning rate in their names are seeds of one model, and averaged as such."""
    first: dict[str, Run] = {}
    for run in runs:
        if run.name == f"{run.variant.name}-{run.seed}":
            other = first.setdefault(run.variant.name, run)
            if run.learning_rate != other.learning_rate:
                raise ParameterError(
                    f"{file}: runs.{run.name} has the learning rate {run.learning_rate:g}, runs.{other.name} "
                    f"{other.learning_rate:g}; seeds of a variant must have one: at another rate it is named "
                    f"{run.name}-lr{short(run.learning_rate)}"
                )


def load_variants(root: Path = ROOT) -> dict[str, Variant]:
    """All variants of the root's params.yaml, checked against the signatures of their bottlenecks."""
    entries = _mapping(_read(root, "params.yaml"), "variants", "params.yaml")
    return {name: _variant(name, entry, root) for name, entry in entries.items()}


def _variant(name: str, entry: Any, root: Path) -> Variant:
    where = f"params.yaml: variants.{name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ParameterError(f"{where}: a variant's name is lower-case letters, digits and _, and starts with a letter")
    if not isinstance(entry, dict):
        raise ParameterError(f"{where} is {entry!r}; it must be a mapping with the key bottleneck")
    known = sorted(path.stem for path in (root / "vqlib" / "bottlenecks").glob("[a-z]*.py"))
    bottleneck = entry.get("bottleneck")
    if bottleneck not in known:
        raise ParameterError(f"{where}.bottleneck is {bottleneck!r}{nearest(str(bottleneck), known)}")
    accepted = constructor_arguments(root / "vqlib" / "bottlenecks" / f"{bottleneck}.py")
    _refuse_unknown(entry, ["bottleneck", "weights", *accepted], where)
    options = {key: value for key, value in entry.items() if key in accepted}
    # by alias, since a field may not have every name that an argument may
    fields = {f"option_{key}": (kind, Field(default, alias=key)) for key, (kind, default) in accepted.items()}
    _build(create_model("Options", __base__=_Section, **fields), options, where)
    weights = entry.get("weights", {})
    return _build(Variant, {"name": name, "bottleneck": bottleneck, "options": options, "weights": weights}, where)


def _run(name: str, entry: Any, variants: dict[str, Variant], experiment: Experiment, where: str) -> Run:
    if not isinstance(entry, dict):
        raise ParameterError(f"{where} is {entry!r}; it must be a mapping with the keys variant, bottleneck and seed")
    written = _build(RunEntry, entry, where)
    if written.variant not in variants:
        raise ParameterError(f"{where}.variant is {written.variant!r}{nearest(written.variant, variants)}")
    variant = variants[written.variant]
    if written.bottleneck != variant.bottleneck:
        raise ParameterError(f"{where}.bottleneck is {written.bottleneck!r}; "
                             f"that of the variant {variant.name} is {variant.bottleneck!r}")  # fmt: skip
    rate = experiment.training.learning_rate if written.learning_rate is None else written.learning_rate
    plain = f"{variant.name}-{written.seed}"
    if name not in (plain, f"{plain}-lr{short(rate)}"):
        raise ParameterError(f"{where}: a run is named <variant>-<seed> or <variant>-<seed>-lr<learning rate>, here "
                             f"{plain} or {plain}-lr{short(rate)}")  # fmt: skip
    return Run(name=name, variant=variant, seed=written.seed, learning_rate=rate)


def short(rate: float) -> str:
    """A learning rate in a name, without a dot, which DVC would take for the end of a key: 2e-3, 25e-5."""
    digits, _, exponent = f"{rate:.6e}".partition("e")
    digits = digits.replace(".", "").rstrip("0")
    return f"{digits}e{int(exponent) - len(digits) + 1}"


def constructor_arguments(file: Path) -> dict[str, tuple[Any, Any]]:
    """Arguments that a variant may give to a file's ``Bottleneck``: type, and ``...`` where it must be given or None.

    They are read from its own ``__init__`` without importing it (and torch with it); those of a base class count only
    where it repeats them. Not among them is ``embedding_dim``, the network's width.

    Raises:
        ParameterError: the file is no Python, or has no such class, or an argument is by position only or annotated
            with what cannot be checked.
    """
    try:
        body = ast.parse(file.read_text(encoding="utf-8"), str(file)).body
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ParameterError(f"{file}{f', line {line}' if line else ''}: not Python "
                             f"({getattr(error, 'msg', error)})") from None  # fmt: skip
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == "Bottleneck":
            found = [item.args for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            accepted = {}
            for arguments in found[:1]:
                if unnamed := arguments.posonlyargs[1:]:
                    raise ParameterError(f"{file}, line {unnamed[0].lineno}: {unnamed[0].arg} is by position only; it "
                                         "must stand after the /, since all are given by name")  # fmt: skip
                positional = (arguments.posonlyargs + arguments.args)[1:]
                given = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
                for argument, default in zip(
                    positional + arguments.kwonlyargs, given + arguments.kw_defaults, strict=True
                ):
                    if argument.arg not in ("embedding_dim", "num_embeddings"):
                        accepted[argument.arg] = (_kind(argument, file), ... if default is None else None)
            return {**accepted, "num_embeddings": (Codes, None)}
    raise ParameterError(f"{file}: holds no class Bottleneck; vqlib/bottlenecks/__init__.py has the contract")


def _kind(argument: ast.arg, file: Path) -> Any:
    """The type of an argument from its annotation, which may be one of ``KINDS``, several of them, values or none."""
    node = argument.annotation
    if node is None:
        return Any
    try:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        return _annotated(node)
    except (KeyError, SyntaxError, ValueError):
        raise ParameterError(f"{file}, line {argument.lineno}: {argument.arg} is annotated {ast.unparse(node)}; it may "
                             f"be {', '.join(KINDS)}, several of them with | between, Optional of one, Literal of "
                             "values, or nothing") from None  # fmt: skip


def _annotated(node: ast.expr) -> Any:
    match node:
        case ast.BinOp(op=ast.BitOr()):
            return Union[_annotated(node.left), _annotated(node.right)]  # noqa: UP007
        case ast.Subscript(value=ast.Name("Optional") | ast.Attribute(attr="Optional")):
            return Union[_annotated(node.slice), None]  # noqa: UP007
        case ast.Subscript(value=ast.Name("Literal") | ast.Attribute(attr="Literal")):
            values = ast.literal_eval(node.slice)
            values = values if isinstance(values, tuple) else (values,)
            if not values or not all(isinstance(value, str | int | float | None) for value in values):
                raise ValueError
            return Literal[values]
    return KINDS[ast.unparse(node)]


def _build(kind: type[_Section], values: dict, where: str) -> Any:
    """``kind(**values)``, with the first thing that is wrong as one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")  # a typo explains a gap
    path, section, value = [str(part) for part in first["loc"]], kind, first["input"]
    while path[0] in section.model_fields and len(path) > 1 and _is_section(section.model_fields[path[0]].annotation):
        section, where = section.model_fields[path[0]].annotation, f"{where}.{path[0]}"
        path, values = path[1:], values[path[0]]
    key = path[0]
    if first["type"] == "extra_forbidden":
        raise ParameterError(f"{where}.{key} is not a known key{nearest(key, section.model_fields)}")
    schema = section.model_json_schema()["properties"].get(key, {})
    if "anyOf" in schema and len(path) > 1:  # pydantic adds which kind it tried, and where in it
        path, value = path[:1], values[key]
    if len(path) > 1:
        schema = schema.get("additionalProperties", schema.get("items", schema))
    expected = _expected(schema)
    found = "missing" if first["type"] == "missing" else repr(value)
    raise ParameterError(f"{where}.{'.'.join(path)} is {found}; it must be {expected}")


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, _Section)


def _expected(schema: dict) -> str:
    """A JSON schema of one field in words."""
    if "anyOf" in schema:
        return " or ".join(_expected(part) for part in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "additionalProperties" in schema and schema["additionalProperties"] is not True:
        return "a mapping, each value " + _expected(schema["additionalProperties"])
    if schema.get("type") == "array":
        return "a list, each value " + _expected(schema["items"])
    words = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}
    text = words.get(schema.get("type", ""), "null" if schema.get("type") == "null" else "a mapping")
    if "multipleOf" in schema:
        text = f"a multiple of {schema['multipleOf']}"
    if "minimum" in schema:
        text += f" from {schema['minimum']:,} to {schema['maximum']:,}"
    return text


def _root_name(root: Path) -> str:
    name = _mapping(_read(root, "params.yaml"), "experiment", "params.yaml").get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ParameterError(f"params.yaml: experiment.name is {name!r}; it must be lower-case letters, digits and _, "
                             "and start with a letter")  # fmt: skip
    return name


def _read(root: Path, file: str) -> dict:
    try:
        content = YAML(typ="safe", pure=True).load((root / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"{file} is missing in {root}; every experiment has one") from None
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ParameterError(f"{file}{line}: not valid YAML 1.2 ({reason})") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{file} must be a mapping with the keys root, params, experiment and runs")
    return content


def _mapping(content: dict, key: str, file: str) -> dict:
    value = content.get(key)
    if not isinstance(value, dict) or not value:
        raise ParameterError(f"{file}: {key} is {value!r}; it must be a mapping")
    return value


def _refuse_unknown(raw: dict, known: Iterable[str], where: str) -> None:
    for key in raw:
        if key not in known:
            raise ParameterError(f"{where}: {key!r} is not a known key{nearest(str(key), known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'? it may be one of ...``: the end of a message about an unknown name."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"{f'; did you mean {close[0]!r}?' if close else ';'} it may be one of {', '.join(known)}"
