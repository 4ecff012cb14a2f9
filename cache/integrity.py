"""Whether a cache is what its index promises, bit for bit."""

from dataclasses import dataclass
from pathlib import Path

from ..manifests.errors import StageError
from ..manifests.files import TEMPORARY_PREFIX
from .reader import read_index
from .shards import Shard, ShardError

__all__ = ["Damage", "find_damage"]


@dataclass(frozen=True)
class Damage:
    """A file that is not what it should be.

    `reason` says what is wrong with it, naming the image where it is one row.
    """

    path: Path
    reason: str


def find_damage(folder: Path) -> list[Damage]:
    """Return everything that is wrong with the cache in `folder`, after reading every byte.

    That is a damaged or missing index or shard, a row that does not match its checksum or is not the one that
    the index refers to, and a shard that the index does not name.
    """
    try:
        spec, rows = read_index(folder)
    except StageError as error:
        return [Damage(folder / "index.parquet", str(error))]
    found: list[Damage] = []
    promised: dict[str, list[tuple[int, str, int]]] = {}
    for row in rows:
        promised.setdefault(row.shard, []).append((row.row, row.image_key, row.checksum))
    for name in sorted(promised):
        path = folder / name
        try:
            shard = Shard(path)
        except ShardError as error:
            found.append(Damage(path, str(error)))
            continue
        if shard.spec != spec:
            reason = f"it belongs to another feature set ({shard.spec.difference(spec)})"
            found.append(Damage(path, reason))
            continue
        damaged = set(shard.damaged_rows())
        found += [
            Damage(path, f"row {row} (image {shard.keys[row]}) does not match its checksum")
            for row in sorted(damaged)
        ]
        for number, key, checksum in promised[name]:
            there = (shard.keys[number], int(shard.checksums[number])) if number < len(shard.keys) else None
            if there != (key, checksum) and number not in damaged:
                found.append(Damage(path, f"row {number} is not image {key} as the index has it"))
    for path in sorted(folder.glob("*.h5")):
        # A folder of such a name is nothing that extract made, and harms nothing.
        if path.name not in promised and not path.is_dir() and not path.name.startswith(TEMPORARY_PREFIX):
            found.append(Damage(path, "the index does not name it"))
    return found
