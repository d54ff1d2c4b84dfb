"""Resume state that survives a kill at any moment: safetensors files with their digest in the name. No pickle.

They lie in ``checkpoints/<key>/``, where the key is a digest of everything that determines the run, so changed
parameters, data or code never resume an old state. ``VQLIB_CHECKPOINTS`` names another folder than ``checkpoints``.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vqlib.files import digest_of, json_bytes, write_atomically

KEEP = 3


class State(NamedTuple):
    step: int  # steps done
    tensors: dict[str, Tensor]
    record: Any  # JSON


def checkpoint_folder(root: Path, determinants: dict[str, Any]) -> Path:
    """The folder that belongs to these parameters, data and code and to no others."""
    base = Path(os.environ.get("VQLIB_CHECKPOINTS") or root / "checkpoints").expanduser()
    return base / digest_of(json_bytes(determinants))[:20]


def save_state(folder: Path, state: State) -> None:
    """Write a checkpoint atomically and drop all but the last ``KEEP``. The caller has the folder to itself."""
    for unfinished in folder.glob(".*.tmp"):  # by a process that was killed
        unfinished.unlink(missing_ok=True)
    text = json.dumps({"place": _place(folder, state.step), "record": state.record})
    content = save(state.tensors, metadata={"state": text})  # one entry: several come in random order
    write_atomically(folder / f"{state.step:09d}-{digest_of(content)[:32]}.safetensors", content)
    for path in _newest_first(folder)[KEEP:]:
        path.unlink(missing_ok=True)


def load_state(folder: Path, warn: Callable[[str], None]) -> State | None:
    """The newest undamaged checkpoint, or None. Each damaged one is said and put aside as ``<name>.damaged``, since
    among the last ``KEEP`` it would take the place of those yet to come."""
    for path in _newest_first(folder):
        try:
            return _read(path)
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError, OSError):
            warn(f"checkpoint {path} is damaged; going back to the one before it, if there is one")
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
    return None


def _read(path: Path) -> State:
    """Raises one of many errors unless the file is whole and was saved under this name in this folder."""
    if not path.is_file():
        raise ValueError("no file")  # opening a pipe would wait for ever
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    step, _, expected = path.stem.partition("-")
    if digest[:32] != expected:
        raise ValueError("other bytes than those that were saved")
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    described = json.loads(header["__metadata__"]["state"])
    if described["place"] != _place(path.parent, int(step)):
        raise ValueError("saved by another run, or at another step")
    return State(int(step), load(content), described["record"])


def _place(folder: Path, step: int) -> str:
    return f"{folder.name}/{step}"


def forget(folder: Path) -> None:
    """Remove the states of a run that has ended well; in a pipeline, when the notebook that calls has ended well too.

    Until then a stage that fails after the training would begin again from step 0. See ``vqlib.nb.run``.
    """
    later = os.environ.get("VQLIB_PIPELINE")
    if later:
        Path(later).write_text(str(folder.resolve()))
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*.safetensors"), reverse=True)
