"""Resume state that survives a kill at any moment: safetensors files with their digest in the name. No pickle.

They lie in ``checkpoints/<key>/``, where the key is a digest of everything that determines the run, so changed
parameters, data or code never resume an old state. ``VQLIB_CHECKPOINTS`` names another folder than ``checkpoints``.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
    """Write a checkpoint atomically and drop all but the last ``KEEP``."""
    content = save(state.tensors, metadata={"record": json.dumps(state.record)})
    write_atomically(folder / f"{state.step:09d}-{digest_of(content)[:32]}.safetensors", content)
    for path in _newest_first(folder)[KEEP:]:
        path.unlink(missing_ok=True)


def load_state(folder: Path, warn: Callable[[str], None]) -> State | None:
    """The newest undamaged checkpoint, or None. Each damaged one is passed over and said."""
    for path in _newest_first(folder):
        content = path.read_bytes()
        if digest_of(content)[:32] == path.stem.partition("-")[2]:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            return State(int(path.stem[:9]), load(content), json.loads(header["__metadata__"]["record"]))
        warn(f"checkpoint {path} is damaged; going back to the one before it, if there is one")
    return None


def remove_states(folder: Path) -> None:
    """Forget a run that has ended well."""
    shutil.rmtree(folder, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*-*.safetensors"), reverse=True)
