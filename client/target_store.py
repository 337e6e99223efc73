"""z vectors on disk: one small safetensors file each, named by everything that the vector depends on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from collabedit.client.search import Found
from collabedit.common.files import write_durably


@dataclass(frozen=True)
class TargetStore:
    """A folder of z vectors that survives a kill at any instant; several processes may share it.

    Keys are `collabedit.client.targets.target_keys`'. A file that is there is whole; one that is damaged all the same
    counts as absent.
    """

    folder: Path

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def get(self, key: str, /) -> Found | None:
        """What was kept under a key, or None."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                z = file.get_tensor("z")
                loss, steps = file.get_tensor("loss"), file.get_tensor("steps")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            with suppress(OSError):
                path.unlink()
            return None
        return Found(z, float(loss), int(steps))

    def __setitem__(self, key: str, found: Found, /) -> None:
        """Keeps one result: when this returns it is on disk."""
        tensors = {
            "z": found.z.contiguous(),
            "loss": torch.tensor(found.loss, dtype=torch.float64),
            "steps": torch.tensor(found.steps),
        }
        write_durably(self._path(key), save(tensors))
